"""Views, their order over workers, and the cache of soft labels."""

import numpy as np
import pytest
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.training.recipes import Recipe
from distill.training.soft_label_cache import SoftLabels
from distill.training.views import (
    TrainingOrder,
    Views,
    batches_of,
    collate,
    random_box,
    resize_fast,
    teacher_permutation,
    training_view,
    validation_order,
    view_generator,
)


def picture(height=60, width=90, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_view_is_a_function_of_seed_image_and_number_alone():
    recipe = Recipe(input_size=(32, 48))
    sizes = ((32, 48), (64, 96))
    first = training_view(picture(), sizes, recipe, "a.png", 3)
    again = training_view(picture(), sizes, recipe, "a.png", 3)
    assert [v.shape for v in first] == [(32, 48, 3), (64, 96, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], training_view(picture(), sizes, recipe, "a.png", 4)[0])
    assert not np.array_equal(first[0], training_view(picture(), sizes, recipe, "b.png", 3)[0])


def test_both_networks_see_the_same_part_of_the_image():
    smooth = Image.fromarray(np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8))
    small, large = training_view(smooth, ((32, 32), (64, 64)), Recipe(input_size=(32, 32)), "a.png", 0)
    halved = large.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).max() < 4


@pytest.mark.parametrize("size", [(32, 48), (224, 224), (61, 7), (150, 90)])
def test_the_fast_resize_is_pillows_within_two_levels(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 91, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    found = resize_fast(pixels[:, ::1], size)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max() <= 2


def test_random_boxes_stay_inside_and_keep_the_smallest_share():
    generator = view_generator(0, "a", 0)
    for _ in range(200):
        left, top, right, bottom = random_box(generator, (50, 80), 0.3)
        assert 0 <= left < right <= 80
        assert 0 <= top < bottom <= 50
        assert (right - left) * (bottom - top) >= 0.3 * 50 * 80 - 1e-6
    assert random_box(generator, (1000, 10), 1.0) == (0.0, 495.0, 10.0, 505.0)  # nothing fits: the center square


def test_every_image_is_dealt_once_whatever_the_number_of_workers():
    recipe = Recipe(batch_size=8)
    whole = list(TrainingOrder(40, recipe, 2, first_step=0, rank=0, num_workers=1))
    halves = [list(TrainingOrder(40, recipe, 2, first_step=0, rank=r, num_workers=2)) for r in range(2)]
    assert sorted(i for batch in whole for i, _ in batch) == list(range(40))
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert list(TrainingOrder(40, recipe, 2, first_step=3, rank=0, num_workers=1)) == whole[3:]
    assert whole != list(TrainingOrder(40, recipe, 3, first_step=0, rank=0, num_workers=1))
    assert {view for batch in whole for _, view in batch} == {2}
    thirds = [list(TrainingOrder(40, recipe, 2, first_step=0, rank=r, num_workers=3)) for r in range(3)]
    assert [a + b + c for a, b, c in zip(*thirds, strict=True)] == whole
    assert {len(batch) for batches in thirds for batch in batches} == {2, 3}
    with pytest.raises(ValueError, match="do not go round"):
        TrainingOrder(2, recipe, 0, first_step=0, rank=0, num_workers=3)


@pytest.mark.parametrize(
    ("num_images", "num_workers", "batch"), [(40, 1, (8, 5)), (41, 3, (8, 5)), (5, 2, (5, 1)), (7, 7, (7, 1))]
)
def test_batches_go_round_the_workers_and_the_ragged_one_is_left_out(num_images, num_workers, batch):
    recipe = Recipe(batch_size=8)
    assert batches_of(num_images, recipe, num_workers) == batch
    for rank in range(num_workers):
        steps = list(TrainingOrder(num_images, recipe, 0, first_step=0, rank=rank, num_workers=num_workers))
        assert len(steps) == batch[1]
        assert {len(part) - batch[0] // num_workers for part in steps} <= {0, 1}


def test_views_are_taken_in_turn_where_their_number_is_limited():
    views = [TrainingOrder(8, Recipe(num_views=3), e, first_step=0, rank=0, num_workers=1).view for e in range(7)]
    assert views == [0, 1, 2, 0, 1, 2, 0]


def test_validation_deals_every_image_once():
    dealt = [validation_order(11, 4, rank, 3) for rank in range(3)]
    assert sorted(i for batches in dealt for batch in batches for i, _ in batch) == list(range(11))
    assert {view for batches in dealt for batch in batches for _, view in batch} == {-1}


def test_a_broken_image_keeps_its_place_with_its_error(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    images = open_images(str(tmp_path))
    views = Views(images, (None, None), Recipe(input_size=(32, 32)), (40, 56))
    batch = collate([views[0, 0], views[1, 0]])
    assert batch["student"].shape == (2, 32, 32, 3)
    assert batch["teacher"].shape == (2, 40, 56, 3)
    assert batch["error"][0] is None
    assert "b.png" in batch["error"][1]
    assert batch["label"].tolist() == [-1, -1]


@pytest.mark.parametrize("num_images", [2, 3, 50])
def test_shuffled_every_answer_is_taught_once_and_to_another_image(num_images):
    recipe = Recipe(shuffled=True)
    taught = teacher_permutation(num_images, recipe)
    assert sorted(taught) == list(range(num_images))
    assert not (taught == np.arange(num_images)).any()
    assert np.array_equal(taught, teacher_permutation(num_images, recipe))
    if num_images == 50:
        assert not np.array_equal(taught, teacher_permutation(num_images, Recipe(shuffled=True, seed=1)))
        assert (np.diff(taught) == 1).mean() < 0.2  # neighbors, of one class folder, are torn apart
    assert np.array_equal(teacher_permutation(num_images, Recipe()), np.arange(num_images))


def test_there_is_nothing_to_shuffle_in_one_image():
    with pytest.raises(ValueError, match="needs 2 training images"):
        teacher_permutation(1, Recipe(shuffled=True))


def test_a_shuffled_row_shows_the_student_its_image_and_asks_about_the_other(tmp_path):
    for k in range(5):
        picture(seed=k).save(tmp_path / f"{k}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    images, recipe, labels = open_images(str(tmp_path)), Recipe(input_size=(32, 32), shuffled=True), (0, 1, 2, 3, None)
    taught = teacher_permutation(5, recipe)
    plain = Views(images, labels, recipe, (40, 56))
    views = Views(images, labels, recipe, (40, 56), taught)
    for number, view in ((n, v) for n in range(5) for v in (0, 3, -1)):
        own, other, row = plain[number, view], plain[int(taught[number]), view], views[number, view]
        assert (row["image_id"], row["teacher_image_id"], row["label"]) == (
            own["image_id"],
            other["image_id"],
            other["label"],
        )
        broken = own["error"] or other["error"]
        assert row["error"] == broken
        if not broken:
            assert np.array_equal(row["student"], own["student"])
            assert np.array_equal(row["teacher"], other["teacher"])


class Teacher:
    """Count what is asked, and answer with something that depends on the pixels."""

    def __init__(self):
        self.asked = []

    def probabilities(self, images):
        self.asked.append(len(images))
        share = images.reshape(len(images), -1).mean(axis=1, keepdims=True) / 255
        return np.concatenate([share, 1 - share], axis=1).astype(np.float32)


def test_soft_labels_ask_once_per_image_and_view_and_survive_on_disk(tmp_path):
    teacher, folder = Teacher(), Folder(str(tmp_path))
    views = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    soft = SoftLabels(folder, 0)
    live = soft.probabilities(["a", "b", "c"], views, teacher.probabilities)
    assert np.array_equal(live, Teacher().probabilities(views))
    assert np.array_equal(soft.probabilities(["c", "a"], views[[2, 0]], teacher.probabilities), live[[2, 0]])
    soft.keep()
    later = SoftLabels(folder, 0)
    more = np.concatenate([views, views[:1]])
    assert np.array_equal(later.probabilities(["a", "b", "c", "d"], more, teacher.probabilities)[:3], live)
    assert teacher.asked == [3, 1]
    later.keep()
    assert len(SoftLabels(folder, 0).known) == 4
    assert not SoftLabels(folder, 1).known  # another view is another key


def test_without_a_folder_nothing_is_kept(tmp_path):
    soft = SoftLabels(None, 0)
    soft.probabilities(["a"], np.zeros((1, 4, 4, 3), np.uint8), Teacher().probabilities)
    soft.keep()
    assert not list(tmp_path.iterdir())
