"""Mixed, masked and blurred views, a share of the labels and a student to start from, in one worker's training."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.storage import Folder, config_hash
from distill.data import open_images
from distill.data.decode import resize
from distill.training.augment import AugmentedViews, draw_augmentation
from distill.training.distillation import DistillationTrainer
from distill.training.recipes import RECIPES, Recipe
from distill.training.soft_label_cache import SoftLabels, soft_labels_folder
from distill.training.views import training_view, view_generator

NUM_IMAGES = 24
PLAIN = Recipe(
    depth=18, input_size=(32, 32), epochs=4, batch_size=8, lr=0.01, precision="float32", num_views=2, loader_workers=0
)
ALL = replace(PLAIN, masked_share=0.3, blurred_share=0.2, mixup=0.7, label_weight=0.5)


class BlackBox:
    """Answer with the mean color, and count the questions."""

    spec, fingerprint, class_names = "python:black:box", "black", None
    num_classes, num_ranked, input_size, mean = 3, None, (40, 56), (0.4, 0.5, 0.6)

    def __init__(self):
        self.num_asked = 0

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.num_asked += len(images)
        colors = images.reshape(len(images), -1, 3).mean(axis=1)
        return (colors / colors.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for k in range(NUM_IMAGES):
        for split in ("train", "val"):
            path = root / split / f"class{k % 3}" / f"{k:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grid = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
            grid.resize((100, 80), Image.Resampling.BICUBIC).save(path)
    return str(root)


def training(data: str, folder: Any, recipe: Recipe = ALL) -> DistillationTrainer:
    train, val = open_images(data, split="train"), open_images(data, split="val")
    box: Any = BlackBox()
    return DistillationTrainer(recipe, box, train, val, Folder(str(folder)))


def train_views(data: str, recipe: Recipe) -> AugmentedViews:
    images = open_images(data, split="train")
    return AugmentedViews(images, images.labels(3), recipe, BlackBox.input_size, mean=BlackBox.mean)


def kinds(recipe: Recipe, num_draws: int = 2000) -> Counter:
    draws = [draw_augmentation(view_generator(0, f"{i}.png", 0, "change/"), recipe, 10) for i in range(num_draws)]
    return Counter(change.kind for change in draws)


def test_views_are_masked_and_blurred_in_the_shares_asked_for_and_the_others_mixed():
    found = kinds(ALL)
    for kind, share in (("masked", 0.3), ("blurred", 0.2), ("mixed", 0.5)):
        assert found[kind] / 2000 == pytest.approx(share, abs=0.04)
    assert kinds(replace(ALL, mixup=0.0)).keys() == {"masked", "blurred", "none"}
    assert kinds(PLAIN) == {"none": 2000}


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_shares_of_a_mixture_follow_beta_and_any_image_is_mixed_in(alpha):
    recipe = replace(PLAIN, mixup=alpha)
    draws = [draw_augmentation(view_generator(0, f"{i}.png", 3, "change/"), recipe, 10) for i in range(4000)]
    shares = np.array([change.share for change in draws])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # of Beta(alpha, alpha)
    assert np.bincount([change.other for change in draws], minlength=10) == pytest.approx(400, abs=80)


def test_teacher_and_student_see_the_same_pixels(data):
    """A masked or blurred frame is the teacher's, resized; a mixture is made of the two cuts at either size."""
    views, plain = train_views(data, ALL), train_views(data, PLAIN)
    seen = Counter()
    for number, view in np.ndindex(NUM_IMAGES, 4):
        image_id = views.images.image_ids[number]
        change = draw_augmentation(view_generator(ALL.seed, image_id, view, "change/"), ALL, NUM_IMAGES)
        row, cut, other = views[number, view], plain[number, view], plain[change.other, view]
        seen[change.kind] += not np.array_equal(row["teacher"], cut["teacher"])
        assert row["error"] is None
        assert np.array_equal(row["teacher"], views[number, view]["teacher"])
        if change.kind == "mixed":
            for name in ("student", "teacher"):
                want = change.share * cut[name].astype(float) + (1 - change.share) * other[name].astype(float)
                assert np.abs(row[name] - want).max() <= 0.5 + 1e-9
            assert (row["label"], row["other_label"], row["share"]) == (cut["label"], other["label"], change.share)
        else:
            assert np.array_equal(row["student"], resize(Image.fromarray(row["teacher"]), ALL.input_size))
            assert row["share"] == 1
    assert min(seen.values()) > 10
    assert seen.total() > 0.9 * 4 * NUM_IMAGES  # an image may be mixed with itself, a mask may hide nothing
    assert seen.keys() == {"masked", "blurred", "mixed"}


def test_the_papers_views_are_cut_and_nothing_else(data):
    views = train_views(data, PLAIN)
    image_id = views.images.image_ids[5]
    image = Image.open(f"{data}/{image_id}")
    small, large = training_view(image, (PLAIN.input_size, BlackBox.input_size), PLAIN, image_id, 3)
    row = views[5, 3]
    assert np.array_equal(row["student"], small)
    assert np.array_equal(row["teacher"], large)
    assert (row["error"], row["share"]) == (None, 1)


def test_an_image_that_a_broken_one_was_to_be_mixed_into_is_left_out(data, tmp_path):
    for k in range(6):
        Image.new("RGB", (40, 40), (40 * k, 0, 0)).save(tmp_path / f"{k}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    recipe = replace(PLAIN, mixup=1.0)
    views = AugmentedViews(open_images(str(tmp_path)), (None,) * 6, recipe, (32, 32), mean=BlackBox.mean)
    for number, view in np.ndindex(6, 5):
        other = draw_augmentation(view_generator(0, f"{number}.png", view, "change/"), recipe, 6).other
        error = views[number, view]["error"]
        assert (error is not None) == (3 in (number, other))
        assert error is None or error.startswith("3.png: ")


def test_training_goes_on_exactly_where_it_was_with_every_option_on(data, tmp_path):
    whole, first, second = (training(data, tmp_path / name) for name in ("whole", "parts", "parts"))
    for _ in range(3):
        wanted = list(whole.train_epoch())
    list(first.train_epoch())
    list(islice(first.train_epoch(), 2))
    first.save(tmp_path)
    second.restore(tmp_path)
    list(second.train_epoch())
    found = list(second.train_epoch())
    assert [terms["loss"] for terms in found] == [terms["loss"] for terms in wanted]
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, second.student.state_dict()[name]), name


def test_answers_that_are_kept_are_those_of_the_changed_views(data, tmp_path):
    one = training(data, tmp_path)
    box: Any = one.teacher
    for epoch in range(4):
        list(one.train_epoch())
        assert box.num_asked == NUM_IMAGES * min(epoch + 1, ALL.num_views)
    for view in range(ALL.num_views):
        known = SoftLabels(one.soft_labels, view).known
        rows = [one.train_views[number, view] for number in range(NUM_IMAGES)]
        answers = BlackBox().probabilities(np.stack([row["teacher"] for row in rows]))
        assert np.array_equal(answers, np.stack([known[row["image_id"]] for row in rows]))


def test_other_changes_of_views_have_other_answers_and_the_papers_keep_their_place():
    def name(recipe):
        return soft_labels_folder(Folder("/soft"), "teacher", recipe).name

    assert name(RECIPES["imagenet"][1]) == "teacher-89e93a0f8667"  # as before there were changes
    assert name(RECIPES["imagenette"][1]) == "teacher-97edfa50777c"
    changed = [
        replace(PLAIN, **{field: value})
        for field in ("masked_share", "blurred_share", "mixup")
        for value in (0.0, 0.1, 0.2)
    ]
    assert len({name(recipe) for recipe in changed}) == 7
    assert name(replace(PLAIN, label_weight=0.0)) == name(PLAIN)


def test_the_papers_recipes_are_recorded_as_they_were_and_every_recipe_is_read_back():
    assert config_hash(RECIPES["imagenet"][1].fields()) == "54143e724b92"
    assert config_hash(RECIPES["cub"][1].fields()) == "98979f06eae4"
    assert config_hash(RECIPES["imagenette"][1].fields()) == "132d0b216541"
    for recipe in (ALL, *(recipe for _, recipe in RECIPES.values())):
        assert Recipe.from_fields(recipe.fields()) == recipe


def test_faithful_trains_for_as_long_as_imagenette():
    (_, ours), (_, papers) = RECIPES["faithful"], RECIPES["imagenette"]
    for name in ("depth", "input_size", "epochs", "batch_size", "schedule", "warmup_epochs"):
        assert getattr(ours, name) == getattr(papers, name)
    assert ours.label_weight == 0


@pytest.mark.parametrize(
    "field",
    [{"masked_share": -0.1}, {"masked_share": 0.6, "blurred_share": 0.6}, {"mixup": -1.0}, {"label_weight": -1.0}],
)
def test_options_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match="allowed"):
        replace(Recipe(), **field)
