"""Hold `evaluate insights` against CoRelAy, which clusters maps without a test: which images of a class does each give?

    pip install corelay
    python -m benchmarks.studies.corelay_clusters --work runs/insights --out results/insights

Reads what `planted_shortcuts` wrote. CoRelAy leaves the number of clusters, and which of them matter, to the user: here
it is given the class, and of two to eight clusters the one that overlaps the planted images best is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.studies.planted_shortcuts import folder_of, is_planted
from distill.data import open_images
from evaluate.format.table import Table, markdown_page, table_place, write_pages

NUM_CLUSTERS = range(2, 9)
NUM_SHUFFLED = 20  # drawn sets of as many images, which show what the best of so many clusters overlaps by chance


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which audits to read."""

    data: str = "../shared/data/imagenette"
    """Imagenette, as for `planted_shortcuts`."""
    work: Path = Path("runs/insights")
    """Folder of images, networks, maps and audits."""
    out: Path = Path("results/insights")
    """Folder of the table."""
    maps: str = "gp_regression-50"
    """Ending of the audits' names: method and queries."""
    shortcuts: tuple[str, ...] = ("corner", "frame", "mark")
    """What is planted."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Black boxes."""


def corelay_clusters(maps: np.ndarray) -> Iterator[np.ndarray]:
    """Cluster maps (N, H, W) by CoRelAy's spectral clustering, with as many eigenvectors; yield each cluster."""
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition

    for count in NUM_CLUSTERS:
        pipeline = SpectralClustering(
            embedding=EigenDecomposition(n_eigval=count),
            clustering=KMeans(n_clusters=count, kwargs={"random_state": 0}),
        )
        labels = pipeline(maps.reshape(len(maps), -1).astype(np.float64))
        yield from (labels == label for label in range(count))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the Jaccard index of two sets, bool (N,)."""
    return float((first & second).sum() / max((first | second).sum(), 1))


def row(settings: Settings, shortcut: str, seed: int) -> list[object]:
    """Compare one audit: the overlap with the planted images of the first finding of their class, and of CoRelAy's."""
    audit = settings.work / "audits" / f"{shortcut}-{seed}-{settings.maps}"
    images = pq.read_table(audit / "images", columns=["image_id", "target"])
    ids = np.array(images.column("image_id").to_pylist())
    folder = folder_of(open_images(settings.data, split="val"), seed)
    planted = np.array([is_planted(image_id, folder) for image_id in ids])
    targets = images.column("target").to_numpy()
    target = np.bincount(targets[planted]).argmax()
    own = targets == target
    stored = pq.read_table(settings.work / "maps" / audit.name, columns=["image_id", "map_height", "saliency"])
    maps = dict(zip(stored.column("image_id").to_pylist(), stored.column("saliency").to_pylist(), strict=True))
    clusters = list(corelay_clusters(np.array([maps[image_id] for image_id in ids[own]])[:, None]))
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(planted[own]) for _ in range(NUM_SHUFFLED)]
    found = [one for one in pq.read_table(audit / "suspicions").to_pylist() if one["status"] == "confirmed"]
    members = next((one["image_ids"] for one in found if one["target"] == target), [])
    return [
        shortcut,
        seed,
        int(planted[own].sum()),
        int(own.sum()),
        round(overlap(np.isin(ids[own], members), planted[own]), 2),
        round(max(overlap(one, planted[own]) for one in clusters), 2),
        round(float(np.mean([max(overlap(one, some) for one in clusters) for some in shuffled])), 2),
    ]


def main(settings: Settings) -> None:
    """Compare all audits, and write the table."""
    headings = (
        "planted",
        "seed",
        "planted images of the class",
        "images of the class",
        "overlap (Jaccard) of the first finding",
        "of CoRelAy's best cluster",
        "the same with as many drawn images",
    )
    rows = [row(settings, shortcut, seed) for shortcut in settings.shortcuts for seed in settings.seeds]
    table = Table(headings=headings, rows=rows)
    page = markdown_page("Clusters of CoRelAy", [table], [])
    write_pages(table_place(str(settings.out / "corelay.md")), page, table)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
