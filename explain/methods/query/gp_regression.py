"""Map from few queries: Gaussian-process regression of the responses to images with some superpixels hidden.

RISE needs thousands of queries because it averages: each response counts by itself, for the cells of its own mask. Here
all responses are explained together, by weights that are alike in near cells and in superpixels of several scales.
All queries follow from (seed, number), so a smaller budget's are the first of a larger one's.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.perturb.blur import blur
from distill.perturb.superpixels import Substrate, hidden, superpixels
from explain.methods.grid import grid_size
from explain.methods.options import GpRegressionOptions, takes_options
from explain.methods.query.gaussian_process import Cells, Posterior, Prior, Spectra, regress
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rank_correlation

EDGE_SIGMA = 0.0134
"""Standard deviation of the masks' soft edges, as a share of the longer side: 3 px at 224 px."""

CUT_PX = 112
"""Longer side at which superpixels are cut, and of the map: a quarter of the time of 224 px, and their edges are soft
anyway."""

STUDENT_BELIEF, READOUT_BELIEF = 0.05, 0.5
"""Probability, before any answer, that a prior is right: a student may be unfaithful; a read-out was fitted to the
black box's answers, and at its worst says where objects usually are."""

LEAST_ODDS = 0.01
"""Added to a probability and to its complement, so that those of 0 and 1 have odds that are a number."""

FIRST_TEST = 32
"""Queries after which `settled` is tested for the first time; then at each doubling."""

MASKS_AT_ONCE = 64
"""Masks in memory: 13 MB at 224 px, whatever the budget."""


@takes_options(GpRegressionOptions)
def gp_regression_with_std(
    model: Queries,
    images: Tensor,
    target: Tensor,
    options: GpRegressionOptions,
    *,
    seeds: Sequence[int],
    student: Queries | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Explain the target's probability by weights of cells, a Gaussian process: their posterior mean and deviation.

    Question n shows some superpixels of one scale, with soft edges, and the substrate elsewhere; the next one shows the
    others. Scales and substrates take turns from pair to pair, and of S superpixels 1 ... S - 1 are shown, each number
    as likely as another. The regression, its choices by restricted likelihood, and the prior are `gaussian_process`'s.
    It is done twice, of the probabilities and of their log-odds, which tell small ones apart, and the maps are averaged
    in units of their spread.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Queries, superpixels, baseline, prior and early stopping.
        seeds: One for each image. Fewer samples are the first of more.
        student: Answers for the prior `student`, at least `num_samples` queries; not queried with another prior.
        start: (B, h, w), any size: the map that the prior `readout` starts from.

    Returns:
        The map, (B, h, w) float32 at `CUT_PX` along the longer side (or the image's own size, if that is smaller), of
        either sign, in units of probability per image, with edges as soft as the masks'; and the standard deviation of
        each of its values, likewise, given the answers, at most: the softened one of single pixels.
    """
    maps, stds = [], []
    for i, image in enumerate(images):
        views, goal = Views.of(image, options, seeds[i]), int(target[i])
        priors: Sequence[Callable[[Evidence], Prior] | None] = [None] * len(LINKS)
        if options.prior == "student":
            assert student is not None, "Job.check lets no such job through"
            queried = views.query(student, i, max(options.num_samples, options.prior_samples), goal)
            spectra = Spectra.of(views.cells, queried.masks, queried.effects)
            priors = [views.prior_of(queried.linked(link), spectra) for link in LINKS]
        elif options.prior == "readout":
            assert start is not None, "Job.check lets no such job through"
            priors = [views.prior_at(start[i])] * len(LINKS)
        query = functools.partial(views.query, model, i, target=goal)
        saliency, std = _regress_until_settled(views, query, priors, options)
        maps.append(saliency)
        stds.append(std)
    return torch.stack(maps), torch.stack(stds)


def _regress_until_settled(
    views: "Views",
    query: "Callable[[int], Evidence]",
    priors: "Sequence[Callable[[Evidence], Prior] | None]",
    options: GpRegressionOptions,
) -> tuple[Tensor, Tensor]:
    """Regress on more and more responses of one image until the map's ranking is settled, or all are there."""
    before = None
    for budget in _budgets(options.num_samples) if options.settled else (options.num_samples,):
        evidence = query(budget)
        spectra = Spectra.of(views.cells, evidence.masks, evidence.effects)
        pairs = zip(LINKS, priors, strict=True)
        saliency, std = views.averaged([views.regress(evidence.linked(link), spectra, prior) for link, prior in pairs])
        if before is not None and rank_correlation(before, saliency) >= options.settled:
            break
        before = saliency
    return saliency, std  # pyright: ignore[reportPossiblyUnboundVariable] - there is one budget at least


def _budgets(num_samples: int) -> list[int]:
    """List the numbers of queries after which the ranking is tested: `FIRST_TEST`, its doublings, and all."""
    doublings = itertools.takewhile(lambda num: num < num_samples, (FIRST_TEST * 2**k for k in itertools.count()))
    return [*doublings, num_samples]


@takes_options(GpRegressionOptions)
def gp_regression(
    model: Queries, images: Tensor, target: Tensor, options: GpRegressionOptions, **inputs: Any
) -> Tensor:
    """Return the map of `gp_regression_with_std` alone, (B, h, w); its arguments are the same."""
    return gp_regression_with_std(model, images, target, options, **inputs)[0]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Masks of an image's frames and the responses to them."""

    masks: np.ndarray
    """Which cells each showed, (N, cells) in [0, 1]."""
    responses: np.ndarray
    """The target's probabilities, (N,)."""
    effects: np.ndarray
    """For each substrate its level, the share that was shown on it and this share's square, (N, E)."""

    def linked(self, link: "Link") -> "Evidence":
        """Return the same with the answers on another scale."""
        return replace(self, responses=link(self.responses))


@dataclass(frozen=True, kw_only=True)
class Views:
    """The numbered frames of one image."""

    image: Tensor
    """(3, H, W)."""
    others: tuple[Tensor, ...]
    """The substrates, each (3, H, W)."""
    scales: tuple[Tensor, ...]
    """Superpixels of each scale, (H, W), 0 ... S - 1."""
    seed: int
    """What all of it follows from."""

    @classmethod
    def of(cls, image: Tensor, options: GpRegressionOptions, seed: int) -> "Views":
        """Cut the image at each scale and make its baselines."""
        scales = tuple(
            superpixels(image, num_segments=num, compactness=options.compactness, longest_px=CUT_PX)
            for num in options.num_segments
        )
        names: tuple[Substrate, ...] = ("blur", "mean") if options.substrate == "both" else (options.substrate,)
        return cls(
            image=image, others=tuple(hidden(image, scales[0], name) for name in names), scales=scales, seed=seed
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return grid_size(self.image.shape[1], self.image.shape[2])

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map."""
        height, width = self.image.shape[1:]
        shrunk = min(1, CUT_PX / max(height, width))
        return max(1, round(height * shrunk)), max(1, round(width * shrunk))

    @functools.cached_property
    def cells(self) -> Cells:
        """The grid and the map's pixels, with the superpixels that they lie in."""
        members = (F.one_hot(scale).permute(2, 0, 1).float() for scale in self.scales)  # (S, H, W)
        segments = (
            F.interpolate(s[None, None].double(), size=self.map_size, mode="nearest-exact") for s in self.scales
        )
        return Cells(
            grid=self.grid,
            members=[self._pooled(scale) for scale in members],
            segments=[one[0, 0].long().cpu().numpy() for one in segments],
        )

    def query(self, model: Queries, place: int, num_samples: int, target: int) -> Evidence:
        """Ask for the frames 0 ... num_samples - 1 of the image at `place` in the batch."""
        masks, responses = [], []
        for start in range(0, num_samples, MASKS_AT_ONCE):
            numbers = range(start, min(start + MASKS_AT_ONCE, num_samples))
            batch_masks = self.masks(numbers)
            responses.append(model.query(place, numbers, functools.partial(self._frames, batch_masks, start), target))
            masks.append(self._pooled(batch_masks))
        shown = np.concatenate(masks)
        on = np.eye(len(self.others))[[self._turn(number)[1] for number in range(num_samples)]]
        share = shown.mean(axis=1, keepdims=True)
        effects = np.concatenate([on, on * share, on * share**2], axis=1)
        return Evidence(masks=shown, responses=torch.cat(responses).double().numpy(), effects=effects)

    def masks(self, numbers: range) -> Tensor:
        """Make the masks of some frames, (len, H, W) in [0, 1], 1 where the image is shown."""
        return blur(torch.stack([self._mask(number) for number in numbers]), EDGE_SIGMA)

    def regress(
        self, evidence: "Evidence", spectra: Spectra, make: "Callable[[Evidence], Prior] | None" = None
    ) -> Posterior:
        """Find the weights of the map's pixels."""
        prior = None if make is None else make(evidence)
        return regress(self.cells, evidence.masks, evidence.responses, evidence.effects, prior, spectra=spectra)

    def averaged(self, posteriors: Sequence[Posterior]) -> tuple[Tensor, Tensor]:
        """Average maps in units of their spread, the first one's; and their deviations, as if they erred alike."""
        spreads = [float(posterior.mean.std()) for posterior in posteriors]
        factors = [spreads[0] / spread if spread > 0 else 1.0 for spread in spreads]
        mean, std = (
            np.mean(
                [factor * getattr(posterior, what) for factor, posterior in zip(factors, posteriors, strict=True)],
                axis=0,
            )
            for what in ("mean", "std")
        )
        return self.map_of(mean), self.map_of(std)

    def map_of(self, weights: np.ndarray) -> Tensor:
        """Lay out the pixels' weights (h * w,) with soft edges: (h, w) float32."""
        laid = torch.from_numpy(weights).to(self.image.device).float().view(1, *self.map_size)
        return blur(laid, EDGE_SIGMA)[0]

    def prior_of(self, evidence: "Evidence", spectra: Spectra) -> "Callable[[Evidence], Prior]":
        """Make the prior of a student from what it answered; a black box is asked for the first of the same frames."""
        saliency = self.regress(evidence, spectra).mean
        return lambda observed: Prior(
            responses=evidence.responses[: len(observed.responses)], map=saliency, belief=STUDENT_BELIEF
        )

    def prior_at(self, saliency: Tensor) -> "Callable[[Evidence], Prior]":
        """Make the prior of a read-out's map (h', w') of any size; it answers a mask by what the mask shows of it."""
        coarse, fine = (
            F.interpolate(saliency[None, None], size=size, mode="bilinear", antialias=True)
            .flatten()
            .double()
            .cpu()
            .numpy()
            for size in (self.grid, self.map_size)
        )
        return lambda observed: Prior(responses=observed.masks @ coarse, map=fine, belief=READOUT_BELIEF)

    def _turn(self, number: int) -> tuple[int, int]:
        """Tell whose turn it is: a scale and a substrate, the same for both frames of a pair."""
        return number // 2 % len(self.scales), number // 2 // len(self.scales) % len(self.others)

    def _mask(self, number: int) -> Tensor:
        segments = self.scales[self._turn(number)[0]]
        num = int(segments.max()) + 1
        rng = np.random.default_rng((self.seed, number // 2))
        shown = rng.permutation(num) < rng.integers(1, max(num, 2))
        return torch.from_numpy(np.float32(shown != bool(number % 2))).to(segments.device)[segments]

    def _frames(self, masks: Tensor, first: int, numbers: range) -> Tensor:
        shown = masks[numbers.start - first : numbers.stop - first, None]
        others = torch.stack([self.others[self._turn(number)[1]] for number in numbers])
        return torch.lerp(others, self.image, shown)

    def _pooled(self, maps: Tensor) -> np.ndarray:
        """Average maps (N, H, W) over the cells: (N, cells) float64."""
        return F.adaptive_avg_pool2d(maps[:, None], self.grid).flatten(1).double().cpu().numpy()


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return log((p + e) / (1 - p + e)), e being `LEAST_ODDS`."""
    return np.log((probabilities + LEAST_ODDS) / (1 - probabilities + LEAST_ODDS))


Link = Callable[[np.ndarray], np.ndarray]
LINKS: tuple[Link, ...] = (np.asarray, log_odds)
"""Scales on which answers are explained: as they are, and as log-odds."""
