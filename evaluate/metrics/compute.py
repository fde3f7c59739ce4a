"""All metrics of one image's maps: what they share (frames, subsets, answers) is made and asked once.

Each function returns, for each map, the values of the rows that `evaluate.metrics.settings.ROWS` names; a text stands
where a
map has no value and says why.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from distill.perturb.curves import rank_pixels
from evaluate.games.baselines import image_rng, mean_color
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays
from evaluate.metrics.fidelity import compare, game_frames, masked_correlation, masked_frames
from evaluate.metrics.max_sensitivity import max_sensitivity
from evaluate.metrics.mu_fidelity import draw_subsets, mu_fidelity, subset_frames, subset_sums
from evaluate.metrics.pointing import mass_inside, pointing_game
from evaluate.metrics.road import road, road_frames
from evaluate.metrics.settings import ROWS, Metric, Settings
from explain.seeds import image_seed
from explain.surrogate import student_view

if TYPE_CHECKING:
    from distill.teachers import Teacher

Values = list[tuple[float | str, ...]]
BATCH_FRAMES = 64  # where the teacher does not say how many it takes at once


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One image with the maps that can be measured on it, at least one."""

    image_id: str
    """Its id."""
    pixels: torch.Tensor
    """(3, H, W), normalized, at the teacher's input size."""
    maps: Sequence[torch.Tensor]
    """(h, w) each, finite."""
    targets: Sequence[int]
    """The class that each map explains."""
    mask: Callable[[], np.ndarray]
    """Reads the object's mask, bool; raises ValueError where there is none."""
    explain: Sequence[Callable[[np.ndarray], np.ndarray] | None]
    """For each map what makes it anew (see `max_sensitivity`); None where no metric of this subject asks for it."""
    frame: Callable[[], np.ndarray]
    """Reads the image as `explain` takes it, (H', W', 3) in [0, 1]."""
    answer: Callable[[np.ndarray], np.ndarray]
    """Returns the student's logits, (N, K), for such frames (N, H', W', 3)."""

    @property
    def size(self) -> tuple[int, int]:
        """Return the teacher's input size (height, width)."""
        height, width = self.pixels.shape[1:]
        return height, width

    def only(self, numbers: Sequence[int]) -> "Subject":
        """Return the same image with some of its maps."""
        maps, targets, explain = ([of[k] for k in numbers] for of in (self.maps, self.targets, self.explain))
        return dataclasses.replace(self, maps=maps, targets=targets, explain=explain)


def compute_road(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Compute ROAD of each map: its two frames a percentage differ from every other map's."""
    frames = []
    for saliency in subject.maps:
        ranks = rank_pixels(saliency, subject.size, seed=settings.seed).ranks
        rng = image_rng(settings.seed, subject.image_id)
        options = {"percentages": settings.percentages, "noise": settings.noise}
        frames.append(road_frames(subject.pixels, ranks, rng=rng, **options))
    probs = ask(teacher, torch.cat(frames)).reshape(len(frames), -1, teacher.num_classes)
    found = [road(own[:, target]) for own, target in zip(probs, subject.targets, strict=True)]
    return [(one.morf, one.lerf, one.gap) for one in found]


def compute_mu_fidelity(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Compute mu-fidelity of each map from the same answers."""
    rng = image_rng(settings.seed, subject.image_id)
    subsets = draw_subsets(rng, grid=settings.grid, share=settings.subset_share, num=settings.num_subsets)
    baseline = mean_color(subject.pixels, mean=teacher.mean, std=teacher.std, rng=rng)
    frames = subset_frames(subject.pixels, subsets, baseline=baseline)
    probs = ask(teacher, torch.cat([subject.pixels[None], frames])).astype(np.float64)
    drops = probs[0] - probs[1:]
    values: Values = []
    for saliency, target in zip(subject.maps, subject.targets, strict=True):
        found = mu_fidelity(subset_sums(saliency, subsets, subject.size), drops[:, target])
        values.append((_or(found, "no correlation: the map's sums or the target's drops are all the same"),))
    return values


def compute_pointing(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Play the pointing game with each map at the teacher's input size."""
    mask, values = subject.mask(), []
    for saliency in subject.maps:
        # As in `rank_pixels`: equal values stay equal.
        full = F.interpolate(saliency[None, None].double(), size=subject.size, mode="bilinear", align_corners=False)
        found = pointing_game(full[0, 0].float().cpu().numpy(), mask, tolerance_px=settings.tolerance_px)
        values.append((_or(found, "the map is constant, or the object is too small: no maximum to judge"),))
    return values


def compute_energy(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Compute the share of each map's mass on the object."""
    mask = subject.mask()
    shares = [mass_inside(saliency.cpu().numpy(), mask) for saliency in subject.maps]
    return [(_or(share, "the map is constant and points nowhere"),) for share in shares]


def compute_max_sensitivity(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Explain the image and its neighbors again with each method."""
    values: Values = []
    for explain in subject.explain:
        assert explain is not None, "applies_to"
        rng = image_rng(settings.seed, subject.image_id)
        options = {"radius": settings.radius, "num": settings.num_perturbations}
        found = max_sensitivity(explain, subject.frame(), rng=rng, **options)
        values.append((_or(found, "the map is zero everywhere, or a map near it is not finite"),))
    return values


def compute_fidelity(subject: Subject, settings: Settings, teacher: "Teacher") -> Values:
    """Hold the student's answers against the teacher's: image and masks once, each map's games apart."""
    whole = subject.frame()
    mean, std = teacher.mean, teacher.std

    def seen(frames: torch.Tensor) -> np.ndarray:
        return student_view(frames, mean=mean, std=std, size=(whole.shape[0], whole.shape[1])).cpu().numpy()

    masked = masked_frames(
        subject.pixels, seed=image_seed(settings.seed, subject.image_id, "rise"), num=settings.num_masks
    )
    probs = ask(teacher, torch.cat([subject.pixels[None], masked]))
    logits = subject.answer(np.concatenate([whole[None], seen(masked)]))
    clean, under_masks = _told(compare(probs[:1], logits[:1]), teacher), _told(compare(probs[1:], logits[1:]), teacher)
    student_probs = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    protocol = Protocol(seed=settings.seed)
    values: Values = []
    for saliency, target in zip(subject.maps, subject.targets, strict=True):
        plays, _ = make_plays(
            subject.pixels,
            saliency,
            target=target,
            protocol=protocol,
            image_id=subject.image_id,
            mean=mean,
            std=std,
        )
        frames = game_frames(plays, num_points=settings.num_points)
        in_games = _told(compare(ask(teacher, frames), subject.answer(seen(frames))), teacher)
        correlation = masked_correlation(probs[1:, target], student_probs[1:, target])
        same = "no correlation: the target's probability is the same under every mask of a family"
        values.append((*clean, *under_masks, _or(correlation, same), *in_games))
    return values


FUNCTIONS: Mapping[Metric, Callable[[Subject, Settings, "Teacher"], Values]] = {
    "road": compute_road,
    "mu_fidelity": compute_mu_fidelity,
    "pointing": compute_pointing,
    "energy": compute_energy,
    "max_sensitivity": compute_max_sensitivity,
    "fidelity": compute_fidelity,
}


def queries(metric: Metric, settings: Settings, num: int) -> list[tuple[float, ...]]:
    """Count, for each of `num` maps of an image, each row's share of the forward passes that a metric asks for; shared
    ones are divided.
    """
    if metric == "road":
        return [(len(settings.percentages), len(settings.percentages), 0.0)] * num
    if metric == "mu_fidelity":
        return [((settings.num_subsets + 1) / num,)] * num
    if metric == "fidelity":
        return [(1 / num, 0.0, settings.num_masks / num, 0.0, 0.0, 2.0 * settings.num_points, 0.0)] * num
    return [(0.0,) * len(ROWS[metric])] * num


def ask(teacher: "Teacher", frames: torch.Tensor) -> np.ndarray:
    """Return the probabilities of frames (N, 3, H, W), float32 (N, K), asked in batches."""
    parts = frames.split(teacher.batch_size or BATCH_FRAMES)
    return torch.cat([teacher.forward(part) for part in parts]).float().cpu().numpy()


def _told(compared: tuple[float, float], teacher: "Teacher") -> tuple[float, float | str]:
    """Return agreement and KL, where the teacher tells enough for the latter."""
    agreement, divergence = compared
    if teacher.num_ranked is None:
        return agreement, divergence
    return agreement, f"no KL: the black box names only {teacher.num_ranked} of its {teacher.num_classes} classes"


def _or(value: float, reason: str) -> float | str:
    return value if np.isfinite(value) else reason
