"""The report: numbers against the scores, honest sentences, hostile names, missing pieces, refusals."""

import csv
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
from evaluate_scores import SKILLS, World, make_world
from rich.console import Console

from cluster.storage import Folder
from evaluate.findings import Findings, gather, readable
from evaluate.gallery import choose, ranking
from evaluate.outcome import read_outcomes
from evaluate.page import bars, render
from evaluate.protocol import Protocol
from evaluate.report import summary, write_report
from evaluate.schema import read_scores
from evaluate.sources import Source
from evaluate.statistics import Interval
from evaluate.tables import print_games
from evaluate.texts import comma_separated, console_text, markdown


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), num_errors=2)


@pytest.fixture(scope="module")
def found(world: World) -> Findings:
    return gather([world.scores])


@pytest.fixture(scope="module")
def page(found: Findings) -> str:
    return render(found, photographs=True, num_gallery=5)


class FakeTracker:
    """Stand in for MLflow; notes what it is given."""

    made: list["FakeTracker"]

    def __init__(self, experiment: str, run_name: str, **given: Any) -> None:
        self.experiment, self.run_name, self.given, self.files = experiment, run_name, given, []
        FakeTracker.made.append(self)

    def __enter__(self) -> "FakeTracker":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def artifact(self, path: Path, folder: str = "") -> None:
        self.files.append(path.name)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    FakeTracker.made = []
    monkeypatch.setattr("cluster.tracking.Tracker", FakeTracker)
    return FakeTracker.made


class Tags(HTMLParser):
    """Collect every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_means_equal_the_stored_scores(world: World, found: Findings) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    for row in found.rows:
        for game in ("deletion", "insertion"):
            aucs = [
                s["auc"] for s in stored if s["method"] == row.scored.method and s["game"] == game and not s["error"]
            ]
            interval = getattr(row, game)
            assert interval.num == len(aucs) == 22
            assert interval.mean == pytest.approx(sum(aucs) / len(aucs))
            assert interval.low < interval.mean < interval.high
        assert row.gap.mean == pytest.approx(row.insertion.mean - row.deletion.mean)
        assert row.num_errors == 2


def test_mean_curves_and_bands_equal_the_plain_ones(world: World, found: Findings) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    curves = np.array([s["curve"] for s in stored if (s["method"], s["game"]) == ("matt", "insertion") and s["curve"]])
    summed = found.results.curves["matt", "insertion"]
    assert summed.mean == pytest.approx(curves.mean(axis=0))
    assert summed.half_width == pytest.approx(1.96 * curves.std(axis=0, ddof=1) / np.sqrt(len(curves)), abs=1e-6)


def test_methods_are_sorted_best_first(found: Findings) -> None:
    gaps = [row.gap.mean for row in found.rows]
    assert gaps == sorted(gaps, reverse=True)
    assert found.rows[0].scored.label == "mal_grad_cam"


def test_paired_differences_are_over_the_same_images(found: Findings) -> None:
    assert len(found.pairs) == 2 * (len(SKILLS) - 1)
    for pair in found.pairs:
        auc = found.results.auc(pair.game)
        assert pair.difference.mean == pytest.approx((auc["mal_grad_cam"] - auc[pair.scored.label]).mean())
        assert pair.p_holm >= pair.p_value


def test_wins_are_counted_image_by_image(found: Findings) -> None:
    for pair in found.pairs:
        auc = found.results.auc(pair.game)[["mal_grad_cam", pair.scored.label]].dropna().to_numpy()
        wins = sum(0.5 if a == b else float((a > b) == (pair.game == "insertion")) for a, b in auc)
        assert pair.win_rate == pytest.approx(wins / len(auc))


def test_normalised_insertion_is_made_from_the_stored_curves(world: World, found: Findings) -> None:
    stored = read_scores(Folder(world.scores)).to_pylist()
    for row in found.rows:
        own = [s for s in stored if s["method"] == row.scored.method and s["game"] == "insertion" and not s["error"]]
        curves = [np.array(s["curve"], dtype=np.float64) for s in own]
        plain = [np.trapezoid((c - c[0]) / (c[-1] - c[0]), dx=1 / (len(c) - 1)) for c in curves]
        assert row.insertion_normalised.mean == pytest.approx(np.mean(plain))
        assert (row.insertion_normalised.num, row.num_flat) == (22, 0)
        assert row.deletion_gain is row.insertion_gain is None
    assert found.results.games == ("deletion", "insertion")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Findings]:
    protocol = Protocol(patches=14, least_relevant=True)
    world = make_world(tmp_path_factory.mktemp("four"), num_images=10, num_errors=1, protocol=protocol)
    return world, gather([world.scores])


def test_gains_are_differences_of_stored_areas(four: tuple[World, Findings]) -> None:
    world, found = four
    stored = {(s["method"], s["image_id"], s["game"]): s["auc"] for s in read_scores(Folder(world.scores)).to_pylist()}
    assert len(stored) == 10 * len(SKILLS) * 4
    for row in found.rows:
        for game, sign, gain in (("deletion", 1, row.deletion_gain), ("insertion", -1, row.insertion_gain)):
            plain = [
                sign * (stored[row.scored.method, image_id, f"{game}_least"] - auc)
                for (method, image_id, name), auc in stored.items()
                if method == row.scored.method and name == game and auc is not None
            ]
            assert gain is not None
            assert gain.num == len(plain) == 9
            assert gain.mean == pytest.approx(np.mean(plain))
    gains = {row.scored.label: row.deletion_gain.mean for row in found.rows if row.deletion_gain}
    assert gains["mal_grad_cam"] > gains["random"]
    assert len(found.pairs) == 2 * (len(SKILLS) - 1)  # the two main games


def test_four_games_are_shown_everywhere(four: tuple[World, Findings], page: str, found: Findings) -> None:
    _, more = four
    text = html.unescape(re.sub(r"<[^>]+>", "", render(more, photographs=False, num_gallery=0)))
    for expected in ("SRG, deletion", "SRG, insertion", "Deletion, least relevant first, higher is better", "Wins"):
        assert expected in text
    assert "Insertion, least relevant first, lower is better" in text
    assert "rise(patches=14, least_relevant=True)" in text
    assert "SRG" not in page
    assert "least relevant first" not in page
    assert "SRG deletion" in markdown(more)
    assert "SRG" not in markdown(found)
    assert "SRG insertion" in console_text(more, None)
    row = next(csv.DictReader(io.StringIO(comma_separated(more.rows))))
    assert more.rows[0].deletion_gain is not None
    assert float(row["deletion_gain"]) == pytest.approx(more.rows[0].deletion_gain.mean, rel=1e-5)
    assert next(csv.DictReader(io.StringIO(comma_separated(found.rows))))["deletion_gain"] == ""


def test_outcomes_hold_the_same_figures_for_mlflow(four: tuple[World, Findings], found: Findings) -> None:
    world, more = four
    folder = Folder(world.scores)
    sources = open_maps(folder)
    (outcome,) = [o for o in read_outcomes(folder, sources) if o.source.method == "mal_grad_cam"]
    row, metrics = more.rows[0], outcome.metrics()
    assert row.scored.label == "mal_grad_cam"
    assert row.insertion_gain is not None
    assert metrics["symmetric_relevance_gain_insertion"] == pytest.approx(row.insertion_gain.mean)
    assert metrics["symmetric_relevance_gain_deletion_low"] < metrics["symmetric_relevance_gain_deletion"]
    assert metrics["insertion_normalised_auc"] == pytest.approx(row.insertion_normalised.mean)
    assert metrics["deletion_least_auc"] == pytest.approx(more.results.auc("deletion_least")["mal_grad_cam"].mean())
    assert (metrics["num_images"], metrics["num_errors"], metrics["num_insertion_flat"]) == (9, 1, 0)
    assert set(outcome.curves) == {"deletion", "insertion", "deletion_least", "insertion_least"}
    two = Folder(found.results.uris[0])
    plain = read_outcomes(two, open_maps(two))[0].metrics()
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
    assert (row.num_flat, row.insertion_normalised.num, row.insertion.num) == (2, 4, 6)
    assert "(2 flat)" in markdown(found)
    assert "2 flat curves left out" in render(found, photographs=False, num_gallery=0)


def test_scores_of_two_protocols_in_one_table_are_refused(world: World, four: tuple[World, Findings]) -> None:
    with pytest.raises(ValueError, match=r"2 protocols.*write a report for each"):
        gather([world.scores, four[0].scores])


def test_headline_says_when_it_wins(found: Findings) -> None:
    assert found.headline[0].startswith("mal_grad_cam has the lowest deletion AUC")
    assert any(line.startswith("mal_grad_cam beats the control random in both games") for line in found.headline)


def test_headline_says_when_it_loses(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.1, "random": 0.12, "centre_gaussian": 0.7}
    found = gather([make_world(tmp_path, skills=skills).scores])
    assert found.headline[1].startswith("centre_gaussian has the highest insertion AUC")
    assert any("loses to the control centre_gaussian in both games" in line for line in found.headline)
    assert not any("beats" in line for line in found.headline)
    assert {pair.verdict for pair in found.pairs if pair.scored.label == "centre_gaussian"} == {"worse"}


def test_without_controls_nothing_is_claimed(tmp_path: Path) -> None:
    found = gather([make_world(tmp_path, skills={"mal_grad_cam": 0.8, "matt": 0.2}).scores])
    assert "No control was scored" in found.headline[-1]


def test_mass_inside_the_mask_follows_the_maps(found: Findings) -> None:
    mass = {row.scored.label: row.mass.mean for row in found.rows if row.mass}
    assert mass["mal_grad_cam"] > mass["matt"] > mass["random"]
    assert mass["random"] == pytest.approx(found.masses.area, abs=0.03)


def test_page_asks_nobody_for_anything(page: str) -> None:
    for tag, attributes in Tags(page).found:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
    assert "url(" not in page
    assert "default-src 'none'" in html.unescape(page)


def test_page_shows_the_numbers(page: str, found: Findings) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for row in found.rows:
        assert f"{row.deletion.mean:.3f}" in text
        assert f"[{row.insertion.low:.3f}, {row.insertion.high:.3f}]" in text
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
    print_games(read_outcomes(scores, open_maps(scores)), console)
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    for text in (printed, console_text(found, None), markdown(found), comma_separated(found.rows)):
        assert "rise of the student" in text
    page = render(found, photographs=False, num_gallery=0)
    (row,) = re.findall(r'<th scope="row" data-value="rise of the student">.*?</th>', page, re.S)[:1]
    assert "explains the student, scored on the teacher" in row


def test_script_is_the_one_that_the_policy_allows(page: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", page, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)


def test_same_scores_give_the_same_page(page: str, found: Findings) -> None:
    assert render(found, photographs=True, num_gallery=5) == page


def test_photographs_can_be_left_out(found: Findings) -> None:
    page = render(found, photographs=False, num_gallery=5)
    assert "image/jpeg" not in page
    assert "image/png" in page
    assert ">Input<" not in page


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    skills = {"mal_grad_cam": 0.7, "</th><script>alert(2)</script>": 0.3}
    world = make_world(
        tmp_path / "w", skills={"mal_grad_cam": 0.7, "matt": 0.4}, class_names=[evil, "b'&$x_{"], num_images=8
    )
    other = make_world(
        tmp_path / "v",
        num_images=8,
        skills={name.replace("/", "|"): skill for name, skill in skills.items()},
        num_errors=1,
        data_name=evil,
        teacher=f"onnx:{evil}",
    )
    for scores in (world.scores, other.scores):
        page = render(gather([scores]), photographs=True, num_gallery=4)
        tags = Tags(page).found
        assert [tag for tag, _ in tags].count("script") == 1
        assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
        assert html.escape(evil, quote=True).replace("&quot;", "&#34;") in page


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=8, skills={"mal_grad_cam": 0.7, "random": 0.1})
    shutil.rmtree(world.data)
    shutil.rmtree(world.run)
    shutil.rmtree(tmp_path / "maps")
    page = render(gather([world.scores]), photographs=True, num_gallery=3)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for expected in (
        "The data set cannot be opened",
        "The image cannot be read.",
        "No map is stored any more.",
        "ml_grad_cam was not scored.",
        "run folder is not there any more",
    ):
        assert expected in text, expected


def test_without_the_main_method_or_a_student(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=6, skills={"random": 0.1, "centre_gaussian": 0.4}, masks=False)
    found = gather([world.scores])
    page = render(found, photographs=True, num_gallery=3)
    assert "mal_grad_cam is not among these scores" in page
    assert "No map was made with a student." in page
    assert "the data set has no object masks" in page
    assert found.pairs == []


@pytest.mark.parametrize("num_images", [1, 2])
def test_very_few_images(tmp_path: Path, num_images: int) -> None:
    found = gather([make_world(tmp_path, num_images=num_images).scores])
    assert "mal_grad_cam" in render(found, photographs=True, num_gallery=8)
    assert {pair.verdict for pair in found.pairs} == {"unclear"}


def test_all_images_broken(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=4, num_errors=4, skills={"mal_grad_cam": 0.5, "random": 0.1})
    found = gather([world.scores])
    assert "No map has a score" in found.headline[0]
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


def test_gallery_takes_best_middle_and_worst(found: Findings) -> None:
    order = ranking(found.results)
    assert len(order) == 22
    assert choose(list("abcdefghij"), 5) == [
        ("a", "best, 1 of 10"),
        ("b", "best, 2 of 10"),
        ("e", "middle, 5 of 10"),
        ("i", "worst, 9 of 10"),
        ("j", "worst, 10 of 10"),
    ]
    for total in range(12):
        for num in range(12):
            picked = [image_id for image_id, _ in choose([str(i) for i in range(total)], num)]
            assert len(set(picked)) == len(picked) == min(num, total)


def test_bars_share_one_axis() -> None:
    wide, narrow = (Interval(mean=m, low=m - w, high=m + w, num=9) for m, w in ((0.5, 0.5), (0.75, 0.05)))
    empty = Interval(mean=float("nan"), low=float("nan"), high=float("nan"), num=0)
    first, second, *none = bars([wide, narrow, empty, None])
    assert first is not None
    assert second is not None
    assert none == [None, None]
    assert (first["low"], first["mean"], first["high"]) == pytest.approx((3, 50, 97))
    assert second["mean"] == pytest.approx(3 + 94 * 0.75)


def test_write_report_keeps_page_and_tables(world: World, tmp_path: Path, tracker: list[FakeTracker]) -> None:
    text = write_report([world.scores], str(tmp_path / "new" / "r.html"), num_gallery=2, tables=str(tmp_path / "t.md"))
    assert tracker[0].experiment == "shapes"
    assert tracker[0].run_name == "report"
    assert tracker[0].files == ["r.html", "t.md", "t.csv"]
    assert "Sim1): 0.800" in text
    assert "mass in mask" in text
    assert text.endswith(f"Report: {tmp_path / 'new' / 'r.html'}")
    assert summary([world.scores]) in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert rows[0]["method"] == "mal_grad_cam"
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("| mal_grad_cam")]
    assert f"{float(rows[0]['deletion']):.4f}" in lines[0]


def test_tables_agree(found: Findings) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(found.rows))))
    masses = [row.mass.mean for row in found.rows if row.mass]
    assert [float(row["mass"]) for row in rows] == pytest.approx(masses, rel=1e-4)
    lines = [line for line in markdown(found).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {row['method']}" for row in rows]
    assert len({line.count("|") for line in lines[:8]}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gallery": -1}, "num_gallery -1"),
        ({"tables": "t.xlsx"}, r"\.md or \.csv"),
        ({"out": "s3://bucket/r.html"}, "no file on this machine"),
        ({"out": "."}, "is a folder"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(["no such scores"], **{"out": "r.html", **given})


def test_shown_paths_hide_passwords_and_this_machine() -> None:
    assert readable(f"onnx:{Path.cwd()}/models/m.onnx") == "onnx:models/m.onnx"
    assert readable("s3://key:secret@bucket/run") == "s3://bucket/run"
