"""The insertion and deletion games of RISE (Petsiuk et al. 2018): how fast a map's order moves the score.

Pixels change in the order of the map, `step` at a time, from a start image to a finish image; the curve is
the probability of the target after every step, both ends included. All cost is the teacher's forward
passes: pixels are ranked once, each frame is one comparison and one selection on a GPU, and on a CPU a copy of
the frame before with what changes, frames of all games form one stream that is cut into batches of one size, and
only the target's probability is kept.
Whole patches, and the order reversed, change only each pixel's step (Blücher et al. 2024).
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cluster.device import one_thread
from distill.perturb.patches import patch_numbers


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One game of one image: frame k shows `finish` where `steps` < k, and `start` elsewhere."""

    start: torch.Tensor
    """First frame, (3, H, W), normalized."""
    finish: torch.Tensor
    """Last frame, (3, H, W), normalized."""
    steps: torch.Tensor
    """The step in which each pixel changes, (H, W) int16, from `pixel_steps` or `patch_steps`."""
    num_steps: int
    """Number of steps; the curve has one point more."""
    target: int
    """Column of the probabilities that is scored."""

    @functools.cached_property
    def order(self) -> torch.Tensor:
        """Return the pixels' indices in the order of their steps, (H W,)."""
        return self.steps.flatten().argsort(stable=True)

    @functools.cached_property
    def num_changed(self) -> list[int]:
        """Return how many pixels show `finish` at each point, (num_steps + 1)."""
        counts = torch.bincount(self.steps.flatten().long(), minlength=self.num_steps)
        return [0, *counts.cumsum(0).tolist()]


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order in which one map changes pixels or patches."""

    ranks: torch.Tensor
    """Rank of each pixel (H, W) or patch (P, P), int64: 0 changes first."""
    tied_share: float
    """Share of the pixels or patches whose value another one has too."""

    def reversed(self) -> "Order":
        """Return the order backwards, ties too: rank n - 1 - rank of n."""
        return Order(ranks=self.ranks.numel() - 1 - self.ranks, tied_share=self.tied_share)


def rank_pixels(saliency: torch.Tensor, size: tuple[int, int], *, seed: int = 0) -> Order:
    """Rank the pixels of a map (h, w) at a teacher's input size (H, W).

    The map is up-sampled bilinearly (align_corners=False) before it is ranked. Values descend; equal values
    are ordered by `tie_hash` of the pixel index, so a constant map gives a fixed random order with a tied
    share of 1.

    Raises:
        ValueError: the map is not (h, w), or holds a value that is not finite.
    """
    return _rank(_up_sample(saliency, size), seed)


def rank_patches(saliency: torch.Tensor, size: tuple[int, int], *, patches: int, seed: int = 0) -> Order:
    """Rank the patches of a map (h, w) at a teacher's input size (H, W): a grid of `patches` x `patches`.

    The map is up-sampled as in `rank_pixels`, then averaged over each patch by adaptive average pooling: patch i of
    P covers rows floor(i H / P) to ceil((i + 1) H / P), so windows share a border pixel where P does not divide H.
    Equal means are ordered by `tie_hash` of the patch index.

    Raises:
        ValueError: the map is not (h, w), or holds a value that is not finite.
    """
    means = F.adaptive_avg_pool2d(_up_sample(saliency, size)[None], patches)[0]
    return _rank(means, seed)


def _up_sample(saliency: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if saliency.ndim != 2 or saliency.numel() == 0:
        raise ValueError(f"a map must be (height, width), got {tuple(saliency.shape)}")
    if not bool(torch.isfinite(saliency).all()):
        count = int((~torch.isfinite(saliency)).sum())
        raise ValueError(f"the map holds {count} values that are not finite; it cannot be ranked")
    # In float32 the weights' rounding would order a plateau; float64, rounded back, keeps equal values equal.
    return F.interpolate(saliency[None, None].double(), size=size, mode="bilinear", align_corners=False)[0, 0]


def _rank(scores: torch.Tensor, seed: int) -> Order:
    values = (scores.float().flatten() + 0).view(torch.int32)  # adding makes -0 and 0 the same bits
    ascending = values ^ ((values >> 31) & 0x7FFFFFFF)  # as the floats are, and below it the hash: no key twice
    keys = (~ascending).long() << 32 | _hashes(values.numel(), seed).to(values.device)
    # NumPy sorts with vector instructions
    order = torch.from_numpy(np.argsort(keys.numpy())) if keys.device.type == "cpu" else keys.argsort()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    ordered = keys[order] >> 32
    equal = ordered[1:] == ordered[:-1]
    tied = F.pad(equal, (1, 0)) | F.pad(equal, (0, 1))
    return Order(ranks=ranks.view(scores.shape), tied_share=float(tied.float().mean()))


def tie_hash(indices: np.ndarray, seed: int) -> np.ndarray:
    """Hash pixel indices to uint32: MurmurHash3's finaliser (fmix32) of `index + seed * 0x9E3779B9`.

    The finaliser is a bijection, so no two pixels of an image have the same hash.
    """
    h = indices.astype(np.uint32) + np.uint32(seed * 0x9E3779B9 % 2**32)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


@functools.lru_cache(maxsize=4)
def _hashes(num_pixels: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(tie_hash(np.arange(num_pixels), seed).astype(np.int64))


def pixel_steps(ranks: torch.Tensor, step_px: int) -> tuple[torch.Tensor, int]:
    """Turn ranks into each pixel's step: `steps < k` is `ranks < k * step_px`, at a quarter of the bytes.

    Returns:
        steps (H, W) int16 (int32 beyond 32,767 steps), and the number of steps, the last of which may be
        shorter.
    """
    num_steps = -(-ranks.numel() // step_px)
    return _as_steps(ranks // step_px, num_steps), num_steps


def patch_steps(ranks: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, int]:
    """Turn the ranks of P x P patches into each pixel's step, one patch per step.

    A pixel belongs to one patch: patch i owns rows floor(i H / P) to floor((i + 1) H / P), where its window of
    `rank_patches` starts to where the next one starts. So patches differ by a row or a column where P does not divide.

    Returns:
        steps (H, W) int16 (int32 beyond 32,767 steps), and the number of steps, P * P.
    """
    numbers = patch_numbers(size, (ranks.shape[0], ranks.shape[1])).to(ranks.device)
    return _as_steps(ranks.flatten()[numbers], ranks.numel()), ranks.numel()


def _as_steps(steps: torch.Tensor, num_steps: int) -> torch.Tensor:
    return steps.to(torch.int16 if num_steps < 2**15 else torch.int32)


def changed_fractions(steps: torch.Tensor, num_steps: int) -> np.ndarray:
    """Count the fraction of pixels that have changed at each point of a curve, (num_steps + 1,), from 0 to 1.

    Args:
        steps: the step in which each pixel changes, (H, W), 0 to num_steps - 1.
        num_steps: of the curve.
    """
    counts = torch.bincount(steps.flatten().long(), minlength=num_steps).cpu().numpy()
    return np.concatenate([[0], np.cumsum(counts)]) / steps.numel()


def play(
    score: Callable[[torch.Tensor], torch.Tensor], plays: Iterable[Perturbation], *, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """Play games and yield each one's curve, (num_steps + 1,) float32, in the order given.

    Args:
        score: maps frames (B, 3, H, W), B at most `batch_size`, to probabilities (B, K). Only the very last batch
            may be smaller. It must neither keep nor change the frames: their memory is used again, and the next
            ones are made from them.
        plays: read as needed, so that images may be loaded lazily. All have one shape and device.
        batch_size: frames per forward pass.
    """
    return play_points(score, ((game, range(game.num_steps + 1)) for game in plays), batch_size=batch_size)


def play_points(
    score: Callable[[torch.Tensor], torch.Tensor],
    jobs: Iterable[tuple[Perturbation, Sequence[int]]],
    *,
    batch_size: int = 64,
) -> Iterator[np.ndarray]:
    """Score some points of each game, one or more, and yield their scores, (len(points),) float32; as `play` does."""
    frames: torch.Tensor | None = None
    targets = np.zeros(batch_size, dtype=np.int64)
    scores: list[torch.Tensor] = []
    lengths: list[int] = []
    filled = 0
    for game, points in jobs:
        if frames is None:
            frames = game.start.new_zeros((batch_size, *game.start.shape))
        lengths.append(len(points))
        done = 0
        while done < len(points):
            count = min(batch_size - filled, len(points) - done)
            before = (points[done - 1], frames[filled - 1]) if done else None  # still there, if of the last batch
            with one_thread():
                compose(game, points[done : done + count], out=frames[filled : filled + count], before=before)
            targets[filled : filled + count] = game.target
            filled, done = filled + count, done + count
            if filled == batch_size:
                scores.append(_target_scores(score, frames, targets))
                filled = 0
        yield from _complete_curves(scores, lengths)
    if filled and frames is not None:
        scores.append(_target_scores(score, frames[:filled], targets[:filled]))
    yield from _complete_curves(scores, lengths)


def compose(
    game: Perturbation, points: Sequence[int], *, out: torch.Tensor, before: tuple[int, torch.Tensor] | None = None
) -> None:
    """Write the frames of some points of a game's curve, ascending, into `out`, (len(points), 3, H, W).

    A device compares and selects for all frames at once. A CPU, whose memory that fills three times as slowly, copies
    the frame before and changes what differs: of the first one that of `before`, an earlier point with its frame, which
    may lie anywhere in `out` but behind the first place; without it the start.
    """
    if out.device.type != "cpu":
        k = torch.as_tensor(points, dtype=game.steps.dtype).to(out.device)
        torch.where(game.steps < k[:, None, None, None], game.finish, game.start, out=out)
        return
    finish = game.finish.flatten(1)
    last, shown = before or (0, game.start)
    for point, frame in zip(points, out, strict=True):
        assert last <= point, (last, points)
        changed = game.order[game.num_changed[last] : game.num_changed[point]]
        frame.copy_(shown)
        # a quarter of the time of `[:, changed] = `
        frame.view(len(finish), -1).index_copy_(1, changed, finish.index_select(1, changed))
        last, shown = point, frame


def _target_scores(
    score: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor, targets: np.ndarray
) -> torch.Tensor:
    probs = score(frames)
    columns = torch.from_numpy(targets.copy()).to(probs.device)
    return probs.gather(1, columns[:, None])[:, 0].float()


def _complete_curves(scores: list[torch.Tensor], lengths: list[int]) -> Iterator[np.ndarray]:
    """Cut finished curves off the front of the scores; the host waits for the device only here."""
    while lengths and sum(len(part) for part in scores) >= lengths[0]:
        joined = torch.cat(scores)
        length = lengths.pop(0)
        scores[:] = [joined[length:]]
        yield joined[:length].cpu().numpy()


def area(curve: np.ndarray, *, step_px: int, num_pixels: int) -> float:
    """Compute the area under a curve: trapezoid rule over the fraction of pixels changed, in [0, 1].

    The fractions are min(k * step_px, num_pixels) / num_pixels, so a shorter last step has its own width
    and a constant curve c has area c for any number of steps.
    """
    return area_over(curve, np.minimum(np.arange(len(curve)) * step_px, num_pixels) / num_pixels)


def area_over(curve: np.ndarray, fractions: np.ndarray) -> float:
    """Compute the area under a curve over the fractions of pixels changed, as `changed_fractions` counts them.

    The trapezoid rule over the true widths: a constant curve c has area c whatever the patches' sizes.
    """
    assert fractions[0] == 0, "a curve starts where no pixel has changed"
    assert fractions[-1] == 1, "a curve ends where all pixels have changed"
    return float(np.trapezoid(curve.astype(np.float64), fractions))
