"""The metrics that ask the student: max-sensitivity and fidelity, held against slow ones."""

from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pytest
import torch
from measured_maps import METHODS, SETTINGS, STUDENT_SIZE, TEACHER, frame, make_saliency, target_of, value
from PIL import Image
from scipy import stats

from distill.perturb.curves import rank_pixels
from distill.student.checkpoint import load_student
from distill.teachers import load_teacher
from evaluate.games.baselines import BASELINES, image_rng
from evaluate.metrics.compute import FUNCTIONS, Subject
from evaluate.metrics.max_sensitivity import max_sensitivity
from evaluate.metrics.settings import ROWS
from explain.methods.query.rise import rise_masks
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.seeds import image_seed

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_max_sensitivity_is_of_the_methods_own_maps(place, table):
    student, target = load_student(place.run), torch.tensor([target_of(place.data, 0)])

    def explain(frames: np.ndarray) -> np.ndarray:
        made = [mal_grad_cam(student.model, student.normalize(one[None] * 255), target)[0] for one in frames]
        return torch.stack(made).numpy()

    image = frame(place.data, 0, STUDENT_SIZE).astype(np.float32) / 255
    wanted = max_sensitivity(explain, image, num=3, rng=image_rng(0, "00.png"))
    assert wanted > 0
    assert value(table, "mal_grad_cam", 0, "max_sensitivity") == pytest.approx(wanted, rel=1e-2)


def test_fidelity_is_of_what_both_see(place, table):
    """The games' frames are played here; the student sees them through Pillow, as floats, color by color."""
    teacher, student = load_teacher(TEACHER), load_student(place.run)
    height, width = STUDENT_SIZE

    def seen(pixels: torch.Tensor) -> np.ndarray:
        colors = pixels.numpy() * np.array(teacher.std)[:, None, None] + np.array(teacher.mean)[:, None, None]
        images = [Image.fromarray(np.float32(color)).resize((width, height), 2) for color in colors]
        return np.stack([np.asarray(one) for one in images], axis=2) * 255

    def kl_and_same(pixels: list[torch.Tensor], shown: list[np.ndarray]) -> tuple[float, float]:
        p = teacher.forward(torch.stack(pixels)).double()
        q = student.model(student.normalize(np.stack(shown))).double().softmax(dim=1)
        same = [int(a.argmax()) == int(b.argmax()) for a, b in zip(p, q, strict=True)]
        scores.append((p, q))
        return float((p * (p / q).log()).sum(dim=1).mean()), float(np.mean(same))

    correlate: Any = stats.spearmanr
    for k in (0, 5):
        scores: list[tuple[torch.Tensor, torch.Tensor]] = []
        image_id, target = f"{k:02d}.png", target_of(place.data, k)
        pixels = teacher.normalize(frame(place.data, k)[None])[0]
        own = {name.removeprefix("fidelity_"): value(table, "mal_grad_cam", k, name) for name in ROWS["fidelity"]}
        kl, same = kl_and_same([pixels], [frame(place.data, k, STUDENT_SIZE).astype(np.float32)])
        assert (own["clean_kl"], own["clean_agreement"]) == (pytest.approx(kl, rel=1e-4), same)
        seed, size = image_seed(0, image_id, "rise"), box_teacher.SIZE
        masks = [
            *rise_masks(range(4), seed=seed, size=size, num_cells=7, keep_probability=0.5),
            *rise_masks(range(4), seed=seed, size=size, num_cells=8, keep_probability=0.1),
        ]
        masked = [pixels * mask for mask in masks]
        kl, same = kl_and_same(masked, [seen(one) for one in masked])
        assert (own["masked_kl"], own["masked_agreement"]) == (pytest.approx(kl, rel=1e-4), same)
        p, q = (answers[:, target].numpy() for answers in scores[-1])
        by_family = [correlate(p[half], q[half]).statistic for half in (slice(4), slice(4, 8))]
        assert own["masked_correlation"] == pytest.approx(np.mean(by_family))
        order = np.argsort(rank_pixels(torch.from_numpy(make_saliency("mal_grad_cam", k)), size).ranks.flatten())
        ends = (pixels, torch.zeros_like(pixels)), (BASELINES["blur"](pixels, mean=(), std=(), rng=None), pixels)
        frames = []
        for start, finish in ends:
            for point in (0, 3, 6, 9, 12):  # 12 steps of a row's width
                shown = start.clone().flatten(1)
                shown[:, order[: point * 18]] = finish.flatten(1)[:, order[: point * 18]]
                frames.append(shown.view_as(start))
        kl, same = kl_and_same(frames, [seen(one) for one in frames])
        assert (own["frames_kl"], own["frames_agreement"]) == (pytest.approx(kl, rel=1e-4), same)


class Twin:
    """A student that is the black box: of its input size and seeing what it sees."""

    def __init__(self) -> None:
        self.box, self.asked = box_teacher.make(), 0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.asked += len(frames)
        return np.log(self.box(np.round(frames * 255).astype(np.uint8))).astype(np.float32)


def subject_of(place: SimpleNamespace, k: int, answer: Any) -> Subject:
    teacher = load_teacher(TEACHER)
    return Subject(
        image_id=f"{k:02d}.png",
        pixels=teacher.normalize(frame(place.data, k)[None])[0],
        maps=[torch.from_numpy(make_saliency(method, k)) for method in METHODS],
        targets=[target_of(place.data, k)] * 2,
        mask=lambda: np.zeros(box_teacher.SIZE, bool),
        explain=[lambda frames: frames[..., 0], None],
        frame=lambda: frame(place.data, k).astype(np.float32) / 255,
        answer=answer,
    )


def test_a_student_that_is_the_black_box_is_faithful(place):
    twin = Twin()
    (own,) = FUNCTIONS["fidelity"](subject_of(place, 0, twin).only([0]), SETTINGS, load_teacher(TEACHER))
    assert own == pytest.approx((1, 0, 1, 0, 1, 1, 0), abs=1e-6)
    assert twin.asked == 1 + 8 + 2 * 5


def test_a_planted_disagreement_is_found_where_it_is(place):
    """The student takes one class for another on the whole image, on the mean color, or under one mask."""

    def values(is_wrong: Any) -> dict[str, Any]:
        twin = Twin()

        def answer(frames: np.ndarray) -> np.ndarray:
            logits = twin(frames)
            return np.where(is_wrong(frames)[:, None], -logits, logits)

        (found, _) = FUNCTIONS["fidelity"](subject_of(place, 0, answer), SETTINGS, load_teacher(TEACHER))
        return dict(zip(ROWS["fidelity"], found, strict=True))

    image = frame(place.data, 0) / np.float32(255)
    box = box_teacher.make()

    def is_image(frames: np.ndarray) -> np.ndarray:
        return np.abs(frames - image).max(axis=(1, 2, 3)) < 1e-5

    def is_flat(frames: np.ndarray) -> np.ndarray:
        return np.ptp(frames, axis=(1, 2)).max(axis=1) < 1e-5

    p = box(frame(place.data, 0)[None])[0]
    kl = float((p * np.log(p * (1 / p).sum() * p)).sum())  # against q = (1 / p) / sum (1 / p)
    whole = values(is_image)  # it is the first frame of deletion too, and the last of insertion
    assert whole["fidelity_clean_agreement"] == 0
    assert whole["fidelity_clean_kl"] == pytest.approx(kl, rel=1e-4)
    assert whole["fidelity_frames_agreement"] == pytest.approx(0.8)
    assert whole["fidelity_frames_kl"] == pytest.approx(kl * 0.2, rel=1e-3)
    assert (whole["fidelity_masked_agreement"], whole["fidelity_masked_kl"]) == (1, pytest.approx(0, abs=1e-6))
    flat = values(is_flat)
    assert (flat["fidelity_clean_agreement"], flat["fidelity_masked_agreement"]) == (1, 1)
    assert flat["fidelity_frames_agreement"] == pytest.approx(0.9)
    few = values(lambda frames: np.arange(len(frames)) % 9 == 3 if len(frames) == 9 else np.zeros(len(frames), bool))
    assert few["fidelity_masked_agreement"] == pytest.approx(7 / 8)
    assert few["fidelity_masked_correlation"] < 1
    assert few["fidelity_clean_agreement"] == few["fidelity_frames_agreement"] == 1


def test_a_student_that_answers_with_nothing_has_a_row_that_says_so(place):
    with pytest.raises(ValueError, match="not finite"):
        FUNCTIONS["fidelity"](
            subject_of(place, 0, lambda frames: np.full((len(frames), 3), np.nan, np.float32)),
            SETTINGS,
            load_teacher(TEACHER),
        )
