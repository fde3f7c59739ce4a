"""Which maps make one curve of quality against queries, and that both games are drawn."""

import base64
import io
import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from fake_scores import method_row
from matplotlib.colors import to_rgb
from PIL import Image

from evaluate.analysis.comparison import MethodRow
from evaluate.analysis.query_curve import curve_label, draw_query_curves, plot_query_curves, query_curves
from evaluate.format.figures import PALETTE
from evaluate.scored_method import ScoredMethod
from evaluate.statistics import Interval
from explain.methods.options import RiseOptions
from explain.methods.registry import METHODS
from explain.methods.titles import title_of


def scored(method: str, **options: Any) -> ScoredMethod:
    own = asdict(RiseOptions(**options)) if method == "rise" else {}
    config = {"options": own}
    return ScoredMethod(label=f"{method} {options}", method=method, config_hash="0", maps="maps", config=config)


def row(method: str, queries: float, auc: float, **options: Any) -> MethodRow:
    one = Interval(mean=auc, low=auc - 0.01, high=auc + 0.01, num=9)
    insertion = replace(one, mean=1 - auc, low=0.99 - auc, high=1.01 - auc)
    return method_row(scored(method, **options), {"deletion": one, "insertion": insertion, "gap": one}, queries)


@pytest.fixture
def rows() -> list[MethodRow]:
    return [
        row("rise", 400, 0.2, num_masks=400),
        row("rise", 50, 0.3, num_masks=50),
        row("rise", 400, 0.1, num_masks=400, centred=True),
        row("rise", 400, 0.15, num_masks=400, num_cells=8, keep_probability=0.1),
        row("mal_grad_cam", 0, 0.25),
        row("random", 0, 0.4),
    ]


def test_budgets_of_one_configuration_make_one_curve(rows):
    found = {curve.label: [r.teacher_queries for r in curve.rows] for curve in query_curves(rows)}
    assert found == {
        "RISE": [50, 400],
        "RISE (centred=True)": [400],
        "RISE (keep_probability=0.1, num_cells=8)": [400],
    }


def test_stored_options_are_known_for_the_defaults():
    for method in METHODS.values():
        options = json.loads(json.dumps(asdict(method.options())))
        stored = ScoredMethod(label="x", method=method.name, config_hash="0", maps="m", config={"options": options})
        assert curve_label(stored) == title_of(method.name)


def test_a_method_that_is_not_registered_keeps_its_options():
    stranger = ScoredMethod(
        label="x", method="x", config_hash="0", maps="m", config={"options": {"a": 1, "num_masks": 9}}
    )
    assert curve_label(stranger) == "x (a=1)"


def test_a_dollar_sign_in_a_name_is_one(rows):
    plot = plot_query_curves("deletion", [*rows, row("b'&$x_{$<", 100, 0.2)], theme="light")
    assert b"$x_{$&lt;" in base64.b64decode(plot.partition(",")[2])


@pytest.mark.parametrize("game", ["deletion", "insertion"])
def test_plots_are_pictures_and_the_same_each_time(rows, game):
    plot = plot_query_curves(game, rows, theme="light")
    head, _, data = plot.partition(",")
    assert head == "data:image/svg+xml;base64"
    assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")  # noqa: S314 - made here
    assert plot == plot_query_curves(game, rows, theme="light") != plot_query_curves(game, rows, theme="dark")


def test_both_games_are_one_picture_with_every_curve(rows):
    picture = draw_query_curves(rows)
    assert picture == draw_query_curves(rows)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    for color in PALETTE[: len(query_curves(rows))]:
        drawn = (pixels == np.round(255 * np.array(to_rgb(color)))).all(axis=2).any(axis=0).nonzero()[0]
        parts = np.split(drawn, (np.diff(drawn) > 1).nonzero()[0] + 1)
        assert len(parts) >= 3  # in each game, and in the legend
        assert parts[0][0] < pixels.shape[1] / 2 < parts[-1][0]


def test_lines_of_no_question_leave_the_axis_to_those_that_ask(rows):
    svg = base64.b64decode(plot_query_curves("deletion", rows, theme="light").partition(",")[2]).decode()
    texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]  # noqa: S314 - ours
    assert {"50", "100", "200"} <= set(texts)
    assert not {"1", "10"} & set(texts)


def test_no_two_lines_of_no_question_look_alike():
    controls = [row(name, 0, 0.3) for name in ("random", "centre_gaussian", "edges")]
    rows = [*(row(f"method {i}", 0, 0.1 + 0.01 * i) for i in range(12)), *controls, row("mal_grad_cam", 0, 0.25)]
    svg = base64.b64decode(plot_query_curves("deletion", rows, theme="light").partition(",")[2]).decode()
    styles = [path.get("style", "") for path in ET.fromstring(svg).iter() if path.tag.endswith("path")]  # noqa: S314 - ours
    dashed = Counter(style for style in styles if "stroke-dasharray" in style)
    assert sorted(dashed.values()) == [2] * (12 + 3)  # in the plot and in the legend
