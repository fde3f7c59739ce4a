"""Statistics against SciPy, and their edges."""

import numpy as np
import pytest
from scipy import stats

from evaluate import statistics
from evaluate.statistics import holm, kendall, mean_interval, paired_difference, spearman, wilcoxon, win_rate


@pytest.mark.parametrize("num", [8, 60, 400])
def test_interval_agrees_with_scipys_bca(num):
    values = np.random.default_rng(num).gamma(0.7, 0.1, num)  # skewed, as deletion AUCs are
    ours = mean_interval(values)
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=10_000, rng=np.random.default_rng(9)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours.high - ours.mean > ours.mean - ours.low  # BCa sees the skew


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for k in range(200):
        found = mean_interval(rng.normal(0.3, 0.1, 50), num_resamples=1000, seed=k)
        hits += found.low <= 0.3 <= found.high
    assert 180 <= hits <= 199


def test_interval_is_seeded_and_leaves_global_state_alone():
    values = np.random.default_rng(1).random(30)
    before = repr(np.random.get_state())  # noqa: NPY002 - the state that must stay
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)
    assert repr(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("chunk_draws", [3500, 10, 4_000_000])
def test_resampled_means_are_those_of_plainly_drawn_images(monkeypatch, chunk_draws):
    values = np.random.default_rng(1).random(1000)
    drawn = np.random.default_rng(0).integers(0, 1000, (200, 1000))
    for name in ("CHUNK_DRAWS", "PRODUCT_DRAWS"):
        monkeypatch.setattr(f"evaluate.statistics.{name}", chunk_draws)
    statistics._resample_counts.cache_clear()
    assert statistics._resampled_means(values, 200, 0) == pytest.approx(values[drawn].mean(axis=1), rel=1e-12)


def test_many_images_are_resampled_less_often(monkeypatch):
    monkeypatch.setattr("evaluate.statistics.MAX_DRAWS", 100_000)
    values = np.random.default_rng(1).random(40)
    assert mean_interval(values) == mean_interval(values, num_resamples=2500)


def test_edges_are_defined():
    assert mean_interval([0.25] * 5).low == mean_interval([0.25] * 5).high == 0.25
    one = mean_interval([0.25])
    assert one.mean == 0.25
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(mean_interval([]).mean)
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        mean_interval([0.1, float("nan"), 0.2])


def test_a_share_has_an_interval():
    found = mean_interval([1.0] * 80 + [0.0] * 20)
    assert 0.68 < found.low < 0.75
    assert 0.85 < found.high < 0.9


def test_pairing_removes_what_images_have_in_common():
    rng = np.random.default_rng(2)
    images = rng.normal(0, 1, 100)
    first, second = images + 0.1 + rng.normal(0, 0.01, 100), images
    found = paired_difference(first, second)
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.01
    back = paired_difference(second, first)
    assert back.mean == pytest.approx(-found.mean)
    with pytest.raises(ValueError, match="equally long"):
        paired_difference([1.0, 2.0], [1.0])


def test_wilcoxon_is_scipys_and_defined_for_equal_lists():
    rng = np.random.default_rng(3)
    first, second = rng.random(40), rng.random(40)
    assert wilcoxon(first, second) == pytest.approx(stats.wilcoxon(first, second)[1])
    assert wilcoxon(first, first) == 1.0


def test_win_rate_by_hand():
    assert win_rate([3, 1, 2, 5], [1, 3, 2, 4]) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert win_rate([1, 1], [1, 1]) == 0.5
    assert np.isnan(win_rate([], []))
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 5, 50), rng.integers(0, 5, 50)
    assert win_rate(first, second) + win_rate(second, first) == pytest.approx(1)


def test_kendall_counts_pairs():
    assert kendall([1, 2, 3], [4, 5, 6]) == pytest.approx(1)
    assert kendall([1, 2, 3], [6, 5, 4]) == pytest.approx(-1)
    first, second = [3.0, 1.0, 4.0, 1.5, 9.0], [2.0, 7.0, 1.0, 8.0, 2.5]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    same = sum(np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in pairs)
    assert kendall(first, second) == pytest.approx(same / len(pairs))
    assert np.isnan([kendall([1.0], [2.0]), kendall([], []), kendall([1.0, 1.0], [1.0, 2.0])]).all()


def test_spearman_is_pearsons_correlation_of_ranks():
    first, second = [3.0, 1.0, 4.0, 1.0, 9.0], [2.0, 7.0, 2.0, 8.0, 2.5]
    ranks = [3, 1.5, 4, 1.5, 5], [1.5, 4, 1.5, 5, 3]  # ties share their mean rank
    assert spearman(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert np.isnan([spearman([1.0], [2.0]), spearman([], []), spearman([1.0, 1.0], [1.0, 2.0])]).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
