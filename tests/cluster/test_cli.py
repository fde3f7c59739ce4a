"""The console script, and what command lines do with errors, control characters and Ctrl-C."""

import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from cluster import cli
from cluster.errors import WorkError, one_line, visible


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    "error", [ValueError("bad\n  input"), FileNotFoundError(2, "gone", "x"), WorkError("full"), MemoryError()]
)
def test_what_the_user_can_mend_is_one_line_and_status_2(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cli.VERBOSE, raising=False)
    assert cli.run(raising(error)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    for bug in (TypeError("x"), AssertionError("x"), KeyError("x")):
        with pytest.raises(type(bug)):
            cli.run(raising(bug))


def test_verbose_adds_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.VERBOSE, "1")
    assert cli.run(raising(ValueError("bad"))) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("\nerror: bad\n")


def test_verbose_is_an_option_of_every_command_but_not_of_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.VERBOSE, "")
    assert cli.take_verbose(["run", "--", "x", "--verbose"]) == ["run", "--", "x", "--verbose"]
    assert not cli.verbose()
    assert cli.take_verbose(["random", "--verbose", "--out", "x"]) == ["random", "--out", "x"]
    assert cli.verbose()


def test_the_next_step_can_be_copied_into_a_shell() -> None:
    line = cli.next_step("explain", "show", maps="a b", data="$x", student=None, out=cli.beside("a b/", "-pictures"))
    assert line == "next: python -m explain show --maps 'a b' --data '$x' --out 'a b-pictures'"


def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("place", ["/dev/full", "a pipe"])
def test_output_that_cannot_be_written_is_one_line_and_status_2(place: str) -> None:
    code = "import sys; from cluster import cli; sys.exit(cli.run(lambda: 'text' * 9999))"
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        with Path("/dev/full").open("w") as full:
            out = full if place == "/dev/full" else reader.stdin
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, check=False
            )
    assert done.returncode == 2
    assert re.fullmatch(r"error: \[Errno \d+\] .*\n", done.stderr)


def test_results_are_printed_or_are_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert [cli.run(lambda it=it: it) for it in ("done", None, 3)] == [0, 0, 3]
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202etxt.exe", "\ud800", "\x00", "\u2028", "\x7f"]
)
def test_control_characters_never_reach_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(raising(ValueError(f"no file {hostile}")))
    assert cli.main([hostile]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.isprintable(), line


def test_an_error_in_a_worker_is_what_the_worker_raised() -> None:
    inner = RayTaskError("f", "Traceback\n" * 90, ValueError("no class 7\nof 3"), "x", 1, "1.2.3.4")
    assert one_line(inner.as_instanceof_cause()) == "no class 7 of 3"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 10_000))) < 3100
    assert visible("na\u200dme ü") == "na\u200dme ü"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_script_calls_the_same_command_under_its_own_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/malgradcam", name, "--help"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    assert f"usage: malgradcam {name} " in capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert [cli.main(given) for given in ([], ["--help"], ["-h"], ["--version"], ["explian"])] == [0, 0, 0, 0, 2]
    out, err = capsys.readouterr()
    assert out.count("usage: malgradcam COMMAND") == 3
    assert err == "error: unknown command 'explian'; commands: distill, explain, evaluate, cluster\n"


def test_help_of_the_script_imports_none_of_the_commands() -> None:
    script = "import sys; from cluster import cli; cli.main(['--help']); assert 'tyro' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, 2**64, -(2**70)])
@pytest.mark.parametrize(
    "make", [lambda x: Settings(x=x), lambda x: Settings(several=(1, x)), lambda x: Settings(seed=x)]
)
def test_numbers_that_nothing_can_be_computed_with_are_refused(
    number: float, make: Callable[[float], "Settings"]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{number} is not allowed")):
        cli.checked(Outer(settings=make(number)))
    with pytest.raises(ValueError, match="seed -1 is not allowed"):
        cli.checked(Settings(seed=-1))
    assert cli.checked(Outer(settings=Settings())) == Outer(settings=Settings())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    x: float | None = None
    several: tuple[float, ...] = (2, 3.5)
    seed: float = 0
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    settings: Settings


PICTURE = ("explain", "image", "photo.jpg", "--teacher", "onnx:m")
TRAINING = ("distill", "folder", "--data", "d", "--teacher", "onnx:m", "--out", "o")


@pytest.mark.parametrize(
    "command",
    [
        *[(*PICTURE, *words) for words in (("--size", "0"), ("--size", "99999999"), ("--opacity", "nan"))],
        *[(*TRAINING, *words) for words in (("--lr", "nan"), ("--lr", "inf"), ("--momentum", "-1"), ("--seed", "-1"))],
        ("cluster", "upload", "/dev/zero"),
        ("cluster", "ui", "--port", "99999"),
    ],
)
def test_wrong_values_of_options_end_without_a_traceback(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    try:
        status: object = cli.main(command)
    except SystemExit as end:  # of the parser
        status = end.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err
