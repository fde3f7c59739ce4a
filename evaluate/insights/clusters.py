"""Clusters of a class's maps: spectral relevance analysis (Lapuschkin et al. 2019) with a sparse neighbor graph.

Left out: dynamic time warping and t-SNE of the paper's pictures; nothing is decided by them.
"""

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from scipy.sparse.linalg import lobpcg

from evaluate.insights.evidence import GRID

NEIGHBORS = 10
"""Neighbors of each map in the graph."""
MAX_CLUSTERS = 8
"""Most clusters of a class; the eigengap is looked for up to here."""
NOISE = 0.05
"""Eigenvalues that are small against this one count as zero: parts of the graph that few links join."""
DENSE = 1500
"""Up to so many maps the whole spectrum is computed in a fraction of a second; beyond, its start by iteration."""
EXACT = 5000
"""Up to so many maps all pairs are compared; beyond, maps in nearby cells of a partition alone."""
PROBES = 4
"""Cells of the partition that are searched for each map: 90 % of the true neighbors, and more."""
POOL = 2
"""Cells of the evidence that are added along each side: a map that has moved by a cell stays a neighbor."""


def descriptors(evidence: np.ndarray) -> np.ndarray:
    """Make points whose Euclidean distances are Hellinger distances of coarse evidence, times the root of two.

    Args:
        evidence: (N, GRID, GRID).

    Returns:
        (N, (GRID / POOL)^2) float32.
    """
    coarse = evidence.reshape(len(evidence), GRID // POOL, POOL, GRID // POOL, POOL).sum(axis=(2, 4))
    return np.sqrt(coarse.reshape(len(evidence), -1)).astype(np.float32)


def cluster_maps(points: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Cluster points (N, D) by the eigenvectors of their neighbor graph; as many clusters as the eigengap says.

    With the eigenvalues `l_1 <= l_2 <= ...` of the normalized Laplacian, the number k of clusters maximizes the gap
    `(l_(k+1) - l_k) / (l_(k+1) + NOISE)`: it counts those near zero, and the smooth rest does not matter. Rows of the
    first k eigenvectors, scaled to length 1, are clustered by k-means (Ng et al. 2001).

    Returns:
        (N,) int64: 0 is the largest cluster; all 0 where the first gap is the largest.
    """
    from sklearn.cluster import KMeans

    num = len(points)
    if num <= 2 * NEIGHBORS or np.ptp(points, axis=0).max() == 0:
        return np.zeros(num, dtype=np.int64)
    graph = neighbor_graph(points, seed=seed)
    values, vectors = _spectrum(graph, min(MAX_CLUSTERS + 1, num - 2), seed)
    count = int(np.argmax(np.diff(values) / (values[1:] + NOISE))) + 1
    if count == 1:
        return np.zeros(num, dtype=np.int64)
    rows = vectors[:, :count]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kmeans: Any = KMeans
    labels = kmeans(count, n_init=10, random_state=seed).fit_predict(rows)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels]


def neighbor_graph(points: np.ndarray, *, seed: int = 0) -> sp.csr_matrix:
    """Link each point with its `NEIGHBORS` nearest others: symmetric, 1 where both are neighbors, 1/2 where one is."""
    from sklearn.neighbors import kneighbors_graph

    if len(points) <= EXACT:
        links = kneighbors_graph(points, NEIGHBORS, mode="connectivity", include_self=False)
    else:
        links = _approximate_links(points, seed)
    return sp.csr_matrix((links + links.T) / 2)


def _approximate_links(points: np.ndarray, seed: int) -> sp.csr_matrix:
    """Search each point's neighbors among those in the `PROBES` cells nearest to its own: O(N^1.5) in time."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors

    num_cells = int(np.sqrt(len(points)))
    partition: Any = MiniBatchKMeans(num_cells, random_state=seed, batch_size=4096).fit(points)
    cells, centers = partition.labels_, partition.cluster_centers_
    near = np.argsort(((centers[:, None] - centers) ** 2).sum(axis=2), axis=1)
    rows, columns = [], []
    for cell in np.unique(cells):
        members = np.flatnonzero(cells == cell)
        probes = PROBES
        while (candidates := np.flatnonzero(np.isin(cells, near[cell, :probes]))).size <= NEIGHBORS:
            probes *= 2
        search = NearestNeighbors(n_neighbors=NEIGHBORS + 1).fit(points[candidates])
        found = candidates[search.kneighbors(points[members], return_distance=False)]
        for member, others in zip(members, found, strict=True):
            chosen = others[others != member][:NEIGHBORS]
            rows.append(np.full(len(chosen), member))
            columns.append(chosen)
    where = (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_matrix((np.ones(len(where[0])), where), shape=(len(points), len(points)))


def _spectrum(graph: sp.csr_matrix, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the `count` smallest eigenvalues of the graph's normalized Laplacian, ascending, and their vectors."""
    scale: Any = sp.diags(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    similarity = scale @ graph @ scale  # I - L, whose largest eigenvalues need no factorization
    num: int = similarity.shape[0]
    if num <= DENSE:
        values, vectors = eigh(similarity.toarray(), subset_by_index=(num - count, num - 1))
    else:
        # In blocks, for a graph of several parts has the eigenvalue 1 several times.
        start = np.random.default_rng(seed).normal(size=(num, 2 * count))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the block's last vectors, which are left out, come last
            values, vectors = lobpcg(similarity, start, largest=True, tol=1e-4, maxiter=200)[:2]
    order = np.argsort(-values)[:count]
    return 1 - values[order], vectors[:, order]
