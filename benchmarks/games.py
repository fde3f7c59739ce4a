"""Measure what the games cost beside the teacher's forward passes, in interleaved rounds of one process.

    python benchmarks/games.py --teacher onnx:model.onnx

Prints frames/s of `evaluate.games.play` (ranking, composing, scoring) over frames/s of the teacher alone on batches of
the same size; 1 would mean that the games cost nothing.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from distill.teachers import Teacher, load_teacher
from evaluate.games import Play, pixel_steps, play, rank_pixels
from evaluate.protocol import GAMES
from evaluate.substrates import SUBSTRATES, image_rng


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    teacher: str
    """The black box, KIND:WHERE."""
    rounds: int = 6
    """Rounds; each measures both, in turns."""
    images: int = 1
    """Images per round; each has a deletion and an insertion game."""
    threads: int = 2
    """CPU threads."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a round took."""

    wall_s: float
    """On the clock."""
    cpu_s: float
    """Of all of the process's threads."""


def main(settings: Settings) -> None:
    """Measure and print."""
    torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = load_teacher(settings.teacher, num_threads=settings.threads, device=device)
    batch_size = teacher.batch_size or 64
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *teacher.input_size, generator=generator).to(device) for _ in range(settings.images)]
    maps = [torch.rand(14, 14, generator=generator).to(device) for _ in images]
    num_frames = sum(game.num_steps + 1 for game in make_plays(teacher, images, maps))
    frames = images[0].expand(batch_size, -1, -1, -1).contiguous()

    def forwards() -> None:
        # Like `play`, keep the scores and wait for the device at the end.
        kept = [teacher.forward(frames)[:, 0] for _ in range(-(-num_frames // batch_size))]
        torch.cat(kept).cpu()

    def games() -> None:
        for _ in play(teacher.forward, make_plays(teacher, images, maps), batch_size=batch_size):
            pass

    forwards()
    games()
    raw: list[Times] = []
    played: list[Times] = []
    for k in range(settings.rounds):
        order = [(raw, forwards), (played, games)]
        for times, work in order if k % 2 else reversed(order):
            times.append(measure(work))
    padded = -(-num_frames // batch_size) * batch_size
    print(f"teacher {settings.teacher} ({teacher.engine}), batches of {batch_size}, {device}")
    print(f"forwards alone: {padded / statistics.median(t.wall_s for t in raw):.1f} frames/s")
    print(f"games:          {num_frames / statistics.median(t.wall_s for t in played):.1f} frames/s")
    for name in ("wall_s", "cpu_s"):  # the CPU's time counts where others use the machine
        pairs = zip(raw, played, strict=True)
        ratios = [(num_frames / getattr(g, name)) / (padded / getattr(f, name)) for f, g in pairs]
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"ratio, {name}: {statistics.median(ratios):.3f} (rounds: {shown})")


def measure(work: Callable[[], None]) -> Times:
    """Time a piece of work."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Times(wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s)


def make_plays(teacher: Teacher, images: list[torch.Tensor], maps: list[torch.Tensor]) -> list[Play]:
    """Rank the maps and make both games of each image, as the job does."""
    plays = []
    for image, saliency in zip(images, maps, strict=True):
        ranks = rank_pixels(saliency, teacher.input_size).ranks
        steps, num_steps = pixel_steps(ranks, teacher.input_size[1])
        for game, name in zip(GAMES, ("mean", "blur"), strict=True):
            rng = image_rng(0, "benchmark")
            substrate = SUBSTRATES[name](image, mean=teacher.mean, std=teacher.std, rng=rng)
            start, finish = (image, substrate) if game == "deletion" else (substrate, image)
            plays.append(Play(start=start, finish=finish, steps=steps, num_steps=num_steps, target=0))
    return plays


if __name__ == "__main__":
    main(tyro.cli(Settings))
