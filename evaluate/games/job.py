"""The games as a Ray Data job: maps and images in, one row per image, method and game out, then MLflow."""

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from cluster.device import own_device
from cluster.sharded_job import RowCounts, shard_size
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.frames import read_frame, without_image_ids
from distill.perturb.curves import Perturbation, area_over, changed_fractions, play
from distill.teachers import RefusedImageError, load_teacher
from distill.teachers.query_budget import Share, check_budget
from evaluate.config import GamesConfig
from evaluate.games.protocol import Protocol
from evaluate.games.sampling import SampledCurve, play_sampled
from evaluate.games.schema import SCHEMA_VERSION, scores_schema, scores_table
from evaluate.games.setup import make_plays, num_frames
from evaluate.games.summary import GamesSummary, summarize_games, track_games
from evaluate.jobs import Job, JobResult, computed_by, load_worker_teacher, provenance, run_job
from evaluate.map_sets import Source, map_items, map_row, open_played_images, open_sources
from explain.maps import read_part
from explain.runners.white_box import ProgressCallback, no_progress

if TYPE_CHECKING:
    from distill.teachers import Teacher

Item = TypeVar("Item")
Found = TypeVar("Found")
SHARD_MAPS = 16  # 16 maps are 7,200 forward passes at 224 px: seconds to redo, long enough to fill batches
SHARD_FRAMES = 2000  # of shorter games a shard has more maps, for it costs a tenth of a second besides
MAPS_AHEAD = 8  # read and ranked while the black box works; megabytes each
BATCH_FRAMES = 64  # where the teacher does not say how many it takes at once
# The scores' columns of what a map cost, and where the maps have it.
MAP_COSTS = {
    "map_seconds": "seconds",
    "map_teacher_queries": "teacher_queries",
    "map_student_passes": "student_passes",
}


@dataclass(frozen=True, kw_only=True)
class GamesWork:
    """Argument of every worker of a games job."""

    stored: dict[str, Any]
    """Configuration that the folder of scores keeps."""
    protocol: Protocol
    """Protocol to play by."""
    sources: list[Source]
    """Folders of maps."""
    images: ImageSet
    """Data set, without its list of images."""


def play_games(config: GamesConfig) -> JobResult[GamesSummary]:
    """Play the protocol's games of every map on the teacher, and write the scores; go on where a start stopped.

    With `cross_teacher` the maps were made for another teacher. Their class is their own, not this teacher's top-1, so
    that the protocol is another, and its hash, which every row carries.

    Raises:
        ValueError: anything does not fit together, checked before any work starts.
        FileNotFoundError: images or teacher are missing.
    """
    teacher = load_teacher(config.teacher)
    config.protocol.check_size(teacher.input_size)
    sources = open_sources(
        config.maps,
        teacher=config.teacher,
        teacher_fingerprint=teacher.fingerprint,
        cross_teacher=config.cross_teacher,
    )
    images = open_played_images(config.data, sources[0], config.limit, config.per_class)
    made = sources[0].config
    target = f"{made['target']}, of maps made for another teacher" if config.cross_teacher else str(made["target"])
    protocol = dataclasses.replace(config.protocol, target=target)
    num_items, num_queries = len(sources) * len(images.image_ids), num_frames(protocol, teacher.input_size)
    check_budget(teacher, [Share(what="games", each=num_queries, number=num_items, unit="maps")], config.max_queries)
    stored = {
        "schema_version": SCHEMA_VERSION,
        "protocol": protocol.fields(),
        "protocol_hash": protocol.hash,
        **provenance(teacher, images, config),
        "maps": [source.record() for source in sources],
    }
    if config.cross_teacher:
        stored["made_for"] = {name: made[name] for name in ("teacher", "teacher_fingerprint")}

    def finalize(folder: Folder) -> list[GamesSummary]:
        summaries = summarize_games(folder, sources)
        track_games(folder, images, summaries, stored)
        return summaries

    job = Job(
        name="games",
        rows="scores",
        worker=GamesWorker,
        work=GamesWork(stored=stored, protocol=protocol, sources=sources, images=without_image_ids(images)),
        images=images,
        items=map_items(sources, images),
        shard_items=shard_size(num_items, max(SHARD_MAPS, SHARD_FRAMES // num_queries)),
        counts=RowCounts(per_item=len(protocol.games), items_per_image=len(sources), queries="teacher_queries"),
        reports=True,
        finalize=finalize,
    )
    return run_job(job, config)


class GamesWorker:
    """Play the games of a shard's maps; whatever happens to one image, it keeps a row of each game."""

    def __init__(self, work: GamesWork) -> None:
        """Load the teacher on this worker's cores or GPU, once."""
        self.protocol, self.sources, self.images = work.protocol, work.sources, work.images
        self.device = own_device()
        self.teacher = load_worker_teacher(work.stored)
        self.schema = scores_schema(work.stored, computed_by(self.teacher))
        self._part = functools.lru_cache(maxsize=1)(read_part)  # a shard's maps mostly share one part

    def __call__(self, items: list[dict[str, Any]], tell: ProgressCallback = no_progress) -> pa.Table:
        """Return a row per item and game of the protocol, in the items' order and the protocol's.

        `tell` hears of every curve.
        """
        rows: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], np.ndarray]] = []
        plays = self._plays(items, rows, waiting)
        batch_size = self.teacher.batch_size or BATCH_FRAMES
        try:
            for k, scored in enumerate(self._curves(plays, batch_size)):
                row, fractions = waiting[k]
                row |= scored(fractions)
                tell(k + 1, 0)
        except RefusedImageError as error:
            if len(items) > 1:  # a batch holds frames of several images: find out whose they are
                return pa.concat_tables([self([item]) for item in items])
            for row in rows:
                row.setdefault("error", None if "auc" in row else str(error))
        return scores_table(rows, self.schema)

    def _curves(
        self, plays: Iterator[Perturbation], batch_size: int
    ) -> Iterator[Callable[[np.ndarray], dict[str, Any]]]:
        """Play every point, or as many as the protocol says; yield what makes a score of a curve's fractions."""
        if self.protocol.points is None:
            for curve in play(self.teacher.forward, plays, batch_size=batch_size):
                yield functools.partial(_score, curve)
        else:
            num_points = self.protocol.points
            for sampled in play_sampled(self.teacher.forward, plays, num_points=num_points, batch_size=batch_size):
                yield functools.partial(_sampled_score, sampled)

    def _plays(
        self,
        items: Sequence[dict[str, Any]],
        rows: list[dict[str, Any]],
        waiting: list[tuple[dict[str, Any], np.ndarray]],
    ) -> Iterator[Perturbation]:
        """Yield the items' plays as they are needed; note every row, and those that wait for a curve.

        A row waits with the fractions of pixels that its curve's points stand at.
        """
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:  # beside the black box
            for found, plays, tied_share, error in _ahead(reader, self._read, items):
                own = [{**self._row(found), "game": game} for game in self.protocol.games]
                rows += own
                if error is not None:
                    for row in own:
                        row["error"] = error
                    continue
                for row, game in zip(own, plays, strict=True):
                    row["tied_share"] = tied_share
                    waiting.append((row, changed_fractions(game.steps, game.num_steps)))
                    yield game

    def _read(self, item: dict[str, Any]) -> tuple[dict[str, Any], list[Perturbation], float | None, str | None]:
        """Read an item's map and image: the map's row, its plays and its tied share, or why there are none."""
        found = self._map_row(item)
        try:
            return found, *self._make_plays(found), None
        except ValueError as error:
            return found, [], None, str(error)

    def _map_row(self, item: dict[str, Any]) -> dict[str, Any]:
        return map_row(self._part(self.sources[item["source"]].uri, item["part"]), item["row"], item["image_id"])

    def _row(self, found: dict[str, Any]) -> dict[str, Any]:
        same = {name: found[name] for name in ("image_id", "label", "target", "method", "config_hash")}
        costs = {name: found[of] for name, of in MAP_COSTS.items()}
        return {**same, **costs, "protocol_hash": self.protocol.hash, "teacher_queries": 0}

    def _make_plays(self, found: dict[str, Any]) -> tuple[list[Perturbation], float]:
        """Make the plays of a map and its tied share. Raises: ValueError that says why there are none."""
        if found["error"] is not None:
            raise ValueError(found["error"])
        target = checked_target(found["target"], self.teacher)
        frame, error = read_frame(self.images, found["image_id"], self.teacher.input_size)
        if frame is None:
            raise ValueError(error)
        image = self.teacher.normalize(frame[None])[0].to(self.device)
        saliency = torch.from_numpy(np.array(found["saliency"], dtype=np.float32)).to(self.device)
        options = {"image_id": found["image_id"], "mean": self.teacher.mean, "std": self.teacher.std}
        return make_plays(image, saliency, target=target, protocol=self.protocol, **options)


def _ahead(pool: Executor, function: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yield `function` of every item, in their order; the pool is `MAPS_AHEAD` items ahead, no more."""
    waiting: deque[Future[Found]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > MAPS_AHEAD:
            yield waiting.popleft().result()
    for one in waiting:
        yield one.result()


def _score(curve: np.ndarray, fractions: np.ndarray) -> dict[str, Any]:
    return {"curve": curve, "auc": area_over(curve, fractions), "teacher_queries": len(curve)}


def _sampled_score(sampled: SampledCurve, fractions: np.ndarray) -> dict[str, Any]:
    score = _score(sampled.whole(fractions), fractions)
    return {**score, "teacher_queries": len(sampled.points), "auc_bound": sampled.bound(fractions)}


def checked_target(target: int | None, teacher: "Teacher") -> int:
    """Return a map's target. Raises: ValueError where there is none, or the teacher has no such class."""
    if target is None:
        raise ValueError("the map names no target class")
    if not 0 <= target < teacher.num_classes:
        last = teacher.num_classes - 1
        raise ValueError(f"target {target} is not a class of the teacher; classes: 0 to {last}")
    return target
