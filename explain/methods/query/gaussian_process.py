"""Gaussian-process regression of responses on masks: which weights of an image's cells explain a black box.

Responses y to masks M, (N,) and (N, cells), are taken as linear in the masks, with noise:

    y = H b + M w + e,    w ~ N(0, s C),    e ~ N(0, s l I)

H are effects of no interest (how much is shown, for each substrate), w the cells' weights. C says which cells are
alike: near ones, and those of one superpixel. The length over which they are and the noise l are those
of a few with the highest restricted likelihood (Patterson and Thompson 1971; Rasmussen and Williams 2006, sections 2.7
and 5.4.1), in which b and s take no part. The map is the same process at finer places than the cells, pixels, of which
each lies in one superpixel of a scale. All of it is linear algebra of N x N, or of cells x cells where those are fewer.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (1 / 28, 1 / 14, 1 / 7, 2 / 7)
"""Distances over which near cells are alike, as shares of the longer side: 8, 16, 32 and 64 px at 224 px."""

MIX = 1.0
"""Variance of what the cells of a superpixel have in common at all scales, over that of what near cells have."""

ROWS_AT_ONCE = 64
"""Rows over all pixels in memory: 6 MB at 112 x 112."""

NOISES = tuple(10 ** (exponent / 4) for exponent in range(-20, 9))
"""Variance of the noise, over the mean variance of what the weights add to an answer."""

STRENGTHS = (0.5, 1.0, 2.0)
"""Size of what a prior adds to the answers, over that of what the weights beside it add."""

LEAST_SHARE = 0.05
"""Probability of being right below which a prior is left out."""

ROUNDING = 1e-10
"""Of the largest eigenvalue, what is none: a hundred-thousandth of the least noise."""

TINY = 1e-12
"""Of what answers hold, what is rounding; and least variance, which keeps constant answers from a division by zero."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A grid over an image, the pixels of its map, and which superpixels both belong to."""

    grid: tuple[int, int]
    """Rows, columns."""
    members: Sequence[np.ndarray]
    """For each scale the share of each cell that lies in each superpixel, (S, rows * columns)."""
    segments: Sequence[np.ndarray]
    """For each scale the superpixel in which each pixel lies, (h, w)."""

    def covariances(self, masks: np.ndarray) -> Iterator[np.ndarray]:
        """Yield M C, (N, cells), for masks M (N, cells) and each of `LENGTHS`.

        C = exp(-d^2 / (2 length^2)) + MIX / K sum_k S_k^T S_k, d the distance of two cells as a share of the longer
        side, S_k the memberships of K scales.
        """
        same = sum(((masks @ scale.T) @ scale for scale in self.members), np.zeros_like(masks)) / len(self.members)
        for length in LENGTHS:
            rows, columns = (_alike(side, side, max(self.grid), length) for side in self.grid)
            yield (rows @ masks.reshape(-1, *self.grid) @ columns.T).reshape(masks.shape) + MIX * same

    def at_pixels(self, masks: np.ndarray, length: float) -> np.ndarray:
        """Return M C', (N, h * w), C' the covariances of cells and pixels, likewise; a pixel's variance is 1 + MIX.

        As precise as the masks are.
        """
        shape, dtype = self.segments[0].shape, masks.dtype
        rows, columns = (
            _alike(pixels, side, max(self.grid), length).astype(dtype)
            for pixels, side in zip(shape, self.grid, strict=True)
        )
        near = (rows @ masks.reshape(-1, *self.grid) @ columns.T).reshape(len(masks), -1)
        examples, patches = self.patches
        same = sum(
            (masks @ scale.T.astype(dtype))[:, segments.flat[examples]]
            for scale, segments in zip(self.members, self.segments, strict=True)
        )
        near += np.take(MIX / len(self.members) * same, patches, axis=1)
        return near

    @functools.cached_property
    def patches(self) -> tuple[np.ndarray, np.ndarray]:
        """A pixel of each patch of pixels that no scale tells apart, (P,), and the patch of each pixel, (h * w,)."""
        codes = np.zeros(self.segments[0].size, dtype=np.int64)
        for segments in self.segments:
            codes = codes * (int(segments.max()) + 1) + segments.ravel()
        _, examples, patches = np.unique(codes, return_index=True, return_inverse=True)
        return examples, patches.ravel()


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Posterior distribution of the pixels' weights."""

    mean: np.ndarray
    """(h * w,), in the units of the answers; the prior's part included."""
    std: np.ndarray
    """(h * w,), of the weights beside the prior's."""
    prior_share: float
    """Probability that the prior is right; 0 without one."""
    likelihood: float
    """Logarithm of the restricted likelihood, up to a constant of N and H."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Another model's map of the same image (autoregressive co-kriging, Kennedy and O'Hagan 2000)."""

    responses: np.ndarray
    """What it says to the same masks, (N,)."""
    map: np.ndarray
    """Its own map, (h * w,)."""
    belief: float
    """Probability beforehand that it is right."""


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """What follows from masks and effects alone, whatever was answered: half of the work at 500 questions."""

    rest: np.ndarray
    """Z, orthonormal columns that span all that the effects do not, (N, N - rank)."""
    eigen: Sequence[tuple[np.ndarray, np.ndarray]]
    """For each of `LENGTHS` eigenvalues of Z^T M C M^T Z and their eigenvectors, in columns; others are zero."""

    @classmethod
    def of(cls, cells: Cells, masks: np.ndarray, effects: np.ndarray) -> "Spectra":
        """Decompose: cubic in N, or in the number of cells where that is less."""
        rest = _complement(effects)
        if rest.shape[1] > masks.shape[1]:
            seen = rest.T @ masks
            return cls(rest=rest, eigen=[_few(seen, alike) for alike in cells.covariances(np.eye(masks.shape[1]))])
        return cls(
            rest=rest,
            eigen=[np.linalg.eigh(rest.T @ (kernel @ masks.T) @ rest) for kernel in cells.covariances(masks)],
        )


def _few(seen: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decompose A C A^T, A (n, cells), n more than the cells.

    With C = R R^T, an eigenvector q of R^T A^T A R to the value l becomes one of it by A R, of length sqrt(l).
    """
    spread, axes = np.linalg.eigh(alike)
    root = axes * np.sqrt(np.maximum(spread, 0))
    values, vectors = np.linalg.eigh(root.T @ (seen.T @ seen) @ root)
    kept = values > values.max(initial=0) * ROUNDING
    return values[kept], seen @ (root @ (vectors[:, kept] / np.sqrt(values[kept])))


def regress(
    cells: Cells,
    masks: np.ndarray,
    responses: np.ndarray,
    effects: np.ndarray,
    prior: Prior | None = None,
    *,
    spectra: Spectra | None = None,
) -> Posterior:
    """Find the pixels' weights, and how much of the prior's map to start from.

    With a prior the weights are w ~ N(g m, s C), and the answers y = g p + H b + M (w - g m) + e: m is the prior's map,
    p what it says to the same masks, g = sqrt(s) times one of `STRENGTHS`, in units that give g p the size of what the
    weights add. Whether the prior is right is left to the answers: its map and the one without it are averaged by
    their likelihoods (Hoeting et al. 1999) and what was believed beforehand; a share below `LEAST_SHARE` is none.

    Args:
        cells: The grid and the pixels.
        masks: (N, cells), 1 where shown.
        answers: (N,).
        effects: H, (N, E).
        prior: Another model's answers and map.
        spectra: Of these cells, masks and effects, where they are known from other answers to the same masks.
    """
    spectra = spectra or Spectra.of(cells, masks, effects)
    rest = spectra.rest
    alone, length = _best(spectra, responses)
    without = _posterior(cells, masks, length, alone)
    if prior is None or np.abs(rest.T @ prior.responses).max(initial=0) <= TINY * np.abs(prior.responses).max():
        return without
    fit, length = _best(spectra, responses, prior.responses)
    against = alone.evidence - fit.evidence + np.log(1 / prior.belief - 1)
    share = float(1 / (1 + np.exp(np.clip(against, -50, 50))))
    if share < LEAST_SHARE or fit.weight <= 0:
        return without
    posterior = _posterior(cells, masks, length, fit, prior.map)
    mean = share * posterior.mean + (1 - share) * without.mean
    spread = (
        share * posterior.std**2
        + (1 - share) * without.std**2
        + share * (1 - share) * (posterior.mean - without.mean) ** 2
    )
    return Posterior(mean=mean, std=np.sqrt(spread), prior_share=share, likelihood=fit.likelihood)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The regression for one C, at its best noise and strength of the prior."""

    alpha: np.ndarray
    """(N,): the weights are g m + C M^T alpha."""
    root: np.ndarray
    """R with R R^T = Z (Z^T G Z + l I)^-1 Z^T, (N, N - E)."""
    signal: float
    """s."""
    weight: float
    """g."""
    likelihood: float
    """As in `Posterior`."""
    evidence: float
    """Logarithm of the likelihood's mean over the strengths."""


def _best(spectra: Spectra, responses: np.ndarray, prior_responses: np.ndarray | None = None) -> tuple[_Fit, float]:
    """Return the fit whose C is likeliest, and its length."""
    fits = [_fit(spectra.rest, values, vectors, responses, prior_responses) for values, vectors in spectra.eigen]
    return max(zip(fits, LENGTHS, strict=True), key=lambda fit: fit[0].evidence)


def _fit(
    rest: np.ndarray, values: np.ndarray, vectors: np.ndarray, responses: np.ndarray, prior_responses: np.ndarray | None
) -> _Fit:
    """Solve for y on Z, the part that the effects do not reach, where Z^T M C M^T Z has these values and vectors.

    In the directions that are not among them it is zero: there y is noise, and says how much of it there is.
    Of n numbers y with mean sqrt(s) k p and covariance s V, u = 1 / sqrt(s) is likeliest where
    q u^2 - k c u - n = 0, with q = y^T V^-1 y and c = p^T V^-1 y.
    """
    values, num = np.maximum(values, 0), rest.shape[1]
    scale = float(values.sum()) / num if num else 0.0
    noises = np.array(NOISES) * max(scale, TINY)
    y, p = rest.T @ responses, np.zeros(num) if prior_responses is None else rest.T @ prior_responses
    along, along_prior = vectors.T @ y, vectors.T @ p
    along[np.abs(along) <= TINY * np.abs(responses).max()] = 0  # or the rounding of constant answers would rank pixels
    others = num - len(values)
    beyond = [
        one @ other - explained if others else 0
        for one, other, explained in (
            (y, y, along @ along),
            (y, p, along @ along_prior),
            (p, p, along_prior @ along_prior),
        )
    ]
    strengths = np.zeros(1)
    if prior_responses is not None:
        strengths = np.array(STRENGTHS) * np.sqrt(scale * num / max(float(p @ p), TINY))
    spread = values + noises[:, None]  # (noises, n)
    q, c, d = (
        (product / spread).sum(axis=1) + more / noises
        for product, more in zip((along**2, along * along_prior, along_prior**2), beyond, strict=True)
    )
    q, c, d = np.maximum(q, num * TINY)[:, None], c[:, None], d[:, None]
    u = (strengths * c + np.sqrt((strengths * c) ** 2 + 4 * q * max(num, 1))) / (2 * np.maximum(q, TINY))
    squares = q * u**2 - 2 * strengths * c * u + strengths**2 * d  # (noises, strengths)
    likelihoods = (
        num * np.log(u) - (squares - num + (np.log(spread).sum(axis=1) + others * np.log(noises))[:, None]) / 2
    )
    highest = likelihoods.max(axis=0)  # over the noises, for each strength
    evidence = float(highest.max() + np.log(np.exp(highest - highest.max()).mean()))
    best, k = np.unravel_index(int(likelihoods.argmax()), likelihoods.shape)
    weight = float(strengths[k] / u[best, k])
    root = rest @ vectors / np.sqrt(spread[best])
    alpha = root @ ((along - weight * along_prior) / np.sqrt(spread[best]))
    signal, likelihood = float(u[best, k] ** -2), float(likelihoods[best, k])
    return _Fit(alpha=alpha, root=root, signal=signal, weight=weight, likelihood=likelihood, evidence=evidence)


def _posterior(cells: Cells, masks: np.ndarray, length: float, fit: _Fit, start: np.ndarray | float = 0.0) -> Posterior:
    mean = fit.weight * start + cells.at_pixels(fit.alpha[None] @ masks, length)[0]
    known, rows = np.zeros_like(mean), (fit.root.T @ masks).astype(np.float32)  # enough for a deviation
    for i in range(0, len(rows), ROWS_AT_ONCE):
        known += (cells.at_pixels(rows[i : i + ROWS_AT_ONCE], length) ** 2).sum(axis=0)
    std = np.sqrt(fit.signal * np.maximum(1 + MIX - known, 0))
    return Posterior(mean=mean, std=std, prior_share=0.0, likelihood=fit.likelihood)


def _complement(effects: np.ndarray) -> np.ndarray:
    """Make Z: orthonormal columns that span all that the effects' columns do not, (N, N - rank)."""
    vectors, values, _ = np.linalg.svd(effects, full_matrices=True)
    rank = int((values > values.max(initial=0) * 1e-9).sum())
    return vectors[:, rank:]


@functools.cache
def _alike(places: int, cells: int, longer: int, length: float) -> np.ndarray:
    """Return how alike places along a side and its cells are, (places, cells); `longer` are the longer side's cells."""
    at = (np.arange(places) + 0.5) * cells / places - 0.5
    return np.exp(-(((at[:, None] - np.arange(cells)) / longer / length) ** 2) / 2)
