"""Insights without interventions: evidence and candidates of 50,000 small maps, and clusters against a peer."""

import time

import numpy as np
import pyarrow as pa
from sklearn.cluster import SpectralClustering

from benchmarks.speed.ratio import Row, interleaved, speed_row
from benchmarks.speed.world import World
from evaluate.insights.candidates import propose
from evaluate.insights.classes import Images, contrasts
from evaluate.insights.clusters import NEIGHBORS, cluster_maps, descriptors
from evaluate.insights.evidence import GRID, evidence, image_facts
from evaluate.insights.images import COLUMNS

NUM_CLASSES = 10
SIDE = 28  # of a small map


def measure(world: World) -> list[Row]:
    """Time the clusters of one class in turns with scikit-learn's; the whole data set once, in the note."""
    num = world.number(50_000, 600)
    started_s = time.monotonic()
    images = Images(pa.Table.from_pylist(make_rows(num), schema=COLUMNS))
    made_s = time.monotonic() - started_s
    found, compared = propose(images), contrasts(images)
    whole_s = time.monotonic() - started_s
    points = descriptors(images.evidence[images.members(0)][: world.number(2_000, 60)])
    peer = SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=NEIGHBORS, random_state=0)
    works = {
        "ours": (lambda: cluster_maps(points), len(points)),
        "peer": (lambda: peer.fit_predict(points), len(points)),
    }
    times = interleaved(works, rounds=world.rounds(3))
    return [
        speed_row(
            times["ours"],
            times["peer"],
            key="insights",
            what=f"clusters of {len(points):,} maps of a class, their number too",
            against="scikit-learn's SpectralClustering into two, on neighbors as many",
            note=f"{num:,} maps of {SIDE} x {SIDE} in {whole_s:.0f} s in one process, evidence {made_s:.0f} s of it; "
            f"{len(found)} candidates, {len(compared)} contrasts; without reading files",
        )
    ]


def make_rows(num: int) -> list[dict[str, object]]:
    """Make rows of images with one bump each; a third of the first class has it in a corner."""
    rng, rows = np.random.default_rng(0), []
    y, x = np.mgrid[:SIDE, :SIDE]
    frame = np.zeros((GRID, GRID, 3), dtype=np.uint8)
    for k in range(num):
        target = k % NUM_CLASSES
        planted = target == 0 and k // NUM_CLASSES % 3 == 0
        place = rng.normal(25, 1, 2) if planted else rng.normal(13.5, 4, 2)
        bump = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 40) + 0.3 * rng.random((SIDE, SIDE))
        weights = evidence(bump.astype(np.float32))
        assert weights is not None
        row = {"image_id": f"{k:06d}", "target": target, "evidence": weights.ravel()}
        rows.append({**row, **image_facts(weights, frame, None)})
    return rows
