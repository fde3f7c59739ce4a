"""Folders of somebody else: what a report, tables and ranks make of damaged and hostile files in them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import make_world, write_metrics
from markdown_it import MarkdownIt
from report_pages import FakeTracker, report_of, text_of

import cluster.storage
from cluster.command_line import COMMAND, shell_lines, shell_place
from cluster.storage import CONFIG, Folder
from evaluate.__main__ import main
from evaluate.games.protocol import Protocol
from evaluate.games.reader import load_results
from evaluate.paper.scores import read_data_sets
from evaluate.report.html import render
from evaluate.report.texts import markdown
from evaluate.runs import RUNS_FILE

SKILLS = {"mal_grad_cam": 0.7, "rise": 0.4, "random": 0.1}
HOSTILE = "\x1b[31m<script>alert(1)</script>|`![a](http://host)\u202e"
DAMAGED = [
    b"", b"null", b"[7]", b"[" * 100_000, b"\xff\xfe{}", b'{"maps": 7, "protocol": 7, "measures": 7, "num_images": []}',
    b'{"n": ' + b"9" * 100_000 + b"}",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run with scores under two protocols and metrics."""
    root = tmp_path_factory.mktemp("made") / "run"
    world = make_world(root, num_images=4, skills=SKILLS)
    make_world(root, num_images=4, skills=SKILLS, name="scores2", protocol=Protocol(deletion_substrate="blur"))
    write_metrics(world, root / "metrics", ("energy", "fidelity"))
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path, tracker: list[FakeTracker]) -> Path:
    """Copy the run, and let its files name the copy."""
    shutil.copytree(made, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*.json"):
        path.write_text(path.read_text().replace(str(made), str(tmp_path / "run")))
    return tmp_path / "run"


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda run: [
        f"--scores={run}/scores", f"--measures={run}/metrics", f"--out={run}/r.html", f"--table={run}/t.md",
        "--num-gallery=1", "--no-photographs",
    ],
    "tables": lambda run: [f"--scores={run}/scores", f"--out={run}/paper", "--num-images=1"],
    "substrates": lambda run: ["--scores", f"{run}/scores", f"{run}/scores2"],
}  # fmt: skip


def outcome(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command; return its status, and its error, which is one plain line."""
    capsys.readouterr()
    status = main([name, *COMMANDS[name](run)])
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error
    assert "\u202e" not in out + error
    assert (status, error.count("\n")) in ((0, 0), (2, 1)), error
    return status, error


@pytest.mark.parametrize(
    ("file", "needed_by", "optional_for"),
    [
        (f"scores/{CONFIG}", ("report", "tables", "substrates"), ()),
        (f"metrics/{CONFIG}", ("report",), ()),
        ("scores/_manifest.json", ("tables",), ()),
        (f"scores/{RUNS_FILE}", ("report",), ()),
        (f"scores/{COMMAND}", (), ("report",)),
        ("run/student.json", ("tables",), ("report",)),
        ("run/similarity-aaaa.json", ("tables",), ("report",)),
    ],
)
def test_damaged_files_are_one_line_that_names_them_or_are_left_out(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, needed_by: Sequence[str], optional_for: Sequence[str]
) -> None:
    for data in [*DAMAGED, None]:
        (run / file).unlink(missing_ok=True)
        if data is None:
            os.mkfifo(run / file)
        else:
            (run / file).write_bytes(data)
        for name in needed_by:
            status, error = outcome(name, run, capsys)
            assert error.startswith("error: ") or status == 0
            assert str(run / Path(file).parent) in error or status == 0, error
            if data is not None and not data.startswith(b'{"maps"'):  # a pipe is no file there, any object a manifest
                assert status == 2, (file, data)
        for name in optional_for:
            assert outcome(name, run, capsys) == (0, "")


@pytest.mark.parametrize("file", ["scores/_config.json", "metrics/_config.json"])
def test_any_other_value_is_used_or_refused(run: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    stored = json.loads((run / file).read_text())
    for key in stored:
        for value in (-(10**400), HOSTILE):
            (run / file).write_text(json.dumps(stored | {key: value}))
            outcome("report", run, capsys)
            page = run / "r.html"
            if page.exists():
                assert "<script>alert" not in page.read_text()
                page.unlink()


def test_runs_that_are_no_names_are_refused(run: Path) -> None:
    (run / "scores" / RUNS_FILE).write_text('{"a/b": ["c"]}')
    assert main(["report", *COMMANDS["report"](run)]) == 2


@pytest.mark.parametrize(
    "stored",
    ["reference://x::http://host/r.json", "s3://bucket/x?endpoint_override=http://host", "/etc", "~/x", "http://h"],
)
def test_locations_in_files_are_not_opened_and_the_page_says_so(
    run: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((run / "scores" / CONFIG).read_text())
    for entry in config["maps"]:
        entry["uri"] = stored
        entry["config"] |= {"student": stored, "data": stored}
    (run / "scores" / CONFIG).write_text(json.dumps(config | {"data": stored, "student": stored}))
    opened = []
    monkeypatch.setattr(
        cluster.storage,
        "open_filesystem",
        lambda uri, real=cluster.storage.open_filesystem: (opened.append(uri), real(uri))[1],
    )
    monkeypatch.setattr("evaluate.scored_images.open_images", lambda *_, **__: pytest.fail("the images were opened"))
    found = report_of(str(run / "scores"))
    assert {Path(uri) for uri in opened} <= {run / "scores"}
    text = text_of(render(found, photographs=True, num_gallery=2))
    assert "The images are not shown" in text
    assert "Maps of 3 of 3 methods are not shown" in text
    assert "What is known of the student is left out" in text
    assert main(["tables", *COMMANDS["tables"](run)]) == 0
    assert all(Path(uri).is_relative_to(run) for uri in opened)


WORDS = [
    "games", "--x$(touch pwned)", "--y`touch pwned`=1", "--z;touch pwned", "a b", "'; touch pwned; '", "-n", "#",
    "--q=\"$HOME\"", "&& touch pwned", "new\\line", "~", "*", "!!", "",
]  # fmt: skip


@pytest.mark.parametrize("width", [1, 10_000])
def test_a_shell_takes_every_word_of_a_stored_command_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("cluster.command_line.MAX_CHARS", width)
    command = {"program": "evaluate", "arguments": WORDS, "folder": "/a'b; touch pwned", "revision": "x\ntouch pwned"}
    script = f"cd() {{ :; }}; python() {{ printf '%s\\0' \"$@\"; }}\n{shell_place(command)}\n{shell_lines(command)}\n"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == ["-m", "evaluate", *WORDS]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"program": "evaluate; rm"}, {"program": ["evaluate"]}, {"arguments": "x"}, {"arguments": [7]}, {"folder": None}],
)
def test_a_file_that_holds_no_command_shows_none(run: Path, change: dict[str, Any]) -> None:
    command = {"program": "evaluate", "arguments": ["games"], "folder": "/x"}
    Folder(str(run / "scores")).write_json(COMMAND, command | change)
    assert report_of(str(run / "scores")).commands == []


NAMES = [
    "![a](http://host/x.png)", "[a](http://host)", "<img src=x>", "a|b", "http://host/x", "<http://host>",
    "www.host.com", "&lt;b&gt;", "*a*", "_a_", "`a`", "~~a~~", "# a", "[a]: http://host", "[^1]", "a\\", "$a$", "@team",
    "<!-- a", "a\n\n# b",
]  # fmt: skip


def test_markdown_shows_every_name_as_it_is_and_nothing_else(tmp_path: Path) -> None:
    found = report_of(make_world(tmp_path, num_images=2, skills=dict.fromkeys(NAMES, 0.5) | SKILLS).scores)
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown(found))
    inline = [child for token in tokens for child in (token.children or ())]
    assert {child.type for child in inline} <= {"text", "softbreak", "text_special"}
    assert {token.type for token in tokens} & {"html_block", "code_block", "fence"} == set()
    cells = [token.content for token, before in zip(tokens[1:], tokens, strict=False) if before.type == "td_open"]
    shown = {"".join(c.content for c in t.children or ()) for t in tokens if t.type == "inline" and t.content in cells}
    assert {" ".join(name.split()) for name in NAMES} <= shown


def test_files_that_are_no_parts_stand_in_nobodys_way(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("scores", "metrics", "maps/rise"):
        for name in (
            "report.html",
            "Thumbs.db",
            ".DS_Store",
            "part-00000 (1).parquet",
            "part-00000.parquet.tmp",
            "x.parquet",
        ):
            (run / folder / name).write_bytes(b"stray")
        (run / folder / "notes").mkdir()
    for name in COMMANDS:
        assert outcome(name, run, capsys) == (0, "")


@pytest.mark.parametrize("folder", ["scores", "metrics"])
@pytest.mark.parametrize("length", [0, 4, -100])
def test_a_truncated_part_is_named(run: Path, capsys: pytest.CaptureFixture[str], folder: str, length: int) -> None:
    part = max((run / folder).glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:length])
    status, error = outcome("report", run, capsys)
    assert status == 2
    assert f"{part} cannot be read as Parquet" in error
    assert "move it away" in error


def change_scores(run: Path, **columns: Callable[[Any], Any]) -> None:
    part = run / "scores" / "part-00000.parquet"
    table = pq.read_table(part)
    for name, change in columns.items():
        values = pa.array([change(value) for value in table[name].to_pylist()], table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
    pq.write_table(table, part)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"curve": lambda curve: curve[:-1]}, "curves of 40 and 41 points"),
        ({"curve": lambda curve: curve[: 20 + int(1e6 * curve[0]) % 3]}, "curves of 2. and"),
        ({"curve": lambda curve: curve[:1]}, "curves of 1 points"),
        ({"curve": lambda _: []}, "curves of 0 points"),
        ({"curve": lambda curve: [None, *curve[1:]]}, "curves with unknown points"),
        ({"curve": lambda curve: [float("nan"), *curve[1:]]}, "curves with unknown points"),
        ({"curve": lambda curve: [7.5, *curve[1:]]}, r"curves from 0\.\d* to 7\.5; allowed: 0 to 1"),
        ({"auc": lambda _: float("inf")}, r"AUCs from .* to inf; allowed: 0 to 1"),
        ({"auc": lambda auc: -auc}, r"AUCs from -0\.\d* to"),
        ({"config_hash": lambda _: "x"}, "scores are of maps that the folder's configuration does not name"),
    ],
)
def test_scores_that_can_be_none_are_refused(run: Path, columns: dict[str, Any], message: str) -> None:
    change_scores(run, **columns)
    with pytest.raises(ValueError, match=message):
        load_results([str(run / "scores")])
    with pytest.raises(ValueError, match=message):
        read_data_sets([str(run / "scores")])


def test_metrics_of_maps_that_are_not_named_are_refused(run: Path) -> None:
    config = json.loads((run / "metrics" / CONFIG).read_text())
    (run / "metrics" / CONFIG).write_text(json.dumps(config | {"maps": config["maps"][1:]}))
    with pytest.raises(ValueError, match="metrics of maps that its configuration does not name"):
        report_of(str(run / "scores"), measures=(str(run / "metrics"),))


def test_a_class_below_zero_has_no_name(run: Path) -> None:
    change_scores(run, label=lambda _: -1, target=lambda _: -1)
    text = text_of(render(report_of(str(run / "scores")), photographs=False, num_gallery=4))
    assert "class -1" in text


@pytest.mark.parametrize("value", [-(10**400), 1.5, -0.1])
def test_an_agreement_outside_of_0_to_1_is_left_out(run: Path, value: float) -> None:
    student = Folder(str(run / "run"))
    measured = student.read_json("similarity-aaaa.json")
    student.write_json("similarity-aaaa.json", measured | {"sim1": {"mean": value, "low": 0.1, "high": 0.2}})
    found = report_of(str(run / "scores"))
    assert "similarity-aaaa.json has sim1 outside of 0 to 1" in found.student.problem
    assert render(found, photographs=False, num_gallery=0)
