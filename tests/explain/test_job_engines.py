"""Which engine computes an explain job, and what is stored of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from explain_jobs import rows_of

import explain.job
import explain.targets
from cluster.storage import Folder
from explain.compiled.select import EAGER
from explain.job import explain as run
from explain.methods.registry import METHODS


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for module in (explain.job, explain.targets):
        monkeypatch.setattr(module, "SHARD_IMAGES", 5)


def test_an_engine_makes_the_jobs_maps(serial, job):
    pytest.importorskip("openvino")
    eager, asked = (job("ml_grad_cam", engine, engine=engine) for engine in ("eager", "openvino"))
    for one in (eager, asked):
        run("ml_grad_cam", one)
    for expected, found in zip(rows_of(eager.out), rows_of(asked.out), strict=True):
        same = ("image_id", "target", "error", "student_passes", "config_hash")
        assert {key: expected[key] for key in same} == {key: found[key] for key in same}
        if expected["error"] is None:
            np.testing.assert_allclose(found["saliency"], expected["saliency"], atol=1e-3)
    engines = [(Folder(one.out).finished() or {})["engine"] for one in (eager, asked)]
    assert engines == ["eager-float32", "openvino-float32"]


def test_a_graph_is_for_many_images_and_for_methods_that_are_one(serial, job, monkeypatch):
    chosen = []
    monkeypatch.setattr(explain.job, "select_engine", lambda *_, name: chosen.append(name) or EAGER)
    monkeypatch.setattr(explain.job, "GRAPH_IMAGES", 13)
    run("grad_cam", job("grad_cam", "few"))
    assert chosen == []
    monkeypatch.setattr(explain.job, "GRAPH_IMAGES", 12)
    run("grad_cam", job("grad_cam", "enough"))
    run("random", job("random", "control"))
    assert chosen == ["grad_cam"]
    with pytest.raises(ValueError, match=r"no static graph for --engine openvino; these are: mal_grad_cam"):
        run("random", job("random", "refused", engine="openvino"))
    assert not Path(job(out="refused").out).exists()


@pytest.mark.parametrize(
    ("name", "engine", "said"),
    [
        ("random", "auto", "is for the student's passes on a CPU"),
        ("rise", "auto", "is for the student's passes on a CPU"),
        ("ml_grad_cam", "eager", "with --engine eager"),
        ("score_cam", "openvino", "with --engine openvino"),
        ("ml_grad_cam", "auto", "needs OpenVINO"),
    ],
)
def test_low_precision_is_refused_where_nothing_computes_it(job, monkeypatch, name, engine, said):
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: False)
    with pytest.raises(ValueError, match=said):
        run(name, job(name, precision="bfloat16", engine=engine))


def test_low_precision_is_another_configuration(serial, job, monkeypatch):
    """Where a CPU has no such units OpenVINO computes in float32; the maps say all the same what was asked for."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: True)
    plain, low = job("matt", "plain"), job("matt", "low", precision="bfloat16")
    for one in (plain, low):
        run("matt", one)
    assert "precision" not in Folder(plain.out).config()
    assert Folder(low.out).config()["precision"] == "bfloat16"
    assert (Folder(low.out).finished() or {})["engine"] == "openvino-bfloat16"
    for expected, found in zip(rows_of(plain.out), rows_of(low.out), strict=True):
        if expected["error"] is None:
            assert np.corrcoef(expected["saliency"], found["saliency"])[0, 1] > 0.9


def test_a_student_that_is_asked_answers_from_an_engine(serial, job, monkeypatch, tmp_path):
    """In float32 but for the last bits; in bfloat16 it is other answers, which are kept apart."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: True)
    few = {"limit": 5, "options": METHODS["rise"].options(num_masks=32), "ask": "student"}
    eager, whole = (job("rise", engine, engine=engine, **few) for engine in ("eager", "openvino"))
    low = job("rise", "low", precision="bfloat16", **few)
    for one in (eager, whole, low):
        for folder in tmp_path.glob("answers-rise-*" if one is whole else "nothing"):
            shutil.rmtree(folder)  # torch's answers of the same questions
        run("rise", one)
    engines = [(Folder(one.out).finished() or {})["engine"] for one in (eager, whole, low)]
    assert engines == ["eager-float32", "openvino-float32", "openvino-bfloat16"]
    assert len(list(tmp_path.glob("answers-rise-*"))) == 2
    for expected, found, near in zip(rows_of(eager.out), rows_of(whole.out), rows_of(low.out), strict=True):
        if expected["error"] is None:
            assert np.allclose(found["saliency"], expected["saliency"], atol=1e-5)
            assert np.allclose(near["saliency"], expected["saliency"], atol=0.05)
            assert found["student_passes"] == near["student_passes"] == 32


@pytest.mark.parametrize(
    ("ask", "prior", "least", "chosen"),
    [
        ("student", "none", 17, []),
        ("student", "none", 16, ["logits"]),
        ("teacher", "student", 33, []),
        ("teacher", "student", 32, ["logits"]),
        ("teacher", "none", 1, []),
    ],
)
@pytest.mark.usefixtures("serial")
def test_an_engine_is_for_many_questions_to_a_student(*, job, monkeypatch, ask, prior, least, chosen):
    """Of two images; 8 questions each in the black box's place, 16 for a prior."""
    found = []
    monkeypatch.setattr(explain.job, "select_engine", lambda *_, name: found.append(name) or EAGER)
    monkeypatch.setattr(explain.job, "GRAPH_QUERIES", least)
    method = METHODS["gp_regression"].options(num_samples=8, prior=prior, prior_samples=16)
    run("gp_regression", job("gp_regression", limit=2, ask=ask, options=method))
    assert found == chosen
