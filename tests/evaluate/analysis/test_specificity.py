"""Teacher specificity against means and differences counted image by image, and what cannot be compared."""

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_scores import write_part

from cluster.storage import Folder, config_hash
from evaluate.__main__ import main
from evaluate.analysis.specificity import BOTH, Specificity, compare_teachers
from evaluate.games.protocol import GAMES, Protocol
from evaluate.games.reader import load_results
from evaluate.games.schema import SCHEMA_VERSION, scores_schema, scores_table
from evaluate.statistics import mean_interval

IMAGES = [f"{k:02d}.png" for k in range(30)]
METHODS = ("mal_grad_cam", "matt", "random")
BROKEN = 4  # the number of the image without a map for the second black box


def maps_entry(method: str, made: str, **options: Any) -> dict[str, Any]:
    config = {"method": method, "options": options, "teacher": f"onnx:{made}.onnx", "teacher_fingerprint": made}
    config |= {"target": "teacher", "student": f"student of {made}"}
    return {"uri": f"maps/{made}/{method}", "method": method, "config_hash": config_hash(config), "config": config}


def target_of(made: str, k: int) -> int:
    """The black boxes agree on all but every third image."""
    return k % 5 + (10 if made != "first" and k % 3 == 0 else 0)


def auc_of(method: str, made: str, on: str, k: int, game: str) -> float:
    """On its own black box a map of `matt` is worse than others' maps, that of another method better; a control's maps
    are the same for all.
    """
    of_image = np.random.default_rng([k, len(game)]).normal(0.5, 0.1)
    if method == "random":
        return float(of_image)
    own = np.random.default_rng([k, *made.encode(), *on.encode(), len(game)]).normal(0, 0.02)
    gain = (-0.06 if method == "matt" else 0.06) if made == on else 0.0
    return float(of_image + own + (gain if game == "insertion" else -gain))


def write_scores(root: Path, made: str, on: str, methods: Any = METHODS, **changes: Any) -> str:
    target = "teacher" if made == on else "teacher, of maps made for another teacher"
    protocol = Protocol(target=target, seed=changes.pop("seed", 0))
    entries = [maps_entry(method, made) if isinstance(method, str) else method for method in methods]
    config = {"schema_version": SCHEMA_VERSION, "protocol": protocol.fields(), "protocol_hash": protocol.hash}
    config |= {"teacher": f"onnx:{on}.onnx", "teacher_fingerprint": on, "data": "photos", "data_fingerprint": "data0"}
    config |= {"data_name": "photos", "split": None, "limit": None, "maps": entries}
    if made != on:
        config["made_for"] = {"teacher": f"onnx:{made}.onnx", "teacher_fingerprint": made}
    config |= changes
    rows = []
    for entry, (k, image_id), game in itertools.product(entries, enumerate(IMAGES), GAMES):
        row = {"image_id": image_id, "method": entry["method"], "config_hash": entry["config_hash"], "game": game}
        row |= {"protocol_hash": protocol.hash, "target": target_of(made, k), "teacher_queries": 2}
        auc = auc_of(entry["method"], made, on, k, game)
        failed = k == BROKEN and made == "second"
        rows.append(row | ({"error": "broken"} if failed else {"auc": auc, "curve": [auc, auc]}))
    folder = Folder(str(root / f"{made}-on-{on}-{config_hash(config)}"))
    folder.claim(config, what="scores")
    write_part(folder, "part-00000.parquet", scores_table(rows, scores_schema(config)))
    return folder.uri


def all_places(root: Path, teachers: tuple[str, ...] = ("first", "second"), **changes: Any) -> list[str]:
    return [write_scores(root, made, on, **changes) for made, on in itertools.product(teachers, repeat=2)]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return all_places(tmp_path_factory.mktemp("specificity"))


@pytest.fixture(scope="module")
def found(scores: list[str]) -> Specificity:
    return compare_teachers(scores)


def test_means_and_differences_are_over_the_images_of_the_same_class(found: Specificity) -> None:
    assert list(found.teachers) == ["A", "B"]
    assert found.teachers["B"].endswith("second.onnx (second)")
    names = {"A": "first", "B": "second"}
    same = [k for k in range(30) if k % 3 and k != BROKEN]
    assert [(one.method, one.game) for one in found.comparisons] == list(itertools.product(METHODS, GAMES))
    for one in found.comparisons:
        assert (one.num_images, one.num_scored) == (len(same), 29) == (19, 29)
        aucs = {
            (made, on): np.array([auc_of(one.method, names[made], names[on], k, one.game) for k in same])
            for made, on in itertools.product("AB", repeat=2)
        }
        for place, values in aucs.items():
            assert one.aucs[place] == mean_interval(values)
        on_a, on_b = aucs["A", "A"] - aucs["B", "A"], aucs["B", "B"] - aucs["A", "B"]
        wanted = {"A": on_a, "B": on_b, BOTH: (on_a + on_b) / 2}
        assert one.differences == {name: mean_interval(values) for name, values in wanted.items()}


def test_the_diagonal_wins_or_loses_only_where_the_interval_leaves_zero_out(found: Specificity) -> None:
    wanted = {"mal_grad_cam": "the diagonal wins", "matt": "the diagonal loses", "random": "undecided"}
    for one in found.comparisons:
        assert {one.verdict(on) for on in ("A", "B", BOTH)} == {wanted[one.method]}


def test_three_black_boxes_are_compared_in_pairs(tmp_path: Path) -> None:
    found = compare_teachers(all_places(tmp_path, ("first", "second", "third")))
    assert list(dict.fromkeys(one.teachers for one in found.comparisons)) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert len(found.comparisons) == 3 * 3 * 2
    assert {one.num_images for one in found.comparisons if one.teachers == ("B", "C")} == {29}


def test_a_method_is_the_same_where_its_options_are(tmp_path: Path) -> None:
    uris = [
        write_scores(tmp_path, made, on, methods=[maps_entry("rise", made, num_masks=num) for num in (10, 20)])
        for made, on in itertools.product(("first", "second"), repeat=2)
    ]
    found = compare_teachers(uris)
    assert {one.method for one in found.comparisons} == {"rise (num_masks=10)", "rise (num_masks=20)"}


def test_texts_hold_the_same_numbers(scores: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_teachers(scores)
    assert main(["specificity", "--scores", *scores, "--table", str(tmp_path / "new" / "table.csv")]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "new" / "table.md").read_text()
    for text in (printed, written):
        assert "19 of 29 images whose two maps are of the same class" in text
        assert "the diagonal wins 2 of 6 comparisons" in text
        for one in found.comparisons:
            assert f"{one.aucs['A', 'B'].mean:.4f} [" in text
            assert f"{one.differences[BOTH].mean:+.4f} [" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "table.csv").read_text())))
    assert len(rows) == 6 * (4 + 3)
    for row in rows:
        (one,) = [c for c in found.comparisons if (c.method, c.game) == (row["method"], row["game"])]
        value = one.aucs[row["made_for"], row["scored_on"]] if row["made_for"] else one.differences[row["scored_on"]]
        assert float(row["value"]) == pytest.approx(value.mean, rel=1e-4, abs=1e-9)
        assert row["verdict"] == ("" if row["made_for"] else one.verdict(row["scored_on"]))


def test_scores_of_another_black_boxs_maps_stand_in_no_other_table(
    scores: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, crossed = scores[:2]
    with pytest.raises(ValueError, match="specificity"):
        load_results([own, crossed])
    for words in (
        ["report", "--scores", crossed, "--out", str(tmp_path / "report.html")],
        ["report", "--scores", own, crossed, "--out", str(tmp_path / "report.html")],
        ["substrates", "--scores", own, crossed],
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "scores maps made for onnx:first.onnx on another black box, onnx:second.onnx" in error
        assert "`python -m evaluate specificity`" in error
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(scores: list[str]) -> None:
    for few in itertools.combinations(scores, 3):
        with pytest.raises(ValueError, match=r"random made for A, scored on .*--cross-teacher"):
            compare_teachers(few)
    with pytest.raises(ValueError, match="no scores given"):
        compare_teachers([])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data_fingerprint": "another"}, "images"),
        ({"seed": 1}, "protocols"),
        ({"methods": [maps_entry("random", "second") | {"config": {"target": "label", "options": {}}}]}, "targets"),
    ],
)
def test_scores_that_differ_in_more_are_refused(
    scores: list[str], tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=f"differ in their black boxes only.*of different {what}"):
        compare_teachers([*scores[:3], write_scores(tmp_path, "second", "second", **change)])


def test_the_same_maps_twice_are_refused(scores: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"random in .* stands in an earlier folder too"):
        compare_teachers([*scores, write_scores(tmp_path, "second", "second", methods=["random"])])
