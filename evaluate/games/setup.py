"""The games of one map under a protocol: which image each starts from, where it ends, and what changes when."""

from collections.abc import Sequence

import torch

from distill.perturb.curves import Order, Perturbation, patch_steps, pixel_steps, rank_patches, rank_pixels
from evaluate.games.baselines import BASELINES, image_rng
from evaluate.games.protocol import GAMES, Baseline, Protocol, is_deletion


def make_plays(
    image: torch.Tensor,
    saliency: torch.Tensor,
    *,
    target: int,
    protocol: Protocol,
    image_id: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[list[Perturbation], float]:
    """Make a map's plays, one per game of the protocol in its order.

    Args:
        image: (3, H, W), normalized, at the teacher's input size.
        saliency: (h, w), on the image's device.
        target: the class that is scored.
        protocol: which games, in which steps, from and to what.
        image_id: seeds the noise baseline.
        mean: of the teacher's normalization.
        std: likewise.

    Returns:
        The plays, and the share of pixels or patches whose value another one has too.

    Raises:
        ValueError: the map is not (h, w), or holds a value that is not finite.
    """
    size = (image.shape[1], image.shape[2])
    order = _rank(saliency, size, protocol)
    names: set[Baseline] = {protocol.baseline(game) for game in protocol.games}
    baselines = {
        name: BASELINES[name](image, mean=mean, std=std, rng=image_rng(protocol.seed, image_id)) for name in names
    }
    most = _steps(order, size, protocol)
    least = _steps(order.reversed(), size, protocol) if protocol.least_relevant else most
    plays = []
    for game in protocol.games:
        baseline = baselines[protocol.baseline(game)]
        start, finish = (image, baseline) if is_deletion(game) else (baseline, image)
        steps, num_steps = most if game in GAMES else least
        plays.append(Perturbation(start=start, finish=finish, steps=steps, num_steps=num_steps, target=target))
    return plays, order.tied_share


def num_frames(protocol: Protocol, size: tuple[int, int]) -> int:
    """Count the frames of a map's plays at a teacher's input size (height, width): what they ask, at most."""
    steps = protocol.patches**2 if protocol.patches is not None else -(-size[0] * size[1] // protocol.step(size))
    points = steps + 1 if protocol.points is None else min(steps + 1, protocol.points)
    return len(protocol.games) * points


def _rank(saliency: torch.Tensor, size: tuple[int, int], protocol: Protocol) -> Order:
    if protocol.patches is None:
        return rank_pixels(saliency, size, seed=protocol.seed)
    return rank_patches(saliency, size, patches=protocol.patches, seed=protocol.seed)


def _steps(order: Order, size: tuple[int, int], protocol: Protocol) -> tuple[torch.Tensor, int]:
    if protocol.patches is None:
        return pixel_steps(order.ranks, protocol.step(size))
    return patch_steps(order.ranks, size)
