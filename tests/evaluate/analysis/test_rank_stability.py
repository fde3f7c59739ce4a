"""Rank stability: ranks, Kendall's tau and wins re-derived from the stored rows, and what may not be compared."""

import csv
import io
import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from fake_scores import make_world

from cluster.storage import Folder
from evaluate.__main__ import main
from evaluate.analysis.rank_stability import Stability, compare, numbers, sentences, tables
from evaluate.format.table import Table, console_page, markdown_page
from evaluate.games.protocol import RANKINGS, Protocol, RankedBy
from evaluate.games.schema import read_scores

SKILLS = {"mal_grad_cam": 0.7, "matt": 0.4, "grad_cam": 0.55, "random": 0.05}
OTHER = {"mal_grad_cam": 0.3, "matt": 0.6, "grad_cam": 0.45, "random": 0.1}
PROTOCOLS = (
    Protocol(least_relevant=True),
    Protocol(least_relevant=True, deletion_substrate="black"),
    Protocol(least_relevant=True, patches=14),
)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("substrates")
    given = zip(PROTOCOLS, (SKILLS, SKILLS, OTHER), ("a", "b", "c"), strict=True)
    return [
        make_world(root, num_images=12, num_errors=2, skills=skills, name=name, protocol=protocol, masks=False).scores
        for protocol, skills, name in given
    ]


@pytest.fixture(scope="module")
def found(scores: list[str]) -> Stability:
    return compare(scores)


def stored_gaps(uri: str) -> dict[str, dict[str, float]]:
    """Read insertion minus deletion AUC by method and image, row by row."""
    gaps: dict[str, dict[str, float]] = {}
    for row in read_scores(Folder(uri)).to_pylist():
        if row["game"] in ("deletion", "insertion") and row["error"] is None:
            own = gaps.setdefault(row["method"], {})
            own[row["image_id"]] = own.get(row["image_id"], 0) + (1 if row["game"] == "insertion" else -1) * row["auc"]
    return gaps


def test_means_and_ranks_are_those_of_each_protocol(scores: list[str], found: Stability) -> None:
    for uri, protocol, name in zip(scores, PROTOCOLS, found.protocols, strict=True):
        assert name == f"{protocol.name} {protocol.hash}"
        gaps = {method: np.mean(list(own.values())) for method, own in stored_gaps(uri).items()}
        order = sorted(gaps, key=lambda method: -gaps[method])
        for method in SKILLS:
            standing = found.standings[method, name]
            assert standing.value.mean == pytest.approx(gaps[method])
            assert standing.value.low < standing.value.mean < standing.value.high
            assert standing.value.num == 10
            assert standing.rank == 1 + order.index(method)


def test_methods_are_sorted_by_their_mean_rank(found: Stability) -> None:
    ranks = [np.mean([found.standings[m, name].rank for name in found.protocols]) for m in found.methods]
    assert ranks == sorted(ranks)


def test_taus_count_pairs_of_methods(found: Stability) -> None:
    ranks = {name: [found.standings[m, name].rank for m in found.methods] for name in found.protocols}
    for (i, first), (j, second) in itertools.product(enumerate(found.protocols), repeat=2):
        pairs = list(itertools.combinations(range(len(found.methods)), 2))
        same = sum(
            np.sign((ranks[first][a] - ranks[first][b]) * (ranks[second][a] - ranks[second][b])) for a, b in pairs
        )
        assert found.taus[i, j] == pytest.approx(same / len(pairs))
    assert found.taus[0, 1] > found.taus[0, 2]
    assert found.mean_tau == pytest.approx((found.taus[0, 1] + found.taus[0, 2] + found.taus[1, 2]) / 3)


def test_wins_are_counted_image_by_image_within_a_protocol(scores: list[str], found: Stability) -> None:
    gaps = [stored_gaps(uri) for uri in scores]
    for (i, first), (j, second) in itertools.permutations(enumerate(found.methods), 2):
        wins = [float(own[first][image_id] > own[second][image_id]) for own in gaps for image_id in sorted(own[first])]
        assert len(wins) == 3 * 10
        assert found.wins[i, j] == pytest.approx(np.mean(wins))
        assert found.wins[i, j] + found.wins[j, i] == pytest.approx(1)
    assert np.isnan(np.diag(found.wins)).all()
    assert found.overall == pytest.approx(np.nanmean(found.wins, axis=1))


@pytest.mark.parametrize("measure", RANKINGS)
def test_every_measure_ranks_a_good_map_over_noise(scores: list[str], measure: RankedBy) -> None:
    found = compare(scores[:2], measure=measure)
    assert found.methods.index("mal_grad_cam") < found.methods.index("random")
    i, j = found.methods.index("mal_grad_cam"), found.methods.index("random")
    assert found.wins[i, j] > 0.7
    assert set(get_args(RankedBy)) == set(RANKINGS)


def page_of(found: Stability) -> tuple[str, list[Table], list[str]]:
    return found.title, tables(found), sentences(found)


def test_texts_hold_the_same_numbers(found: Stability) -> None:
    rows = list(csv.DictReader(io.StringIO(numbers(found).csv())))
    num, protocols = len(SKILLS), len(PROTOCOLS)
    assert len(rows) == num * protocols + protocols * (protocols - 1) + num * (num - 1)
    for row in rows[: num * protocols]:
        standing = found.standings[row["first"], row["second"]]
        assert (row["kind"], float(row["rank"])) == ("gap", standing.rank)
        assert float(row["value"]) == pytest.approx(standing.value.mean, rel=1e-4)
    for text in (console_page(*page_of(found)), markdown_page(*page_of(found))):
        assert f"{found.methods[0]} has the best mean rank" in text
        assert f"{found.taus[0, 2]:+.3f}" in text
        assert f"{found.wins[0, 1]:.1%}" in text
        assert all(name in text for name in found.protocols)


def test_the_command_prints_and_writes_both_tables(
    scores: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--scores", *scores, "--measure", "deletion_gain", "--table", str(tmp_path / "new" / "ranks.md")]
    assert main(["substrates", *given]) == 0
    assert "deletion_gain, higher is better" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"ranks.md", "ranks.csv"}


def test_a_method_without_any_score_comes_last(tmp_path: Path) -> None:
    uris = [
        make_world(tmp_path, num_images=3, num_errors=3, skills={"matt": 0.4, "random": 0.1}, name=name, **given).scores
        for name, given in {"a": {}, "b": {"protocol": Protocol(seed=1)}}.items()
    ]
    found = compare(uris)
    assert np.isnan(found.mean_tau)
    assert np.isnan(found.wins).all()
    assert "| matt | - | - |" in markdown_page(*page_of(found))
    assert "nan" not in numbers(found).csv()
    console_page(*page_of(found))


def test_one_method_alone_has_no_tau(tmp_path: Path) -> None:
    uris = [
        make_world(tmp_path, num_images=3, skills={"random": 0.1}, name=name, protocol=Protocol(seed=seed)).scores
        for seed, name in enumerate("ab")
    ]
    found = compare(uris)
    assert np.isnan(found.mean_tau)
    assert np.isnan(found.overall).all()
    assert "random has the best mean rank" in console_page(*page_of(found))


def test_less_than_two_protocols_are_refused(scores: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more"):
        compare(scores[:1])
    with pytest.raises(ValueError, match="two or more"):
        compare([])
    with pytest.raises(ValueError, match="same protocol"):
        compare(
            [scores[0], make_world(tmp_path, num_images=12, num_errors=2, skills=SKILLS, protocol=PROTOCOLS[0]).scores]
        )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"teacher_fingerprint": "another"}, "teachers"),
        ({"data_fingerprint": "another"}, "data sets"),
        ({"limit": 3}, "limits"),
        ({"num_images": 10}, "extent|maps"),
        ({"skills": {"random": 0.1}}, "maps"),
    ],
)
def test_scores_that_differ_in_more_are_refused(
    scores: list[str], tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    given = {"num_images": 12, "num_errors": 2, "skills": SKILLS, "protocol": Protocol(seed=1)} | change
    with pytest.raises(ValueError, match=f"differ in their protocol only.* different ({what})"):
        compare([scores[0], make_world(tmp_path, **given).scores])


def test_a_gain_needs_both_orders(tmp_path: Path) -> None:
    uris = [
        make_world(tmp_path, num_images=3, skills={"random": 0.1}, name=name, protocol=Protocol(seed=seed)).scores
        for seed, name in enumerate("ab")
    ]
    with pytest.raises(ValueError, match=r"deletion_gain needs .* --least-relevant"):
        compare(uris, measure="deletion_gain")


def test_a_table_of_another_kind_is_refused(scores: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["substrates", "--scores", *scores, "--table", "ranks.xlsx"]) == 2
    assert ".md or .csv" in capsys.readouterr().err
