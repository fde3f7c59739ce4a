"""Jobs on Ray against the same work in a bare loop, and how they grow with workers.

What happens once is left out: starting Ray, its workers and their models. That is stated apart.
"""

import logging
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.speed.ratio import Row, Times, interleaved, speed_row, timed
from benchmarks.speed.world import World
from cluster.planning.throughput import rate_from
from cluster.session import ENV, guard_token
from cluster.storage import PART_SUFFIX, Folder
from distill.data import ImageSet, open_images
from distill.data.frames import read_frame
from distill.perturb.curves import Perturbation, play
from distill.student.checkpoint import load_student, save_student
from distill.student.model import IMAGENET_MEAN, IMAGENET_STD, Student
from distill.teachers import Teacher, load_teacher
from distill.teachers.engines.backends import EngineChoice
from evaluate.config import GamesConfig
from evaluate.games.job import GamesWork, GamesWorker, play_games
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays
from evaluate.map_sets import map_items, open_sources
from explain.compiled.select import compile_method
from explain.config import Job
from explain.job import explain
from explain.maps import read_maps, saliency_maps
from explain.methods.registry import METHODS
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.runners.white_box import PASS_IMAGES

NUM_IMAGES, NUM_SCALED = 2000, 304  # four shards of the games with `STEPS_SCALED`
NUM_INSIDE = 304  # images that the games' worker plays without Ray, to tell what Ray costs
STUDENT_PX = 96  # of the recipe `imagenette`
STEPS, STEPS_SCALED = 4, 12  # of a game; the exact game's 224 would take an hour
TARGET = 0


def measure(world: World) -> list[Row]:
    """Time the jobs and the loops in turns, then the games with one and two workers."""
    torch.set_num_threads(world.threads)
    with tracking_in(world.folder):
        jobs = Jobs(world)
        rounds = [jobs.round(number) for number in range(world.rounds(1))]
        rows = [
            jobs.row(what, [found[what] for found in rounds]) for what in ("explain mal_grad_cam", "evaluate games")
        ]
        rows[-1] = replace(rows[-1], note=f"{rows[-1].note}; {jobs.ray_note(rounds)}")
        return rows + (jobs.worker_rows() if world.threads > 1 else [])


@contextmanager
def tracking_in(folder: Path) -> Iterator[None]:
    """Keep the runs that jobs make away from the user's."""
    name, before = "MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[name] = f"sqlite:///{folder / 'mlflow.db'}"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def ray_of(num_cpus: int) -> Iterator[None]:
    """Run the block with a Ray of so many cores, as jobs start one."""
    for name, value in ENV.items():
        os.environ.setdefault(name, value)
    guard_token()
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()


class Jobs:
    """The jobs' inputs: many images, an untrained student of the black box, and where their results go."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.limit = world.number(NUM_IMAGES, 6)
        self.student = str(world.folder / "untrained")
        px = world.number(STUDENT_PX, 32)
        made = Student(
            model=world.student(),
            input_size=(px, px),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            teacher=world.teacher.spec,
            teacher_fingerprint=world.teacher.fingerprint,
        )
        save_student(Folder(self.student), made)
        height, width = world.teacher.input_size
        self.num_pixels = height * width
        self.inside: list[Times] = []
        """Of the games' worker without Ray, one for each round."""

    def round(self, number: int) -> dict[str, tuple[Times, Times, float]]:
        """Run both jobs and both loops once: what -> job, loop, seconds of the job's start-up."""
        maps, scores = (str(self.world.folder / f"{name}-{number}") for name in ("maps", "scores"))
        protocol = Protocol(step_px=-(-self.num_pixels // STEPS))
        with ray_of(self.world.threads):
            explained = self._timed_job(maps, lambda: self.explain(maps))
        looped = timed(lambda: self.loop_maps(maps), self.limit)
        with ray_of(self.world.threads):
            played = self._timed_job(scores, lambda: self.play(maps, scores, protocol))
        plays = timed(lambda: self.loop_games(maps, protocol), self.limit)
        self.inside.append(self.work_games(maps, scores, protocol))
        return {
            "explain mal_grad_cam": (explained[0], looped, explained[1]),
            "evaluate games": (played[0], plays, played[1]),
        }

    def explain(self, out: str) -> None:
        """Run the explain job."""
        options = METHODS["mal_grad_cam"].options()
        explain(
            "mal_grad_cam",
            Job(
                options=options,
                data=self.world.photographs,
                student=self.student,
                teacher=self.world.spec,
                out=out,
                split="train",
                target=str(TARGET),
                limit=self.limit,
            ),
        )

    def play(self, maps: str, out: str, protocol: Protocol, **changed: Any) -> None:
        """Run the games' job."""
        data, teacher = self.world.photographs, self.world.spec
        play_games(GamesConfig(maps=(maps,), data=data, teacher=teacher, out=out, protocol=protocol, **changed))

    def _timed_job(self, out: str, job: Callable[[], None]) -> tuple[Times, float]:
        """Return the time of the job's work by its own rate, and the seconds that it took besides."""
        whole = timed(job)
        work = part_times(out)
        return work, whole.wall_s - work.wall_s

    def loop_maps(self, maps: str) -> None:
        """Read and explain all images in a bare loop, in the engine that the job took."""
        engine, precision = (Folder(maps).finished() or {})["engine"].split("-")
        student = load_student(self.student)
        choice = EngineChoice(engine=engine, precision=precision, batch_size=PASS_IMAGES)
        method = mal_grad_cam
        if engine != "eager":
            method = compile_method(
                method, student.model, choice, size=student.input_size, num_threads=self.world.threads
            )
        images = self.images()
        target = torch.full((PASS_IMAGES,), TARGET)
        for start in range(0, self.limit, PASS_IMAGES):
            ids = images.image_ids[start : start + PASS_IMAGES]
            frames = np.zeros((PASS_IMAGES, *student.input_size, 3), np.uint8)
            frames[: len(ids)] = [read_frame(images, image_id, student.input_size)[0] for image_id in ids]
            method(student.model, student.normalize(frames), target)

    def loop_games(self, maps: str, protocol: Protocol) -> None:
        """Read images, and play all maps in a bare loop."""
        teacher = self.world.teacher
        for _ in play(teacher.forward, self._plays(maps, protocol), batch_size=teacher.batch_size or 64):
            pass

    def work_games(self, maps: str, scores: str, protocol: Protocol) -> Times:
        """Time the job's own worker over the first images, in this process."""
        sources = open_sources(
            [maps], teacher=self.world.teacher.spec, teacher_fingerprint=self.world.teacher.fingerprint
        )
        images, stored = self.images(), Folder(scores).config()
        worker = GamesWorker(GamesWork(stored=stored, protocol=protocol, sources=sources, images=images))
        items = list(islice(map_items(sources, images), self.world.number(NUM_INSIDE, 4)))
        return timed(lambda: worker(items), len(items))

    def ray_note(self, rounds: Sequence[dict[str, tuple[Times, Times, float]]]) -> str:
        """Say what the games' worker reaches where Ray's processes and the driver need no core."""
        loops = [found["evaluate games"][1] for found in rounds]
        pairs = zip(self.inside, loops, strict=True)
        share = statistics.median(one.items / one.wall_s / (loop.items / loop.wall_s) for one, loop in pairs)
        return (
            f"its worker in one process, without Ray, makes {share:.2f} of the loop's rate; beside it Ray's processes "
            "and the driver take turns on the cores, and both of these work on each batch of the black box"
        )

    def _plays(self, maps: str, protocol: Protocol) -> Iterator[Perturbation]:
        teacher, images = self.world.teacher, self.images()
        for image_id, saliency in zip(images.image_ids, saliency_maps(read_maps(maps)), strict=True):
            frame, error = read_frame(images, image_id, teacher.input_size)
            assert frame is not None and saliency is not None, error  # noqa: PT018
            yield from make_plays(
                teacher.normalize(frame[None])[0],
                torch.from_numpy(saliency),
                target=TARGET,
                protocol=protocol,
                image_id=image_id,
                mean=teacher.mean,
                std=teacher.std,
            )[0]

    def images(self) -> ImageSet:
        """Return the images that the jobs see."""
        return open_images(self.world.photographs, split="train", limit=self.limit)

    def row(self, what: str, found: list[tuple[Times, Times, float]]) -> Row:
        """Make the row of a job against its loop."""
        job, loop, start_s = (list(each) for each in zip(*found, strict=True))
        size = f"ResCBAM-50 at {STUDENT_PX} px" if what.startswith("explain") else f"{2 * (STEPS + 1)} frames a map"
        row = speed_row(
            job,
            loop,
            key="jobs",
            what=f"`{what}`, {self.limit} images, {size}",
            against="the same in a bare loop, reading included",
            at_least=0.9,
            note=f"besides its work the job took {min(start_s):.0f} s: workers, models, the choice of engine",
        )
        return replace(row, by_cpu_time=())

    def worker_rows(self) -> list[Row]:
        """Play the same maps with one worker of two cores, two of one, and one of one."""
        protocol = Protocol(step_px=-(-self.num_pixels // self.world.number(STEPS_SCALED, 2)))
        times: dict[tuple[int, int], list[Times]] = {(1, 2): [], (2, 2): [], (1, 1): []}
        for number in range(self.world.rounds(2)):
            for (workers, cores), found in times.items():
                out = str(self.world.folder / f"scaled-{number}-{workers}-{cores}")
                with ray_of(cores):
                    limit = min(self.limit, self.world.number(NUM_SCALED, 4))
                    self.play(str(self.world.folder / "maps-0"), out, protocol, limit=limit, num_workers=workers)
                found.append(job_times(out))
        what = f"`evaluate games` with two workers of one core, {2 * (STEPS_SCALED + 1)} frames a map"
        reach = {(1, 2): ("one worker of two cores", 0.9), (1, 1): ("one worker of one core", 1.8)}
        grown = (
            f"the engine alone on each of two cores at once has {self.engines_at_once():.2f} times its rate on one; "
            "beside one worker Ray and the driver have the other core to themselves"
        )
        rows = [
            speed_row(
                times[2, 2],
                times[peer],
                key="workers",
                what=what,
                against=against,
                at_least=least,
                note=grown if peer == (1, 1) else "",
            )
            for peer, (against, least) in reach.items()
        ]
        return [replace(row, by_cpu_time=()) for row in rows]

    def engines_at_once(self) -> float:
        """Return the rate of two engines of one core, over that of one of them."""
        engines = [load_teacher(self.world.spec, num_threads=1) for _ in range(2)]
        frames = torch.zeros((engines[0].batch_size or 64, 3, *engines[0].input_size))
        times = self.world.number(40, 2)

        def answer(teacher: Teacher) -> None:
            for _ in range(times):
                teacher.forward(frames)

        def both() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(answer, engines))

        works = {"one": (lambda: answer(engines[0]), 1), "two": (both, 1)}
        found = interleaved(works, rounds=self.world.rounds(3))
        return statistics.median(2 * one.wall_s / two.wall_s for one, two in zip(*found.values(), strict=True))


def job_times(out: str) -> Times:
    """Return the time of a finished job's work: its workers' seconds in parts, shared among those that ran at once."""
    rate = rate_from((Folder(out).finished() or {})["rate"])
    seconds = rate.worker_seconds / rate.num_workers
    return Times(wall_s=seconds, cpu_s=seconds, items=rate.items)


def part_times(out: str) -> Times:
    """Return the time from a finished job's first part to its last, what happens between parts included."""
    parts = sorted(Path(out).glob(f"*{PART_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    whole = job_times(out)
    if len(parts) < 5:
        return whole
    seconds = parts[-1].stat().st_mtime - parts[0].stat().st_mtime
    return Times(wall_s=seconds, cpu_s=seconds, items=round(whole.items * (len(parts) - 1) / len(parts)))
