"""Which method `python -m explain auto` takes at a budget."""

import pytest

from explain.__main__ import main, parse
from explain.auto import AutoOptions, resolve


def job(*words):
    return parse(["auto", "--data", "d", "--out", "o", *words])[1]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "readout.safetensors").write_bytes(b"")
    return str(tmp_path)


def test_no_questions_are_the_read_out_or_the_papers_map(run):
    assert resolve(job("--student", run))[0] == "readout"
    assert resolve(job("--student", run, "--teacher", "onnx:x", "--queries", "0"))[0] == "readout"
    assert resolve(job("--student", "elsewhere"))[0] == "mal_grad_cam"


def test_questions_are_a_regression_that_starts_from_the_read_out_where_there_is_one(run):
    name, found = resolve(job("--student", run, "--teacher", "onnx:x"))
    assert (name, found.options.num_samples, found.options.prior) == ("gp_regression", 200, "readout")
    assert (found.data, found.out, found.student, found.teacher) == ("d", "o", run, "onnx:x")
    _, found = resolve(job("--teacher", "onnx:x", "--queries", "50"))
    assert (found.options.num_samples, found.options.prior) == (50, "none")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--queries", "50", "--student", "s"), "give --teacher"),
        (("--teacher", "onnx:x", "--queries", "0"), "give --student"),
        (("--teacher", "onnx:x", "--queries", "7"), "8 or more"),
    ],
)
def test_budgets_that_cannot_be_had_are_refused(words, said, capsys):
    assert main(["auto", "--data", "d", "--out", "o", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="queries -1"):
        AutoOptions(queries=-1)
