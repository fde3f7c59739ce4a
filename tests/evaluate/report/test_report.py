"""The report's numbers against the stored scores, and its sentences."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import SKILLS, World, make_world, measured_value
from report_pages import LIMIT, open_maps, report_of, row_of

from cluster.storage import Folder
from evaluate.analysis.columns import game_columns, metric_columns
from evaluate.games.schema import read_scores
from evaluate.games.summary import summarize_games
from evaluate.metrics.settings import HIGHER_IS_BETTER, ROWS
from evaluate.report.console import games_text
from evaluate.report.html import render
from evaluate.report.report_data import ReportData
from evaluate.report.texts import markdown
from evaluate.report.write import mlflow_metrics
from evaluate.statistics import holm, wilcoxon


def test_means_equal_the_stored_scores(world: World, found: ReportData) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    for row in found.rows:
        for game in ("deletion", "insertion"):
            aucs = [
                s["auc"] for s in stored if s["method"] == row.scored.method and s["game"] == game and not s["error"]
            ]
            interval = row.values[game]
            assert interval.num == len(aucs) == 22
            assert interval.mean == pytest.approx(sum(aucs) / len(aucs))
            assert interval.low < interval.mean < interval.high
        assert row.gap.mean == pytest.approx(row.insertion.mean - row.deletion.mean)
        assert row.num_errors == 2


def test_mean_curves_and_bands_equal_the_plain_ones(world: World, found: ReportData) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    curves = np.array([s["curve"] for s in stored if (s["method"], s["game"]) == ("matt", "insertion") and s["curve"]])
    summed = found.results.curves["matt", "insertion"]
    assert summed.mean == pytest.approx(curves.mean(axis=0))
    assert summed.half_width == pytest.approx(1.96 * curves.std(axis=0, ddof=1) / np.sqrt(len(curves)), abs=1e-6)


def test_methods_are_sorted_best_first(found: ReportData) -> None:
    gaps = [row.gap.mean for row in found.rows]
    assert gaps == sorted(gaps, reverse=True)
    assert found.rows[0].scored.label == "mal_grad_cam"


def test_comparisons_are_paired_and_adjusted_over_the_whole_table(full: ReportData) -> None:
    """Each again from the plain values, with SciPy's test and Holm over all of them."""
    tables = {name: full.results.measure(name) for name in ("gap", "deletion", "insertion", "insertion_normalised")}
    entries = {entry["method"]: entry for entry in full.results.config["maps"]}
    names = [*tables, *(name for name in HIGHER_IS_BETTER if not name.startswith("fidelity"))]
    assert {name for row in full.rows for name in row.against} == set(names)
    plain = {}
    for row in full.rows:
        method = row.scored.method
        for name in names:
            if (table := tables.get(name)) is not None:
                own, mains = table[[method, "mal_grad_cam"]].dropna().to_numpy().T
            else:
                ids = full.results.auc("deletion").index[:LIMIT]
                pairs = [[measured_value(name, i, entries[m]) for m in (method, "mal_grad_cam")] for i in ids]
                own, mains = np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2).T
            if method != "mal_grad_cam" and len(own):
                plain[method, name] = own, mains
    assert sum(len(row.against) for row in full.rows) == len(plain) > 2 * (len(SKILLS) - 1)
    adjusted = dict(zip(plain, holm([wilcoxon(*pair) for pair in plain.values()]), strict=True))
    for row in full.rows:
        for name, found in row.against.items():
            own, mains = plain[row.scored.method, name]
            better = -1 if name in ("deletion", "road_morf", "max_sensitivity") else 1
            assert found.difference.mean == pytest.approx(np.mean(own - mains))
            assert found.win_rate == pytest.approx(
                np.mean([(np.sign(better * (a - b)) + 1) / 2 for a, b in zip(own, mains, strict=True)])
            )
            assert found.p_value == pytest.approx(wilcoxon(own, mains))
            assert found.p_holm == pytest.approx(adjusted[row.scored.method, name])
            if found.verdict != "unclear":
                assert (found.verdict == "better") == (better * found.difference.mean > 0)


def test_measured_columns_are_the_measures_means(full: ReportData) -> None:
    ids = full.results.auc("deletion").index[:LIMIT]
    entries = {entry["method"]: entry for entry in full.results.config["maps"]}
    names = [name for own in ROWS.values() for name in own]
    for row in full.rows:
        for name in names:
            plain = [v for i in ids if (v := measured_value(name, i, entries[row.scored.method])) is not None]
            assert row.values[name].num == len(plain)
            assert row.values[name].mean == pytest.approx(np.mean(plain)) if plain else np.isnan(row.values[name].mean)
    assert row_of(full, "random").values["max_sensitivity"].num == 0


def test_the_students_own_figures_are_not_tested(full: ReportData) -> None:
    """They are the same for every map of a student."""
    assert {name for name in full.rows[0].values if name.startswith("fidelity")} == set(ROWS["fidelity"])
    assert not any(name.startswith("fidelity") for row in full.rows for name in row.against)


def test_every_measure_has_a_column_with_its_direction() -> None:
    names = [name for own in ROWS.values() for name in own]
    columns = metric_columns([*names, "something_new"])
    assert {column.name for column in columns} == {*names, "something_new"}
    assert columns[-1].heading == "Something new"
    assert not columns[-1].is_compared
    for column in columns[:-1]:
        assert column.higher_is_better == HIGHER_IS_BETTER[column.name]
        assert column.heading != column.name.replace("_", " ").capitalize() or column.name == "pointing_game"
    assert [column.name for column in game_columns(["insertion", "gap"])] == ["gap", "insertion"]


def test_normalised_insertion_is_made_from_the_stored_curves(world: World, found: ReportData) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    for row in found.rows:
        own = [s for s in stored if s["method"] == row.scored.method and s["game"] == "insertion" and not s["error"]]
        curves = [np.array(s["curve"], dtype=np.float64) for s in own]
        plain = [np.trapezoid((c - c[0]) / (c[-1] - c[0]), dx=1 / (len(c) - 1)) for c in curves]
        assert row.values["insertion_normalised"].mean == pytest.approx(np.mean(plain))
        assert (row.values["insertion_normalised"].num, row.num_flat) == (22, 0)
        assert not {"deletion_gain", "insertion_gain"} & set(row.values)
    assert found.results.games == ("deletion", "insertion")


def test_gains_are_differences_of_stored_areas(four: tuple[World, ReportData]) -> None:
    world, found = four
    stored = {(s["method"], s["image_id"], s["game"]): s["auc"] for s in read_scores(Folder(world.scores)).to_pylist()}
    assert len(stored) == 10 * len(SKILLS) * 4
    for row in found.rows:
        for game, sign in (("deletion", 1), ("insertion", -1)):
            gain = row.values[f"{game}_gain"]
            plain = [
                sign * (stored[row.scored.method, image_id, f"{game}_least"] - auc)
                for (method, image_id, name), auc in stored.items()
                if method == row.scored.method and name == game and auc is not None
            ]
            assert gain.num == len(plain) == 9
            assert gain.mean == pytest.approx(np.mean(plain))
    gains = {row.scored.label: row.values["deletion_gain"].mean for row in found.rows}
    assert gains["mal_grad_cam"] > gains["random"]
    assert {len(row.against) for row in found.rows} == {0, 6}


def test_outcomes_hold_the_same_figures_for_mlflow(four: tuple[World, ReportData], found: ReportData) -> None:
    world, more = four
    folder = Folder(world.scores)
    sources = open_maps(folder)
    (outcome,) = [o for o in summarize_games(folder, sources) if o.source.method == "mal_grad_cam"]
    row, logged = more.rows[0], outcome.mlflow_metrics()
    assert row.scored.label == "mal_grad_cam"
    ours = mlflow_metrics(row, more.columns)
    assert set(ours) - set(logged) == {"games/insertion_minus_deletion_auc"}
    assert {name: ours[name] for name in logged if name in ours} == pytest.approx(
        {name: logged[name] for name in ours if name in logged}
    )
    table = {name: values for name, *values in outcome.mlflow_table()}
    low, mean, high = (table["symmetric_relevance_gain_deletion"][k] for k in (1, 0, 2))
    assert low < mean == logged["games/symmetric_relevance_gain_deletion"] < high
    assert logged["games/deletion_least_auc"] == pytest.approx(
        more.results.auc("deletion_least")["mal_grad_cam"].mean()
    )
    assert [table[f"num_{name}"][0] for name in ("images", "errors", "insertion_flat")] == [9, 1, 0]
    assert set(outcome.curves) == {"deletion", "insertion", "deletion_least", "insertion_least"}
    two = Folder(found.results.uris[0])
    plain = {name: mean for name, mean, *_ in summarize_games(two, open_maps(two))[0].mlflow_table()}
    assert not any("least" in name or "gain" in name for name in plain)
    assert (plain["num_images"], plain["num_errors"]) == (22, 2)
    assert "SRG deletion" in games_text([outcome])


def test_flat_insertion_curves_are_counted_not_averaged(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=6, skills={"mal_grad_cam": 0.7, "random": 0.1})
    part = Path(world.scores) / "part-00000.parquet"
    rows = pq.read_table(part)
    flat = rows.to_pylist()
    for row in flat[:4]:  # both games of two images
        row |= {"curve": [0.5] * 41, "auc": 0.5}
    pq.write_table(pa.Table.from_pylist(flat, schema=rows.schema), part)
    found = report_of(world.scores)
    row = next(row for row in found.rows if row.scored.label == "mal_grad_cam")
    assert (row.num_flat, row.values["insertion_normalised"].num, row.insertion.num) == (2, 4, 6)
    assert "(2 flat)" in markdown(found)
    assert "2 flat curves left out" in render(found, photographs=False, num_gallery=0)


def test_headline_says_when_it_wins(found: ReportData) -> None:
    assert found.conclusions[0].startswith("MAL-Grad-CAM has the lowest deletion AUC")
    assert any(line.startswith("MAL-Grad-CAM beats the control Random in both games") for line in found.conclusions)


def test_headline_says_when_it_loses(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.1, "random": 0.12, "centre_gaussian": 0.7}
    found = report_of(make_world(tmp_path, skills=skills).scores)
    assert found.conclusions[1].startswith("Center Gaussian has the highest insertion AUC")
    assert any("loses to the control Center Gaussian in both games" in line for line in found.conclusions)
    assert not any("beats" in line for line in found.conclusions)
    assert {one.verdict for one in row_of(found, "centre_gaussian").against.values()} == {"better"}


def test_without_controls_nothing_is_claimed(tmp_path: Path) -> None:
    found = report_of(make_world(tmp_path, skills={"mal_grad_cam": 0.8, "matt": 0.2}).scores)
    assert "No control was scored" in found.conclusions[-1]


def test_any_method_may_be_the_one_that_the_others_are_tested_against(world, found):
    usual = {row.scored.label: row for row in found.rows}
    other = report_of(world.scores, against="matt")
    rows = {row.scored.label: row for row in other.rows}
    assert not rows["matt"].against
    for game in ("deletion", "insertion"):
        own, theirs = rows["mal_grad_cam"].against[game], usual["matt"].against[game]
        assert own.difference.mean == pytest.approx(-theirs.difference.mean)
        assert own.win_rate == pytest.approx(1 - theirs.win_rate)
        assert own.p_value == pytest.approx(theirs.p_value)
    assert "Each method minus MATT, " in markdown(other)
    assert any(line.startswith(("MATT ", "Against the control Random, MATT ")) for line in other.conclusions)
    assert {row.scored.label for row in other.rows} == set(usual)
    folder = Folder(rows["grad_cam"].scored.maps).name
    assert report_of(world.scores, against=folder).results.main == rows["grad_cam"].scored
    with pytest.raises(ValueError, match=r"against 'rise': no method, or several; .*'matt' in "):
        report_of(world.scores, against="rise")


def test_the_oracle_is_shown_and_wins_nothing(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "oracle": 0.95, "random": 0.1}
    found = report_of(make_world(tmp_path, num_images=4, skills=skills).scores)
    assert found.rows[0].scored.label == "oracle"
    assert [line.split()[0] for line in found.conclusions[:2]] == ["MAL-Grad-CAM", "MAL-Grad-CAM"]
