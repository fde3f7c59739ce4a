"""Games of fewer points against the exact ones: how many forwards, how far off, and whether methods change places."""

import numpy as np
import torch

from benchmarks.speed.areas import Judged, judged
from benchmarks.speed.cases.maps import student_maps
from benchmarks.speed.ratio import Row
from benchmarks.speed.world import World
from evaluate.games.protocol import GAMES, Protocol
from evaluate.games.setup import num_frames
from explain.methods.control.centre_gaussian import centre_gaussian
from explain.methods.white_box.mal_grad_cam import mal_grad_cam

NUM_IMAGES = 12


def measure(world: World) -> list[Row]:
    """Play the maps of three methods both ways."""
    torch.set_num_threads(world.threads)
    images = judged(world, world.number(NUM_IMAGES, 2))
    exact = Protocol()
    sampled = Protocol(points=num_frames(exact, world.teacher.input_size) // len(GAMES) // 5)
    maps = method_maps(world, images)
    played = {name: images.play(found, exact) for name, found in maps.items()}
    whole = {name: found[:2] for name, found in played.items()}
    few = {name: images.areas(found, sampled) for name, found in maps.items()}
    jitter = np.sqrt(np.mean([found[2] ** 2 for found in played.values()]))
    assert sampled.points is not None, "it was given"
    share = sum(asked for _, asked in few.values()) / sum(asked for _, asked in whole.values())
    errors = np.abs(np.concatenate([few[name][0] - whole[name][0] for name in maps])).ravel()
    moved = sum(_order(whole, game) != _order(few, game) for game in range(len(GAMES)))
    about = f"{len(images.frames)} images, {', '.join(maps)}"
    against = f"all points of both games, {about}"
    return [
        Row(
            key="adaptive",
            what=f"games of {sampled.points} points (`--points {sampled.points}`): share of the forwards",
            against=against,
            at_most=0.2,
            figures=[share],
        ),
        Row(
            key="adaptive",
            what="the same: how far off an area is, 95 % of them",
            against=against,
            unit="AUC",
            at_most=0.002,
            figures=[float(np.percentile(errors, 95))],
            note=f"mean {errors.mean():.5f}, largest {errors.max():.5f} of {len(errors)} areas; exact curves jitter by "
            f"{jitter:.3f} from point to point, of which {sampled.points} points average no more away: 95 % within "
            f"{1.96 * jitter / np.sqrt(sampled.points):.4f} at best",
        ),
        Row(
            key="adaptive",
            what="the same: games in which methods change places",
            against=against,
            unit="games",
            at_most=0,
            figures=[float(moved)],
        ),
    ]


def method_maps(world: World, images: Judged) -> dict[str, np.ndarray]:
    """Make the maps of a student's method and of two controls, each (N, h, w)."""
    pixels, chosen = images.teacher.normalize(images.frames), torch.from_numpy(images.targets)
    return {
        "mal_grad_cam": student_maps(world.taught, mal_grad_cam, images),
        "centre_gaussian": centre_gaussian(None, pixels, chosen).numpy(),
        "random": np.random.default_rng(0).random(pixels[:, 0].shape, dtype=np.float32),
    }


def _order(found: dict[str, tuple[np.ndarray, int]], game: int) -> list[str]:
    return sorted(found, key=lambda name: found[name][0][:, game].mean())
