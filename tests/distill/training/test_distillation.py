"""One worker's share of a training with shuffled answers: what it teaches, in every place and after a restart."""

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.training.distillation import DistillationTrainer
from distill.training.recipes import Recipe
from distill.training.soft_label_cache import SoftLabels

NUM_IMAGES = 12
RECIPE = Recipe(
    depth=18, input_size=(32, 32), epochs=2, batch_size=4, precision="float32", num_views=2, loader_workers=0,
    shuffled=True,
)  # fmt: skip


class BlackBox:
    """Answer with a number of each image's own: the share of its mean color."""

    spec, fingerprint, class_names = "python:black:box", "black", None
    num_classes, num_ranked, input_size, mean = 3, None, (24, 40), (0.5, 0.5, 0.5)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
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
            Image.fromarray(np.full((40, 50, 3), rng.integers(20, 250, 3), np.uint8)).save(path)  # any view is the same
    return str(root)


def training(data: str, folder: Any, recipe: Recipe = RECIPE) -> DistillationTrainer:
    train, val = open_images(data, split="train"), open_images(data, split="val")
    box: Any = BlackBox()
    return DistillationTrainer(recipe, box, train, val, Folder(str(folder)))


def taught(one: DistillationTrainer, *, keep: bool = False) -> dict[str, tuple[list[float], int]]:
    """Return what one worker would teach in the rest of this epoch: image_id -> answer, label."""
    one.soft = SoftLabels(one.soft_labels, one.recipe.view_at(one.epoch))
    found = {}
    for batch in one._load("train", one._order(one.step)):
        valid, probs = one._teach(batch)
        assert valid == list(range(len(batch["label"])))
        found |= {
            image_id: (row.tolist(), int(label))
            for image_id, row, label in zip(batch["image_id"], probs, batch["label"], strict=True)
        }
    if keep:
        one.soft.keep()
    return found


def test_the_taught_answers_are_the_true_ones_of_other_images(data: str, tmp_path: Any) -> None:
    plain = training(data, tmp_path, Recipe.from_fields(RECIPE.fields() | {"shuffled": False}))
    true, wrong = taught(plain, keep=True), taught(training(data, tmp_path))
    assert set(true) == set(wrong)
    assert len(true) == NUM_IMAGES
    assert sorted(true.values()) == sorted(wrong.values())
    assert all(true[image_id] != wrong[image_id] for image_id in true)


def test_every_worker_teaches_the_same_and_so_does_one_that_goes_on(data: str, tmp_path: Any) -> None:
    whole = training(data, tmp_path)
    wanted = taught(whole)
    halves = []
    for rank in range(2):
        worker = training(data, tmp_path)
        vars(worker).update(rank=rank, num_workers=2)
        halves.append(taught(worker))
    assert {**halves[0], **halves[1]} == wanted
    assert not set(halves[0]) & set(halves[1])
    next(whole.train_epoch())
    whole.save(tmp_path)
    resumed = training(data, tmp_path)
    resumed.restore(tmp_path)
    rest = taught(resumed)
    assert len(rest) == NUM_IMAGES - RECIPE.batch_size
    assert rest == {image_id: wanted[image_id] for image_id in rest}


def test_it_validates_against_the_true_answers_and_the_student_says_what_it_was_taught(
    data: str, tmp_path: Any
) -> None:
    one, plain = training(data, tmp_path), training(data, tmp_path, Recipe(**{**vars(RECIPE), "shuffled": False}))
    for shuffled, own in ((True, one), (False, plain)):
        assert own.result().shuffled == shuffled
        assert np.array_equal(own.val_views.permutation, np.arange(NUM_IMAGES))
    plain.student.load_state_dict(one.student.state_dict())
    with torch.no_grad():
        assert one.validate() == plain.validate()


@pytest.fixture
def children_as_before() -> Iterator[None]:
    """Take back torch's handler of ended children, which stays for good: other tests' children would end in it too."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_processes_that_live_on_decode_what_the_training_process_would(
    data: str, tmp_path: Any, children_as_before: None
) -> None:
    here, elsewhere = (training(data, tmp_path, Recipe(**{**vars(RECIPE), "loader_workers": n})) for n in (0, 2))
    for epoch in range(2):
        for one in (here, elsewhere):
            one.epoch = epoch
        for part, order in (("train", here._order(1)), ("val", [[(0, -1), (3, -1)], [(5, -1)]])):
            wanted, got = (list(one._load(part, order)) for one in (here, elsewhere))  # pyright: ignore[reportArgumentType]
            assert [batch["image_id"] for batch in got] == [batch["image_id"] for batch in wanted]
            assert all(np.array_equal(a["student"], b["student"]) for a, b in zip(got, wanted, strict=True))


def test_a_recipe_that_does_not_shuffle_is_recorded_as_it_was_before(data: str) -> None:
    assert "shuffled" not in Recipe().fields()
    assert RECIPE.fields()["shuffled"] is True
    assert Recipe.from_fields(Recipe(seed=3).fields()) == Recipe(seed=3)
    assert Recipe.from_fields(RECIPE.fields()) == RECIPE
