"""The report: numbers against the scores, honest sentences, hostile names, missing pieces, refusals."""

import csv
import dataclasses
import html
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import DIFFERING, SKILLS, World, make_world, measured_value, write_metrics
from object_store import BUCKET, ObjectStore
from rich.console import Console

from cluster.storage import Folder
from evaluate.analysis.columns import game_columns, metric_columns
from evaluate.analysis.comparison import MethodRow
from evaluate.games.protocol import Protocol
from evaluate.games.schema import read_scores
from evaluate.games.summary import summarize_games
from evaluate.jobs import RUNS_FILE, run_key
from evaluate.map_sets import Source
from evaluate.metrics.settings import HIGHER_IS_BETTER, ROWS
from evaluate.report.console import print_games
from evaluate.report.html import bars, render, signed
from evaluate.report.report_data import ReportData, gather
from evaluate.report.texts import comma_separated, console_text, markdown
from evaluate.report.write import mlflow_metrics, write_report
from evaluate.statistics import Interval, holm, wilcoxon


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), num_errors=2)


@pytest.fixture(scope="module")
def found(world: World) -> ReportData:
    return gather([world.scores])


@pytest.fixture(scope="module")
def page(found: ReportData) -> str:
    return render(found, photographs=True, num_gallery=5)


LIMIT = 15  # images that are measured


@pytest.fixture(scope="module")
def measured(world: World) -> str:
    return write_metrics(world, world.run.parent / "measures", limit=LIMIT)


@pytest.fixture(scope="module")
def full(world: World, measured: str) -> ReportData:
    return gather([world.scores], [measured])


class FakeTracker:
    """Stand in for MLflow; notes what it is given."""

    made: list["FakeTracker"]

    def __init__(self, experiment: str, run_name: str, **given: Any) -> None:
        self.experiment, self.run_name, self.given, self.files = experiment, run_name, given, []
        self.logged: dict[str, float] = {}
        FakeTracker.made.append(self)

    def __enter__(self) -> "FakeTracker":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def artifact(self, place: str, folder: str = "") -> None:
        self.files.append(Folder(place).name)

    def log(self, metrics: dict[str, float]) -> None:
        self.logged |= metrics


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    FakeTracker.made = []
    monkeypatch.setattr("cluster.tracking.tracker.Tracker", FakeTracker)
    return FakeTracker.made


class Tags(HTMLParser):
    """Collect every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


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


def text_of(page: str) -> str:
    """Return what a reader sees, in one line."""
    body = page[page.index("</style>") : page.index("<script>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body.replace("<wbr>", ""))).split())


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


def row_of(report_data: ReportData, method: str) -> MethodRow:
    return next(row for row in report_data.rows if row.scored.method == method)


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


def test_marks_stand_beside_every_method(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "rise": 0.6, "random": 0.1, "stranger": 0.3}
    text = text_of(
        render(gather([make_world(tmp_path, num_images=4, skills=skills).scores]), photographs=False, num_gallery=0)
    )
    for mark in (
        "mal_grad_cam explains the student, scored on the teacher",
        "rise asks the black box",
        "random control",
    ):
        assert mark in text
    assert "stranger not a registered method" in text


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


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, ReportData]:
    protocol = Protocol(patches=14, least_relevant=True)
    world = make_world(tmp_path_factory.mktemp("four"), num_images=10, num_errors=1, protocol=protocol)
    return world, gather([world.scores])


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


def test_four_games_are_shown_everywhere(four: tuple[World, ReportData], page: str, found: ReportData) -> None:
    _, more = four
    text = text_of(render(more, photographs=False, num_gallery=0))
    for expected in ("SRG, deletion", "SRG, insertion", "Deletion, least relevant first , higher is better"):
        assert expected in text
    assert "Insertion, least relevant first , lower is better" in text
    assert "rise(patches=14, least_relevant=True)" in text
    assert "SRG" not in page
    assert "least relevant first" not in page
    assert "SRG, deletion ↑" in markdown(more)
    assert "SRG" not in markdown(found)
    assert "SRG, insertion ↑" in console_text(more, None)
    row = next(csv.DictReader(io.StringIO(comma_separated(more))))
    assert float(row["deletion_gain"]) == pytest.approx(more.rows[0].values["deletion_gain"].mean, rel=1e-5)
    assert "deletion_gain" not in next(csv.DictReader(io.StringIO(comma_separated(found))))


def test_outcomes_hold_the_same_figures_for_mlflow(four: tuple[World, ReportData], found: ReportData) -> None:
    world, more = four
    folder = Folder(world.scores)
    sources = open_maps(folder)
    (outcome,) = [o for o in summarize_games(folder, sources) if o.source.method == "mal_grad_cam"]
    row, logged = more.rows[0], outcome.mlflow_metrics()
    assert row.scored.label == "mal_grad_cam"
    ours = mlflow_metrics(row, more.columns)
    assert set(ours) - set(logged) == {f"insertion_minus_deletion_auc{end}" for end in ("", "_low", "_high")}
    assert {name: ours[name] for name in logged if name in ours} == pytest.approx(
        {name: logged[name] for name in ours if name in logged}
    )
    assert "symmetric_relevance_gain_deletion_low" in logged
    assert logged["deletion_least_auc"] == pytest.approx(more.results.auc("deletion_least")["mal_grad_cam"].mean())
    assert (logged["num_images"], logged["num_errors"], logged["num_insertion_flat"]) == (9, 1, 0)
    assert set(outcome.curves) == {"deletion", "insertion", "deletion_least", "insertion_least"}
    two = Folder(found.results.uris[0])
    plain = summarize_games(two, open_maps(two))[0].mlflow_metrics()
    assert not any("least" in name or "gain" in name for name in plain)
    assert (plain["num_images"], plain["num_errors"]) == (22, 2)
    console = Console(file=io.StringIO(), width=160)
    print_games([outcome], console)
    assert "SRG deletion" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def open_maps(folder: Folder) -> list[Source]:
    return [Source(uri=entry["uri"], config=entry["config"]) for entry in folder.config()["maps"]]


def test_flat_insertion_curves_are_counted_not_averaged(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=6, skills={"mal_grad_cam": 0.7, "random": 0.1})
    part = Path(world.scores) / "part-00000.parquet"
    rows = pq.read_table(part)
    flat = rows.to_pylist()
    for row in flat[:4]:  # both games of two images
        row |= {"curve": [0.5] * 41, "auc": 0.5}
    pq.write_table(pa.Table.from_pylist(flat, schema=rows.schema), part)
    found = gather([world.scores])
    row = next(row for row in found.rows if row.scored.label == "mal_grad_cam")
    assert (row.num_flat, row.values["insertion_normalised"].num, row.insertion.num) == (2, 4, 6)
    assert "(2 flat)" in markdown(found)
    assert "2 flat curves left out" in render(found, photographs=False, num_gallery=0)


def test_scores_of_two_protocols_in_one_table_are_refused(world: World, four: tuple[World, ReportData]) -> None:
    with pytest.raises(ValueError, match=r"2 protocols.*write a report for each"):
        gather([world.scores, four[0].scores])


def test_headline_says_when_it_wins(found: ReportData) -> None:
    assert found.conclusions[0].startswith("mal_grad_cam has the lowest deletion AUC")
    assert any(line.startswith("mal_grad_cam beats the control random in both games") for line in found.conclusions)


def test_a_sentences_negative_numbers_have_minus_signs() -> None:
    written = "grad-cam by -0.1 [-.2, -0.05] (-3, p 2e-05) of 10-20, mal-2"
    assert signed(written) == "grad-cam by −0.1 [−.2, −0.05] (−3, p 2e-05) of 10-20, mal-2"  # noqa: RUF001


def test_headline_says_when_it_loses(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.1, "random": 0.12, "centre_gaussian": 0.7}
    found = gather([make_world(tmp_path, skills=skills).scores])
    assert found.conclusions[1].startswith("centre_gaussian has the highest insertion AUC")
    assert any("loses to the control centre_gaussian in both games" in line for line in found.conclusions)
    assert not any("beats" in line for line in found.conclusions)
    assert {one.verdict for one in row_of(found, "centre_gaussian").against.values()} == {"better"}


def test_without_controls_nothing_is_claimed(tmp_path: Path) -> None:
    found = gather([make_world(tmp_path, skills={"mal_grad_cam": 0.8, "matt": 0.2}).scores])
    assert "No control was scored" in found.conclusions[-1]


def test_page_asks_nobody_for_anything(page: str) -> None:
    for tag, attributes in Tags(page).found:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#under-")), (tag, name)
    assert "url(" not in page
    assert "default-src 'none'" in html.unescape(page)


def test_page_shows_the_numbers(page: str, found: ReportData) -> None:
    text = text_of(page)
    for row in found.rows:
        assert f"{row.deletion.mean:.3f}" in text
        assert f"[{row.insertion.low:.3f}, {row.insertion.high:.3f}]" in text
        for one in row.against.values():
            wins = f"{one.verdict}, wins {100 * one.win_rate:.0f} % p"
            assert wins in text
    for expected in (
        found.results.config["protocol_hash"],
        "teacher0",
        "ResCBAM-18",
        "explains the student, scored on the teacher",
        "control",
    ):
        assert expected in text
    assert "of another state of the student" in text
    assert "no image that can be read" in text


def test_every_table_says_that_the_student_was_asked(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "rise": 0.5, "lime": 0.4, "random": 0.1}
    found = gather([make_world(tmp_path, num_images=4, skills=skills, explains={"rise": "student"}).scores])
    explained = {row.scored.label: row.scored.explains for row in found.rows}
    assert explained == {
        "lime": "teacher", "mal_grad_cam": "student", "random": "nothing", "rise of the student": "student",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=160)
    scores = Folder(found.results.uris[0])
    print_games(summarize_games(scores, open_maps(scores)), console)
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    for text in (printed, console_text(found, None), markdown(found), comma_separated(found)):
        assert "rise of the student" in text
    page = render(found, photographs=False, num_gallery=0)
    (row,) = re.findall(r'<th scope="row" data-value="rise of the student".*?</th>', page, re.S)[:1]
    assert "explains the student, scored on the teacher" in row


def test_script_is_the_one_that_the_policy_allows(page: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", page, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)


def test_same_scores_give_the_same_page(page: str, found: ReportData) -> None:
    assert render(found, photographs=True, num_gallery=5) == page


def test_photographs_can_be_left_out(found: ReportData) -> None:
    page = render(found, photographs=False, num_gallery=5)
    assert "image/jpeg" not in page
    assert "image/png" in page
    assert ">Input<" not in page


EVIL = '<img src=x onerror="alert(1)">'
TURNED = "photo\u202egpj.exe"  # shown as photoexe.jpg by what takes the mark for real
LONG = "x" * 200


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    world = make_world(
        tmp_path / "w",
        skills={"mal_grad_cam": 0.7, "matt": 0.4},
        class_names=[EVIL, "b'&$x_{", TURNED, LONG],
        num_images=8,
    )
    other = make_world(
        tmp_path / "v",
        num_images=8,
        skills={
            "mal_grad_cam": 0.7,
            "<|th><script>alert(2)<|script>": 0.3,
            f"{TURNED}{LONG}": 0.2,
            "'; alert(3)//": 0.1,
        },
        num_errors=1,
        data_name=EVIL,
        teacher=f"onnx:{EVIL}",
    )
    for one in (world, other):
        measured = write_metrics(one, tmp_path / one.run.parent.name, ("fidelity", EVIL), teacher=EVIL)
        page = render(gather([one.scores], [measured]), photographs=True, num_gallery=8)
        tags = Tags(page).found
        assert [tag for tag, _ in tags].count("script") == 1
        assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
        assert html.escape(EVIL, quote=True).replace("&quot;", "&#34;") in page
        assert "\u202e" not in page
        assert r"photo\u202egpj.exe" in page
        assert LONG in page


def test_hostile_names_stay_text_in_the_tables(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "a|b\n<b>": 0.3, TURNED: 0.2, "=1+1": 0.1}
    found = gather([make_world(tmp_path, num_images=6, skills=skills).scores])
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines[:6]}) == 1
    assert "<b>" not in markdown(found)
    for text in (markdown(found), console_text(found, None)):
        assert "\u202e" not in text
    assert [row["method"] for row in csv.DictReader(io.StringIO(comma_separated(found)))] == [
        row.scored.label for row in found.rows
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=8, skills={"mal_grad_cam": 0.7, "random": 0.1})
    shutil.rmtree(world.data)
    shutil.rmtree(world.run)
    shutil.rmtree(tmp_path / "maps")
    page = render(gather([world.scores]), photographs=True, num_gallery=3)
    text = text_of(page)
    for expected in (
        "The data set cannot be opened",
        "The image cannot be read.",
        "No map is stored.",
        "run folder is not there any more",
        "python -m evaluate measures --measures fidelity",
    ):
        assert expected in text, expected


def test_without_the_main_method_or_a_student(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=6, skills={"random": 0.1, "centre_gaussian": 0.4}, masks=False)
    found = gather([world.scores])
    page = render(found, photographs=True, num_gallery=3)
    assert "mal_grad_cam is not among these scores" in page
    assert "No map was made with a student." in page
    assert "ordered by centre_gaussian&#39;s insertion minus deletion AUC" in page
    assert not any(row.against for row in found.rows)
    assert "Each method minus" not in markdown(found)
    assert next(csv.DictReader(io.StringIO(comma_separated(found))))["deletion_win_rate"] == ""


def test_one_method_alone(tmp_path: Path) -> None:
    found = gather([make_world(tmp_path, num_images=6, skills={"mal_grad_cam": 0.7}).scores])
    assert "it is the only method" in found.conclusions[0]
    assert "1 of 1" not in render(found, photographs=True, num_gallery=3)
    assert "| mal_grad_cam |" in markdown(found)


@pytest.mark.parametrize("num_images", [1, 2])
def test_very_few_images(tmp_path: Path, num_images: int) -> None:
    found = gather([make_world(tmp_path, num_images=num_images).scores])
    assert "mal_grad_cam" in render(found, photographs=True, num_gallery=8)
    assert {one.verdict for row in found.rows for one in row.against.values()} == {"unclear"}


def test_all_images_broken(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=4, num_errors=4, skills={"mal_grad_cam": 0.5, "random": 0.1})
    found = gather([world.scores])
    assert "No map has a score" in found.conclusions[0]
    assert "no curve is stored" in render(found, photographs=True, num_gallery=3)
    assert "random" in markdown(found)


@pytest.mark.parametrize(
    ("key", "what"), [("protocol_hash", "protocols"), ("teacher_fingerprint", "teachers"), ("data", "data sets")]
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, key: str, what: str) -> None:
    first = make_world(tmp_path / "a", num_images=4, skills={"random": 0.1})
    changes: dict[str, Any] = {"data": str(tmp_path / "a/shapes"), key: "x"}
    second = make_world(tmp_path / "b", num_images=4, skills={"matt": 0.1}, **changes)
    with pytest.raises(ValueError, match=f"2 {what}.*x in"):
        gather([first.scores, second.scores])


def test_the_same_maps_scored_twice_are_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=4, skills={"random": 0.1})
    shutil.copytree(world.scores, tmp_path / "again")
    with pytest.raises(ValueError, match="came twice"):
        gather([world.scores, str(tmp_path / "again")])
    assert gather([world.scores, world.scores]).results.num_images == 4


def test_folders_without_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scores given"):
        gather([])
    with pytest.raises(ValueError, match=r"_config\.json"):
        gather([str(tmp_path)])


def test_scores_without_a_row_are_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=2, skills={"random": 0.1})
    part = Path(world.scores) / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(0, 0), part)
    with pytest.raises(ValueError, match="holds no scores"):
        gather([world.scores])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_fingerprint": "another"}, "measure the maps on that black box"),
        ({"maps": "others"}, "are of maps that have no scores, first random"),
        ({"images": 2}, "2 images without scores, first val/"),
    ],
)
def test_measures_of_something_else_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    skills = {"mal_grad_cam": 0.7, "random": 0.1}
    world = make_world(tmp_path / "a", num_images=6, skills=skills)
    more = dataclasses.replace(world, image_ids=(*world.image_ids, "val/new/0007.png", "val/new/0008.png"))
    given = {name: value for name, value in changes.items() if name == "teacher_fingerprint"}
    if "maps" in changes:
        maps = Folder(world.scores).config()["maps"]
        given["maps"] = [maps[0], {**maps[1], "config_hash": "f" * 12}]
    folder = write_metrics(more if "images" in changes else world, tmp_path / "m", ("energy",), **given)
    with pytest.raises(ValueError, match=message):
        gather([world.scores], [folder])


def test_scores_are_no_metrics(world: World) -> None:
    with pytest.raises(ValueError, match="holds no metrics"):
        gather([world.scores], [world.scores])


def test_how_many_images_a_measure_is_of_is_said(full: ReportData, page: str) -> None:
    assert f"higher is better, {LIMIT} images" in text_of(render(full, photographs=False, num_gallery=0))
    assert f"{LIMIT} images" not in page


def test_disagreements_are_counted_flagged_and_never_hidden(world: World, full: ReportData) -> None:
    ids = full.results.auc("deletion").index[:LIMIT]
    differing = {image_id for image_id in ids if int(image_id[-8:-4]) % DIFFERING == 0}
    assert full.disagreements.differing == differing
    assert full.disagreements.known == set(ids)
    page = render(full, photographs=True, num_gallery=22)
    text = text_of(page)
    assert f"disagrees on {len(differing)} of {LIMIT} explained images" in text
    cards = {re.findall(r"<code><bdi>(.*?)</bdi>", card)[0]: card for card in page.split('<article class="card">')[1:]}
    assert len(cards) == 22
    for image_id, card in cards.items():
        own = image_id in differing
        explained = [row for row in full.rows if row.scored.kind == "student"]
        assert card.count("student disagrees") == own * (1 + len(explained))
        assert card.count("<image href") >= len(full.rows)
        assert card.count("% of frames") == (image_id in ids) * len(explained)
    tail = text[text.index("Their maps stay in all means") :]
    assert [one.scored for one in full.strata] == [row.scored for row in full.rows]
    for one in full.strata:
        for game in ("deletion", "insertion"):
            scores = full.results.auc(game)[one.scored.label]
            for found, ids_of in ((one.agree[game], set(ids) - differing), (one.differ[game], differing)):
                mean = scores.loc[sorted(ids_of)].mean()
                assert found.mean == pytest.approx(mean)
                assert f"{mean:.3f}" in tail, (one.scored.label, game)
                assert f"{mean:.4f}" in markdown(full).split("Where the student names")[1]


def test_without_fidelity_the_page_says_how_to_measure_it(page: str) -> None:
    assert "not measured; python -m evaluate measures --measures fidelity --student RUN does" in text_of(page)
    assert 'flag">student disagrees' not in page
    assert "both agree" not in text_of(page)


def test_bars_share_one_axis() -> None:
    wide, narrow = (Interval(mean=m, low=m - w, high=m + w, num=9) for m, w in ((0.5, 0.5), (0.75, 0.05)))
    empty = Interval(mean=float("nan"), low=float("nan"), high=float("nan"), num=0)
    first, second, *none = bars([wide, narrow, empty, None])
    assert first is not None
    assert second is not None
    assert none == [None, None]
    assert (first["low"], first["mean"], first["high"]) == pytest.approx((3, 50, 97))
    assert second["mean"] == pytest.approx(3 + 94 * 0.75)


def test_write_report_keeps_page_and_tables(
    world: World, measured: str, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    out = tmp_path / "new" / "r.html"
    text = write_report([world.scores], str(out), measures=[measured], num_gallery=2, tables=str(tmp_path / "t.md"))
    assert [one.run_name for one in tracker] == ["report"]  # the store has no run of the games
    assert tracker[0].experiment == "shapes"
    assert tracker[0].files == ["r.html", "t.md", "t.csv"]
    assert "Sim1): 0.800" in text
    assert f"They disagree on 4 of {LIMIT} explained images" in text
    assert "Energy" in text
    assert text.endswith(f"Report: {out}")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert rows[0]["method"] == "mal_grad_cam"
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("| mal_grad_cam")]
    assert f"{float(rows[0]['deletion']):.4f}" in lines[0]


def test_page_and_tables_may_lie_in_an_object_store(
    world: World, store: ObjectStore, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    options = {"num_gallery": 1, "photographs": False}
    for folder in (place, Folder(str(tmp_path))):
        files = {name: folder.child(file).uri for name, file in (("tables", "t.csv"), ("query_plot", "q.png"))}
        text = write_report([world.scores], folder.child("r.html").uri, **files, **options)
        assert text.endswith(f"Report: {folder.child('r.html').uri}")
    assert tracker[0].files == ["r.html", "t.md", "t.csv", "q.png"]
    assert place.names() == ["q.png", "r.html", "t.csv", "t.md"]
    assert all(place.read_bytes(name) == (tmp_path / name).read_bytes() for name in ("t.csv", "t.md", "q.png"))
    assert b"<html" in place.read_bytes("r.html")


def test_the_runs_of_the_games_get_every_figure(
    world: World, measured: str, full: ReportData, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    """One run a method holds games, measures and comparisons, by one name in every run."""
    scores = tmp_path / "scores"
    shutil.copytree(world.scores, scores)
    entries = {entry["method"]: entry["config_hash"] for entry in full.results.config["maps"]}
    protocol_hash = full.results.config["protocol_hash"]
    noted = {run_key(own, protocol_hash): f"run of {name}" for name, own in entries.items() if name != "matt"}
    Folder(str(scores)).write_json(RUNS_FILE, noted | {"another store/x/y": "not this one"})
    write_report([str(scores)], str(tmp_path / "r.html"), measures=[measured], num_gallery=0)
    found = {one.run_name: one for one in tracker[1:]}
    assert set(found) == set(SKILLS) - {"matt"}
    for name, one in found.items():
        assert (one.experiment, one.given["run_id"]) == ("shapes", f"run of {name}")
        row = row_of(full, name)
        for metric, column in (("deletion_auc", "deletion"), ("road_gap", "road_gap"), ("mu_fidelity", "mu_fidelity")):
            assert one.logged[metric] == row.values[column].mean
            assert (f"{metric}_win_rate" in one.logged) == (name != "mal_grad_cam")
        assert all(np.isfinite(value) for value in one.logged.values())
    assert "max_sensitivity" not in found["random"].logged


def test_tables_agree(full: ReportData) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(full))))
    masses = [row.values["energy_inside"].mean for row in full.rows]
    assert [float(row["energy_inside"]) for row in rows] == pytest.approx(masses, rel=1e-4)
    wins = [row.against["energy_inside"].win_rate for row in full.rows if row.against]
    assert [float(row["energy_inside_win_rate"]) for row in rows if row["energy_inside_win_rate"]] == pytest.approx(
        wins, rel=1e-5
    )
    lines = [line for line in markdown(full).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {row['method']}" for row in rows]
    assert len({line.count("|") for line in lines[:8]}) == 1
    assert len(lines) == 8 + 2 + 5 + 2 + len(full.strata) + 2 + len(full.student.agreements)


def test_any_method_may_be_the_one_that_the_others_are_tested_against(world, found):
    usual = {row.scored.label: row for row in found.rows}
    other = gather([world.scores], against="matt")
    rows = {row.scored.label: row for row in other.rows}
    assert not rows["matt"].against
    for game in ("deletion", "insertion"):
        own, theirs = rows["mal_grad_cam"].against[game], usual["matt"].against[game]
        assert own.difference.mean == pytest.approx(-theirs.difference.mean)
        assert own.win_rate == pytest.approx(1 - theirs.win_rate)
        assert own.p_value == pytest.approx(theirs.p_value)
    assert "Each method minus matt, " in markdown(other)
    assert any(line.startswith(("matt ", "Against the control random, matt ")) for line in other.conclusions)
    assert {row.scored.label for row in other.rows} == set(usual)
    folder = Folder(rows["grad_cam"].scored.maps).name
    assert gather([world.scores], against=folder).results.main == rows["grad_cam"].scored
    with pytest.raises(ValueError, match=r"against 'rise': no method, or several; .*'matt' in "):
        gather([world.scores], against="rise")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gallery": -1}, "num_gallery -1"),
        ({"tables": "t.xlsx"}, r"\.md or \.csv"),
        ({"query_plot": "q.html"}, r"q\.html must end in \.png"),
        ({"out": "."}, "is a folder"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(["no such scores"], **{"out": "r.html", **given})


def test_a_ceiling_is_shown_and_wins_nothing(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "oracle": 0.95, "random": 0.1}
    found = gather([make_world(tmp_path, num_images=4, skills=skills).scores])
    assert found.rows[0].scored.label == "oracle"
    assert [line.split()[0] for line in found.conclusions[:2]] == ["mal_grad_cam", "mal_grad_cam"]
