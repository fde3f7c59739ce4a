"""Overlays by hand: the colormap shows where a map is high, elsewhere the photograph; what is no map is refused."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from explain.pictures.overlay import LOWEST_SHARE, overlay, rows_of, shorten, side_by_side, unit_map


def gray(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (100, 100, 100))


def test_a_map_is_scaled_between_its_percentiles():
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    scaled = unit_map(values)
    low, high = np.percentile(values, (1, 99.5))
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert scaled[50, 50] == pytest.approx((values[50, 50] - low) / (high - low))


def test_a_single_peak_is_drawn_and_a_constant_map_is_dark():
    peak = np.zeros((50, 50), dtype=np.float32)
    peak[3, 4] = 7
    assert unit_map(peak)[3, 4] == 1
    assert unit_map(peak).sum() == 1
    assert not unit_map(np.full((5, 5), 3.0)).any()


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 3)), np.full((2, 2), np.nan), np.full((2, 2), np.inf)])
def test_what_is_no_map_is_refused(bad):
    with pytest.raises(ValueError, match="finite values"):
        unit_map(bad)


def test_the_color_is_the_colormaps_where_the_map_is_high():
    saliency = np.zeros((40, 60), dtype=np.float32)
    saliency[:, 30:] = 1
    picture = np.asarray(overlay(gray(60, 40), saliency, opacity=1.0, colormap="viridis", long_side_px=60)).astype(int)
    highest = np.array(colormaps["viridis"](1.0)[:3]) * 255
    assert np.abs(picture[20, 50] - highest).max() <= 1
    under = 0.75 * 100 + 20
    lowest = (1 - LOWEST_SHARE) * under + LOWEST_SHARE * np.array(colormaps["viridis"](0.0)[:3]) * 255
    assert np.abs(picture[20, 5] - lowest).max() <= 1


def test_no_opacity_shows_the_photograph_alone():
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    picture = overlay(photograph, np.eye(8), opacity=0, long_side_px=40)
    assert (np.asarray(picture) == np.asarray(photograph)).all()


def test_the_picture_has_the_photographs_shape_and_the_map_lies_over_all_of_it():
    saliency = np.zeros((7, 7), dtype=np.float32)
    saliency[0, 6] = 1  # top right
    picture = np.asarray(overlay(gray(300, 100), saliency, opacity=1.0, long_side_px=150)).astype(int)
    assert picture.shape == (50, 150, 3)
    brightest = np.unravel_index(picture.sum(axis=2).argmax(), (50, 150))
    assert brightest[0] < 10
    assert brightest[1] > 130


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="0 to 1"):
        overlay(gray(8, 8), np.eye(4), opacity=1.5)
    with pytest.raises(ValueError, match="inferno"):
        overlay(gray(8, 8), np.eye(4), colormap="rainbow-of-mine")


def test_sheets_hold_every_panel_and_stack():
    panels = {"Photograph": gray(50, 40), "GP regression\n200 queries": gray(50, 40)}
    sheet = side_by_side(panels, heading="Egyptian cat (0.78)")
    assert sheet.width > 2 * 50
    assert (np.asarray(sheet)[-20, 20] == 100).all()
    assert rows_of([sheet, sheet]).height == 2 * sheet.height


def test_long_lines_are_cut():
    cut = shorten("a very long class name of a bird that nobody has ever seen", 120, 15)
    assert cut.endswith("…")
    assert shorten("cat", 120, 15) == "cat"
