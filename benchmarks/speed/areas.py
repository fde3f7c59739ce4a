"""Areas of both games for maps of a few images, as the job plays them: what a shortcut costs in the result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.speed.world import World
from distill.perturb.curves import Perturbation, area_over, changed_fractions, play
from distill.teachers import Teacher
from evaluate.games.protocol import Protocol
from evaluate.games.sampling import play_sampled
from evaluate.games.setup import make_plays


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What maps are judged on."""

    teacher: Teacher
    """The black box."""
    frames: np.ndarray
    """Images at its input size, uint8 (N, H, W, 3)."""
    targets: np.ndarray
    """Its class of each, (N,)."""

    def areas(self, maps: Sequence[np.ndarray], protocol: Protocol) -> tuple[np.ndarray, int]:
        """Play a protocol's games of one map (h, w) for each image; return areas (N, games) and the forwards."""
        areas, num_frames, _ = self.play(maps, protocol)
        return areas, num_frames

    def play(self, maps: Sequence[np.ndarray], protocol: Protocol) -> tuple[np.ndarray, int, float]:
        """Play them; return areas (N, games), the forwards, and the curves' jitter, a standard deviation."""
        fractions: list[np.ndarray] = []
        score, batch_size = self.teacher.forward, self.teacher.batch_size or 64
        plays = self._plays(maps, protocol, fractions)
        curves, num_frames = [], 0
        if protocol.points is None:
            for curve in play(score, plays, batch_size=batch_size):
                curves.append(curve)
                num_frames += len(curve)
        else:
            for sampled in play_sampled(score, plays, num_points=protocol.points, batch_size=batch_size):
                curves.append(sampled.whole(fractions[len(curves)]))
                num_frames += len(sampled.points)
        areas = [area_over(curve, own) for curve, own in zip(curves, fractions, strict=True)]
        # A line has no second difference; that of noise alone has six times the noise's variance.
        jitter = np.sqrt(np.mean([np.mean(np.diff(curve, 2) ** 2) for curve in curves]) / 6)
        return np.array(areas).reshape(-1, len(protocol.games)), num_frames, float(jitter)

    def _plays(
        self, maps: Sequence[np.ndarray], protocol: Protocol, fractions: list[np.ndarray]
    ) -> Iterator[Perturbation]:
        """Yield the plays of all maps; note the fractions of pixels that their curves' points stand at."""
        for k, saliency in enumerate(maps):
            own, _ = make_plays(
                self.teacher.normalize(self.frames[k : k + 1])[0],
                torch.from_numpy(saliency.astype(np.float32)),
                target=int(self.targets[k]),
                protocol=protocol,
                image_id=str(k),
                mean=self.teacher.mean,
                std=self.teacher.std,
            )
            for game in own:
                fractions.append(changed_fractions(game.steps, game.num_steps))
                yield game


def judged(world: World, num: int) -> Judged:
    """Take images, and the black box's own class of each."""
    frames = world.frames(num)
    return Judged(teacher=world.teacher, frames=frames, targets=world.teacher.probabilities(frames).argmax(axis=1))
