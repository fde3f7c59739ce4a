"""Clusters of maps: planted groups, scikit-learn's own clustering, the dense spectrum, and approximate neighbors."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from evaluate.insights import clusters
from evaluate.insights.clusters import cluster_maps, descriptors, neighbor_graph
from evaluate.insights.evidence import GRID, evidence


def blobs(rng: np.random.Generator, num: int, center: tuple[float, float], jitter: float) -> np.ndarray:
    """Make evidence of maps with one bump each, around a place that all share."""
    y, x = np.mgrid[:GRID, :GRID]
    places = np.array(center) + rng.normal(size=(num, 2)) * jitter
    bumps = [np.exp(-((y - down) ** 2 + (x - right) ** 2) / 6) for down, right in places]
    found = [evidence((bump + 0.02 * rng.random((GRID, GRID))).astype(np.float32)) for bump in bumps]
    return np.stack([weights for weights in found if weights is not None])


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    parts = [blobs(rng, 60, (6, 6), 1.2), blobs(rng, 40, (12, 12), 0.4), blobs(rng, 25, (1, 12), 0.4)]
    return np.concatenate(parts), np.repeat([0, 1, 2], [60, 40, 25])


def test_planted_groups_are_found_and_ordered_by_size(planted):
    maps, truth = planted
    labels = cluster_maps(descriptors(maps))
    assert adjusted_rand_score(truth, labels) > 0.95
    assert np.all(np.diff(np.bincount(labels)) <= 0)


@pytest.mark.filterwarnings("ignore:Graph is not fully connected:UserWarning")
def test_clusters_are_those_of_scikit_learn_on_the_same_graph(planted):
    points = descriptors(planted[0])
    peer = SpectralClustering(3, affinity="precomputed", random_state=0, assign_labels="cluster_qr")
    assert adjusted_rand_score(peer.fit_predict(neighbor_graph(points).toarray()), cluster_maps(points)) > 0.95


def test_one_group_is_one_cluster():
    maps = blobs(np.random.default_rng(1), 150, (6, 6), 1.5)
    assert set(cluster_maps(descriptors(maps))) == {0}


def test_few_or_equal_maps_are_one_cluster():
    maps = blobs(np.random.default_rng(2), 15, (6, 6), 3)
    assert set(cluster_maps(descriptors(maps))) == {0}
    assert set(cluster_maps(descriptors(np.repeat(maps[:1], 60, axis=0)))) == {0}


@pytest.mark.parametrize("dense", [1500, 10])
def test_the_spectrum_is_that_of_the_laplacian(planted, dense, monkeypatch):
    monkeypatch.setattr(clusters, "DENSE", dense)
    graph = neighbor_graph(descriptors(planted[0]))
    links = graph.toarray()
    degrees = links.sum(axis=1)
    laplacian = np.eye(len(links)) - links / np.sqrt(degrees[:, None] * degrees)
    values, vectors = clusters._spectrum(graph, 6, 0)
    assert np.allclose(values, np.linalg.eigvalsh(laplacian)[:6], atol=1e-5)
    assert np.allclose(laplacian @ vectors, vectors * values, atol=1e-3)


def test_descriptors_keep_hellinger_distances_of_coarse_evidence(planted):
    first, second = descriptors(planted[0][:2]).astype(np.float64)
    coarse = [maps.reshape(7, 2, 7, 2).sum(axis=(1, 3)) for maps in planted[0][:2]]
    overlap = sum(np.sqrt(p * q) for p, q in zip(coarse[0].flat, coarse[1].flat, strict=True))
    assert ((first - second) ** 2).sum() == pytest.approx(2 - 2 * overlap, abs=1e-6)


def test_approximate_neighbors_are_mostly_the_exact_ones(monkeypatch, planted):
    rng = np.random.default_rng(3)
    points = descriptors(np.concatenate([blobs(rng, 900, (5, 5), 3), blobs(rng, 300, (12, 12), 0.5)]))
    exact: Any = neighbor_graph(points) > 0
    monkeypatch.setattr(clusters, "EXACT", 100)
    close: Any = neighbor_graph(points) > 0
    assert exact.multiply(close).sum() / exact.sum() > 0.9
    assert adjusted_rand_score(planted[1], cluster_maps(descriptors(planted[0]))) > 0.95
