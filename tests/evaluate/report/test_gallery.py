"""The gallery: which images, in which order of methods, and that a drawn map is the stored one."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from fake_scores import SIZE, make_world, saliency
from PIL import Image
from report_pages import report_of

from evaluate.format.figures import MAX_MAP_PX, NUM_COLOURS, draw_map, draw_photographs
from evaluate.report.gallery import Card, choose, make_cards, ranking, rule, side_by_side
from evaluate.report.report_data import ReportData

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


def test_tiles_are_the_stored_maps_and_the_photograph_is_there_once(found: ReportData) -> None:
    one = card(found, ranking(found.results, found.rows[0].scored)[0])
    assert one.size == (149, 224)  # of a map of 24 x 36
    assert one.photographs is not None
    assert [picture(uri).size for uri in one.photographs] == [(224, 149)] * 2
    assert [picture(uri).mode for uri in one.photographs] == ["RGB", "L"]
    for tile in one.tiles:
        stored = saliency(
            one.image_id, SKILLS[tile.scored.method], tile.scored.method, Path(found.results.config["data"])
        )
        drawn = picture(tile.source)
        assert drawn.size == SIZE[::-1]
        unit = (stored - stored.min()) / np.ptp(stored)
        assert np.abs(np.asarray(drawn) / (NUM_COLOURS - 1) - unit).max() < 0.51 / (NUM_COLOURS - 1)


def test_without_photographs_nothing_of_the_image_is_kept(found: ReportData) -> None:
    one = card(found, ranking(found.results, found.rows[0].scored)[0], photographs=False)
    assert one.photographs is None
    for tile in one.tiles:
        assert "transparency" not in picture(tile.source).info


def test_a_map_lets_the_photograph_show_through_where_it_is_low() -> None:
    ramp = np.linspace(-3, 5, 12, dtype=np.float32).reshape(2, 6)
    shares = np.asarray(picture(draw_map(ramp, over_photograph=True)).convert("RGBA"))[..., 3]
    assert (np.diff(shares.ravel().astype(int)) > 0).all()
    assert (shares.min(), shares.max()) == (55, 158)


@pytest.mark.parametrize("value", [0.0, -7.5])
def test_a_constant_map_is_dark(value: float) -> None:
    assert set(np.asarray(picture(draw_map(np.full((3, 4), value, np.float32), over_photograph=False))).ravel()) == {0}


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1), (1, 1)), ((224, 448), (56, 112)), ((1, 500), (1, 112)), ((112, 7), (112, 7))]
)
def test_large_maps_are_averaged_down_and_small_ones_stay(shape: tuple[int, int], size: tuple[int, int]) -> None:
    checks = (np.indices(shape).sum(axis=0) % 2).astype(np.float32)
    drawn = picture(draw_map(checks, over_photograph=False))
    assert drawn.size == size[::-1]
    assert max(drawn.size) <= MAX_MAP_PX
    if shape == (224, 448):
        assert np.asarray(drawn).min() >= NUM_COLOURS // 2 - 1  # every pixel is half of a check board


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
        assert picture(tile.doubt).size == (4, 4)
        assert tile.doubt != tile.source


def test_the_grey_photograph_is_dim() -> None:
    colour, grey = (np.asarray(picture(uri)) for uri in draw_photographs(np.full((8, 8, 3), 200, np.uint8)))
    assert abs(int(colour.mean()) - 200) <= 2
    assert abs(int(grey.mean()) - 170) <= 2
