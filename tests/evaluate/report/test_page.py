"""The HTML page: numbers, marks, policy, hostile names, what is missing."""

import csv
import html
import io
import re
import shutil
from pathlib import Path

import pytest
from fake_scores import DIFFERING, World, make_world, write_metrics
from report_pages import LIMIT, Tags, csv_of, open_maps, report_of, text_of

from cluster.storage import Folder
from evaluate.games.summary import summarize_games
from evaluate.report.console import games_text
from evaluate.report.html import bars, render, signed
from evaluate.report.report_data import ReportData
from evaluate.report.texts import console_text, markdown
from evaluate.statistics import Interval


def test_marks_stand_beside_every_method(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "rise": 0.6, "random": 0.1, "stranger": 0.3}
    text = text_of(
        render(report_of(make_world(tmp_path, num_images=4, skills=skills).scores), photographs=False, num_gallery=0)
    )
    for mark in (
        "MAL-Grad-CAM explains the student, scored on the teacher",
        "RISE asks the black box",
        "Random control",
    ):
        assert mark in text
    assert "stranger not a registered method" in text


def test_four_games_are_shown_everywhere(four: tuple[World, ReportData], page: str, found: ReportData) -> None:
    _, more = four
    text = text_of(render(more, photographs=False, num_gallery=0))
    for expected in ("SRG, deletion", "SRG, insertion", "Deletion, least relevant first , higher is better"):
        assert expected in text
    assert "Insertion, least relevant first , lower is better" in text
    assert "rise(patches=14, least_relevant=True)" in text
    assert "SRG" not in text_of(page)  # pictures are any letters
    assert "least relevant first" not in page
    assert "SRG, deletion ↑" in markdown(more)
    assert "SRG" not in markdown(found)
    assert "SRG, insertion ↑" in console_text(more, None)
    row = next(csv.DictReader(io.StringIO(csv_of(more))))
    assert float(row["deletion_gain"]) == pytest.approx(more.rows[0].values["deletion_gain"].mean, rel=1e-5)
    assert "deletion_gain" not in next(csv.DictReader(io.StringIO(csv_of(found))))


def test_page_asks_nobody_for_anything(page: str) -> None:
    for tag, attributes in Tags(page).found:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
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
    found = report_of(make_world(tmp_path, num_images=4, skills=skills, explains={"rise": "student"}).scores)
    explained = {row.scored.label: row.scored.explains for row in found.rows}
    assert explained == {
        "lime": "teacher", "mal_grad_cam": "student", "random": "nothing", "rise of the student": "student",
    }  # fmt: skip
    scores = Folder(found.results.uris[0])
    printed = games_text(summarize_games(scores, open_maps(scores)))
    for text in (printed, console_text(found, None), markdown(found), csv_of(found)):
        assert "rise of the student" in text.lower()
    page = render(found, photographs=False, num_gallery=0)
    (row,) = re.findall(r'<th scope="row" data-value="RISE of the student".*?</th>', page, re.S)[:1]
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
    assert ">Input<" not in page
    assert 'alt="The image"' not in page
    assert 'alt="Map of MAL-Grad-CAM"' in page


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
        page = render(report_of(one.scores, measures=(measured,)), photographs=True, num_gallery=8)
        tags = Tags(page).found
        assert [tag for tag, _ in tags].count("script") == 1
        assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
        assert html.escape(EVIL, quote=True).replace("&quot;", "&#34;") in page
        assert "\u202e" not in page
        assert r"photo\u202egpj.exe" in page
        assert LONG in page


def test_hostile_names_stay_text_in_the_tables(tmp_path: Path) -> None:
    skills = {"mal_grad_cam": 0.7, "a|b\n<b>": 0.3, TURNED: 0.2, "=1+1": 0.1}
    found = report_of(make_world(tmp_path, num_images=6, skills=skills).scores)
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines[:6]}) == 1
    assert "<b>" not in markdown(found)
    for text in (markdown(found), console_text(found, None)):
        assert "\u202e" not in text
    assert [row["method"] for row in csv.DictReader(io.StringIO(csv_of(found)))] == [
        row.scored.label for row in found.rows
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=8, skills={"mal_grad_cam": 0.7, "random": 0.1})
    shutil.rmtree(world.data)
    shutil.rmtree(world.run)
    shutil.rmtree(tmp_path / "maps")
    page = render(report_of(world.scores), photographs=True, num_gallery=3)
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
    found = report_of(world.scores)
    page = render(found, photographs=True, num_gallery=3)
    assert "MAL-Grad-CAM is not among these scores" in page
    assert "No map was made with a student." in page
    assert "ordered by Center Gaussian&#39;s insertion minus deletion AUC" in page
    assert not any(row.against for row in found.rows)
    assert "Each method minus" not in markdown(found)
    assert next(csv.DictReader(io.StringIO(csv_of(found))))["deletion_win_rate"] == ""


def test_one_method_alone(tmp_path: Path) -> None:
    found = report_of(make_world(tmp_path, num_images=6, skills={"mal_grad_cam": 0.7}).scores)
    assert "it is the only method" in found.conclusions[0]
    assert "1 of 1" not in render(found, photographs=True, num_gallery=3)
    assert "| MAL-Grad-CAM |" in markdown(found)


@pytest.mark.parametrize("num_images", [1, 2])
def test_very_few_images(tmp_path: Path, num_images: int) -> None:
    found = report_of(make_world(tmp_path, num_images=num_images).scores)
    assert "mal_grad_cam" in render(found, photographs=True, num_gallery=8)
    assert {one.verdict for row in found.rows for one in row.against.values()} == {"unclear"}


def test_all_images_broken(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=4, num_errors=4, skills={"mal_grad_cam": 0.5, "random": 0.1})
    found = report_of(world.scores)
    assert "No map has a score" in found.conclusions[0]
    assert "no curve is stored" in render(found, photographs=True, num_gallery=3)
    assert "Random" in markdown(found)


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
        assert card.count("<img src") >= len(full.rows)
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


def test_a_sentences_negative_numbers_have_minus_signs() -> None:
    written = "grad-cam by -0.1 [-.2, -0.05] (-3, p 2e-05) of 10-20, mal-2"
    assert signed(written) == "grad-cam by −0.1 [−.2, −0.05] (−3, p 2e-05) of 10-20, mal-2"  # noqa: RUF001
