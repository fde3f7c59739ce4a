"""Classes compared: the rank sum test is SciPy's, a planted place is found, candidates are where they should be."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from evaluate.insights.candidates import moved, plan_trials, propose
from evaluate.insights.classes import Images, Ranks, class_rows, contrasts, spread
from evaluate.insights.evidence import GRID, PLACES, distances, evidence, image_facts
from evaluate.insights.images import COLUMNS


@pytest.mark.parametrize("seed", range(3))
def test_rank_sums_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, 80).astype(float)  # with ties
    own = rng.random(80) < 0.3
    peer = stats.mannwhitneyu(values[own], values[~own], method="asymptotic", use_continuity=False)
    assert Ranks(values).p_value(own) == pytest.approx(float(peer.pvalue))
    assert Ranks(np.ones(9)).p_value(np.arange(9) < 3) == 1


def table(num: int, *, corner: bool = False, seed: int = 0, inside: bool = False, num_marked: int = 0) -> pa.Table:
    """Make rows of three classes with a bump near the middle; half of class 0 has it in a corner, with `corner`.

    The first `num_marked` have theirs on a magenta mark, which lies elsewhere in each image.
    """
    rng, rows = np.random.default_rng(seed), []
    y, x = np.mgrid[:GRID, :GRID]
    box = np.zeros((GRID, GRID))
    box[3:11, 3:11] = 1
    for k in range(3 * num):
        place = rng.normal(6.5, 1.2, 2)
        if k < num_marked:
            place = rng.uniform(1, 12, 2)
        if corner and k < num // 2:
            place = np.array([0.5, 12.5]) + rng.normal(0, 0.3, 2)
        weights = evidence((np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 5)).astype(np.float32))
        assert weights is not None
        frame = np.full((GRID, GRID, 3), rng.integers(60, 180), dtype=np.uint8)
        if k < num_marked:
            frame[weights > weights.max() / 2] = (220, 60, 200)
        facts = image_facts(weights, frame, box if inside else None)
        known = {"inside": box.ravel()} if inside else {}
        row = {"image_id": f"{k:03d}", "target": k // num, "evidence": weights.ravel(), **facts, **known}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def test_a_planted_corner_is_the_only_clear_contrast_to_the_others():
    images = Images(table(40, corner=True))
    clear = {(one.target, one.name) for one in contrasts(images) if one.p_value < 0.001 and one.share.mean > one.others}
    assert (0, "upper right corner") in clear
    assert clear <= {(0, "upper right corner"), (0, "border")}
    (row,) = [row for row in class_rows(images, contrasts(images), {0: "a", 1: "b", 2: "c"}) if row["name"] == "a"]
    values = images.facts["upper_right_corner"][:40]
    assert row["upper_right_corner"] == pytest.approx(values.mean())
    assert row["upper_right_corner_low"] < values.mean() < row["upper_right_corner_high"]
    assert np.allclose(np.array(row["mean_map"]), images.evidence[:40].reshape(40, -1).mean(axis=0))


def test_a_small_class_has_a_row_with_its_map_alone():
    images = Images(table(12, corner=True).slice(3))  # nine images of the first class
    first, second, _ = class_rows(images, contrasts(images), {0: "a", 1: "b", 2: "c"})
    assert (first["num_images"], second["num_images"]) == (9, 12)
    assert first.keys() == second.keys()
    assert first["border"] is None
    assert second["border"] is not None


def test_the_spread_is_the_mean_distance_to_the_mean_map():
    maps = Images(table(12, corner=False)).evidence[:12]
    assert spread(maps) == pytest.approx(np.mean([distances(one, maps.mean(axis=0)) for one in maps]))
    assert spread(maps[:1]) == 0


def test_candidates_are_the_planted_images_and_place():
    images = Images(table(40, corner=True))
    first, *others = propose(images)
    assert first.target == 0
    assert set(first.members.tolist()) == set(range(20))
    assert first.region is not None
    assert first.region[:5, -5:].sum() == first.region.sum()
    assert others == []


def test_no_candidate_where_classes_are_alike():
    assert [propose(Images(table(40, corner=False, seed=seed))) for seed in range(3)] == [[], [], []]


def test_a_mark_at_random_places_is_a_candidate_by_its_color():
    images = Images(table(40, num_marked=16))
    (found,) = propose(images)
    assert (found.kind, found.target, found.region) == ("color", 0, None)
    assert set(found.members.tolist()) == set(range(16))
    assert found.share == pytest.approx(16 / 40)
    trials = plan_trials(images, [found], num_tested=12)
    assert all(trial.other_id is not None for trial in trials), "its color may be pasted elsewhere"
    mark = images.evidence[int(trials[0].image_id)].argmax()
    assert mark in trials[0].region


def test_a_color_of_the_whole_class_is_its_own():
    assert all(one.kind != "color" for one in propose(Images(table(40, num_marked=40))))


def test_evidence_outside_the_object_is_a_candidate():
    found = propose(Images(table(40, corner=True, inside=True)))
    (outside,) = [one for one in found if one.kind == "object"]
    assert set(outside.members.tolist()) == set(range(20))
    assert outside.region is None


def test_no_candidate_from_too_few_images():
    assert propose(Images(table(9, corner=True))) == []


@pytest.mark.parametrize("name", PLACES)
def test_a_moved_region_keeps_its_size_and_leaves_its_place(name):
    rng, region = np.random.default_rng(0), PLACES[name]
    for _ in range(5):
        other = moved(region, rng)
        assert other.sum() == region.sum()
        assert (other & region).sum() <= region.sum() / 2
