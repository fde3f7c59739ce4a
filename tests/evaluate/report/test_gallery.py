"""The gallery: which images, in which order of methods, and that a drawn map is the stored one."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from fake_scores import SIZE, make_world, saliency
from PIL import Image
from report_pages import report_of

from evaluate.report.gallery import DOUBT_PX, Card, choose, hero, make_cards, ranking, rule, side_by_side
from evaluate.report.report_data import ReportData
from explain.pictures.overlay import overlay

SKILLS = {"random": 0.05, "matt": 0.45, "rise": 0.9, "ml_grad_cam": 0.62, "mal_grad_cam": 0.7}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return report_of(make_world(tmp_path_factory.mktemp("gallery"), num_images=9, num_errors=1, skills=SKILLS).scores)


def picture(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def card(found: ReportData, image_id: str, *, photographs: bool = True) -> Card:
    (one,) = make_cards(found, [(image_id, "best, 1 of 1")], photographs=photographs)
    return one


def test_images_are_ordered_by_the_methods_own_gap(found: ReportData) -> None:
    assert found.results.main is not None
    order = ranking(found.results, found.results.main)
    auc = {game: found.results.auc(game)["mal_grad_cam"] for game in ("deletion", "insertion")}
    gaps = [auc["insertion"][image_id] - auc["deletion"][image_id] for image_id in order]
    assert len(order) == 8
    assert gaps == sorted(gaps, reverse=True)
    assert "the 1 best, the 2 around the median and the 1 worst of 8" in rule("x", order, 4)


def test_gallery_takes_best_middle_and_worst() -> None:
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


def test_every_method_stands_beside_the_input_the_papers_first_the_controls_last(found: ReportData) -> None:
    assert [scored.label for scored in side_by_side(found)] == ["ml_grad_cam", "matt", "mal_grad_cam", "rise", "random"]
    one = card(found, ranking(found.results, found.rows[0].scored)[0])
    assert [tile.scored.label for tile in one.tiles] == [scored.label for scored in side_by_side(found)]
    for tile in one.tiles:
        deletion, insertion = (
            found.results.auc(g).at[one.image_id, tile.scored.label] for g in ("deletion", "insertion")
        )
        assert tile.note == f"deletion {deletion:.3f}, insertion {insertion:.3f}"


def test_tiles_are_the_stored_maps_over_the_photograph(found: ReportData) -> None:
    one = card(found, ranking(found.results, found.rows[0].scored)[0])
    assert one.size == (149, 224)  # of a map of 24 x 36
    photograph, data = picture(one.photograph), Path(found.results.config["data"])
    assert photograph.size == (224, 149)
    for tile in one.tiles:
        stored = saliency(one.image_id, SKILLS[tile.scored.method], tile.scored.method, data)
        wanted = overlay(photograph, stored, long_side_px=224)
        assert difference(picture(tile.source), wanted) < 8  # levels: JPEG


def test_without_photographs_nothing_of_the_image_is_kept(found: ReportData) -> None:
    one = card(found, ranking(found.results, found.rows[0].scored)[0], photographs=False)
    assert one.photograph is None
    for tile in one.tiles:
        stored = saliency(
            one.image_id, SKILLS[tile.scored.method], tile.scored.method, Path(found.results.config["data"])
        )
        wanted = overlay(Image.new("RGB", (SIZE[1], SIZE[0]), (128, 128, 128)), stored, opacity=1, long_side_px=224)
        assert difference(picture(tile.source), wanted) < 8


def difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).mean())


def test_the_page_begins_with_the_best_maps_the_papers_and_those_without_queries(found: ReportData) -> None:
    cards = make_cards(found, choose(ranking(found.results, found.rows[0].scored), 8), photographs=True)
    shown = hero(found, cards)
    assert [scored.title for scored in shown["methods"]] == ["RISE", "MAL-Grad-CAM", "ML-Grad-CAM"]
    assert [card.place.split(",")[0] for card in shown["cards"]] == ["best", "best", "middle", "worst"]
    assert hero(found, [])["cards"] == []


def test_a_map_that_is_not_finite_is_said_to_be(found: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = np.array([[np.nan, 1.0]], np.float32)
    monkeypatch.setattr(
        "evaluate.report.gallery.maps_of", lambda uri, ids, column="saliency": dict.fromkeys(ids, broken)
    )
    one = card(found, ranking(found.results, found.rows[0].scored)[0])
    assert {(tile.source, tile.note) for tile in one.tiles} == {(None, "The map holds values that are not finite.")}
    assert {tile.doubt for tile in one.tiles} == {None}


def test_what_a_method_knows_of_its_doubt_is_drawn_beside_its_map(
    found: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = ranking(found.results, found.rows[0].scored)[0]
    assert {tile.doubt for tile in card(found, best).tiles} == {None}
    made = {"saliency": np.eye(4, dtype=np.float32), "saliency_std": 1 - np.eye(4, dtype=np.float32)}
    monkeypatch.setattr(
        "evaluate.report.gallery.maps_of", lambda uri, ids, column="saliency": dict.fromkeys(ids, made[column])
    )
    for tile in card(found, best).tiles:
        assert tile.doubt is not None
        assert picture(tile.doubt).size == (DOUBT_PX, DOUBT_PX)
        assert tile.doubt != tile.source
