"""Gaussian-process regression of answers on masks: which weights of an image's cells explain what a black box said.

Answers y to masks M, (N,) and (N, cells), are taken as linear in the masks, with noise:

    y = H b + M w + e,    w ~ N(0, s C),    e ~ N(0, s l I)

H are effects of no interest (how much is shown, for each substrate), w the cells' weights. C says which cells are
alike: near ones, and those of one superpixel. The length over which they are and the noise l are those
of a few with the highest restricted likelihood (Patterson and Thompson 1971; Rasmussen and Williams 2006, sections 2.7
and 5.4.1), in which b and s take no part. All of it is linear algebra of N x N.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (1 / 28, 1 / 14, 1 / 7, 2 / 7)
"""Distances over which near cells are alike, as shares of the longer side: 8, 16, 32 and 64 px at 224 px."""

MIX = 0.5
"""Variance of what the cells of a superpixel have in common at all scales, over that of what near cells have."""

NOISES = tuple(10 ** (exponent / 4) for exponent in range(-20, 9))
"""Variance of the noise, over the mean variance of what the weights add to an answer."""

PRIORS = (0.1, 1.0, 10.0)
"""Variance of the prior's weight: what it adds to an answer, over what the cells' weights add."""

TINY = 1e-12
"""Of what answers hold, what is rounding; and least variance, which keeps constant answers from a division by zero."""

LEAST_EVIDENCE = 3.0
"""Log likelihood that a prior must gain before it counts: 20 to 1, as one asks of evidence that is strong."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A grid over an image, and which superpixels its cells belong to."""

    grid: tuple[int, int]
    """Rows, columns."""
    members: Sequence[np.ndarray]
    """For each scale the share of each cell that lies in each superpixel, (S, rows * columns)."""

    def covariances(self, masks: np.ndarray) -> Iterator[np.ndarray]:
        """Yield M C, (N, cells), for masks M (N, cells) and each of `LENGTHS`.

        C = exp(-d^2 / (2 length^2)) + MIX / K sum_k S_k^T S_k, d the distance of two cells as a share of the longer
        side, S_k the memberships of K scales.
        """
        same = sum(((masks @ scale.T) @ scale for scale in self.members), np.zeros_like(masks)) / len(self.members)
        for length in LENGTHS:
            rows, columns = (_alike(side, max(self.grid), length) for side in self.grid)
            yield (rows @ masks.reshape(-1, *self.grid) @ columns).reshape(masks.shape) + MIX * same

    def variance(self) -> np.ndarray:
        """Return the diagonal of C, (cells,), whatever the length."""
        return 1 + MIX * np.mean([(scale**2).sum(axis=0) for scale in self.members], axis=0)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What the answers say of the cells' weights."""

    mean: np.ndarray
    """(cells,), in the units of the answers; the prior's part included."""
    std: np.ndarray
    """(cells,), of the weights beside the prior's."""
    prior_weight: float
    """What the prior's map was multiplied by; 0 where it gained too little."""
    likelihood: float
    """Logarithm of the restricted likelihood, up to a constant of N and H."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Another model's view of the same image (autoregressive co-kriging, Kennedy and O'Hagan 2000)."""

    answers: np.ndarray
    """What it says to the same masks, (N,)."""
    map: np.ndarray
    """Its own map, (cells,)."""


def regress(
    cells: Cells, masks: np.ndarray, answers: np.ndarray, effects: np.ndarray, prior: Prior | None = None
) -> Posterior:
    """Find the cells' weights, and how much of the prior's map to start from.

    With a prior the answers are y = g p + H b + M w + e: g times what the prior says to the same masks, and the rest as
    without. g is learnt from the answers, g ~ N(0, s t). A prior that is no likelier than none by `LEAST_EVIDENCE`, or
    whose g is negative, is left out: the map is then the one without a prior, to the bit.

    Args:
        cells: The grid.
        masks: (N, cells), 1 where shown.
        answers: (N,).
        effects: H, (N, E).
        prior: Another model's answers and map.
    """
    rest = _complement(effects)
    fits = ((kernel, _fit(rest, kernel @ masks.T, answers)) for kernel in cells.covariances(masks))
    kernel, alone = max(fits, key=lambda found: found[1].likelihood)
    if prior is not None:
        fit, weight = _with_prior(rest, kernel @ masks.T, answers, prior)
        if weight > 0 and fit.likelihood > alone.likelihood + LEAST_EVIDENCE:
            return _posterior(cells, kernel, fit, weight, prior.map)
    return _posterior(cells, kernel, alone)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The regression for one C, at its best noise."""

    alpha: np.ndarray
    """(N,): the weights are C M^T alpha."""
    root: np.ndarray
    """R with R R^T = Z (Z^T G Z + l I)^-1 Z^T, (N, N - E)."""
    signal: float
    """s."""
    likelihood: float
    """As in `Posterior`."""


def _fit(rest: np.ndarray, gram: np.ndarray, answers: np.ndarray) -> _Fit:
    """Solve for y on Z, the part that the effects do not reach; G = M C M^T, (N, N)."""
    values, vectors = np.linalg.eigh(rest.T @ gram @ rest)
    values = np.maximum(values, 0)
    along = vectors.T @ (rest.T @ answers)
    along[np.abs(along) <= TINY * np.abs(answers).max()] = 0  # or the rounding of constant answers would rank pixels
    noises = np.array(NOISES)[:, None] * max(float(values.mean()) if len(values) else 0.0, TINY)
    spread = values + noises  # (noises, N - E)
    signals = np.maximum((along**2 / spread).mean(axis=1), TINY) if len(along) else np.ones(len(noises))
    likelihoods = -(len(along) * np.log(signals) + np.log(spread).sum(axis=1)) / 2
    best = int(likelihoods.argmax())
    root = rest @ vectors / np.sqrt(spread[best])
    alpha = root @ (along / np.sqrt(spread[best]))
    return _Fit(alpha=alpha, root=root, signal=float(signals[best]), likelihood=float(likelihoods[best]))


def _with_prior(rest: np.ndarray, gram: np.ndarray, answers: np.ndarray, prior: Prior) -> tuple[_Fit, float]:
    """Fit with the prior at its best variance t, and return g = t p^T alpha with it."""
    own = rest.T @ prior.answers
    unit = np.trace(rest.T @ gram @ rest) / max(float(own @ own), TINY)
    each = np.outer(prior.answers, prior.answers)
    fits = [(t * unit, _fit(rest, gram + t * unit * each, answers)) for t in PRIORS]
    variance, fit = max(fits, key=lambda found: found[1].likelihood)
    return fit, variance * float(prior.answers @ fit.alpha)


def _posterior(
    cells: Cells, kernel: np.ndarray, fit: _Fit, weight: float = 0.0, start: np.ndarray | float = 0.0
) -> Posterior:
    left = cells.variance() - ((fit.root.T @ kernel) ** 2).sum(axis=0)
    std = np.sqrt(fit.signal * np.maximum(left, 0))
    return Posterior(mean=weight * start + fit.alpha @ kernel, std=std, prior_weight=weight, likelihood=fit.likelihood)


def _complement(effects: np.ndarray) -> np.ndarray:
    """Make Z: orthonormal columns that span all that the effects' columns do not, (N, N - rank)."""
    left, values, _ = np.linalg.svd(effects, full_matrices=True)
    rank = int((values > values.max(initial=0) * 1e-9).sum())
    return left[:, rank:]


@functools.cache
def _alike(side: int, longer: int, length: float) -> np.ndarray:
    places = np.arange(side) / longer
    return np.exp(-(((places[:, None] - places) / length) ** 2) / 2)
