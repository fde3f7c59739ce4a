"""Models, states and descriptions of an enemy: an error, no crash, no code that runs, little memory."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import distill.student.model
from cluster.errors import WorkError
from cluster.storage import Folder
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from distill.teachers.teacher_toml import MAX_SIDE_PX, Description, read_description
from distill.teachers.tools.export import export_onnx
from distill.training.trainer import STATE_FILE, Trainer

GOOD = {"input_size": "[8, 6]", "mean": "[0.5, 0.5, 0.5]", "std": "[0.2, 0.2, 0.2]", "output": '"logits"'}


def error_of(read: Callable[[], object]) -> str | None:
    """Say what was raised, of what a command shows as one line; None where nothing was."""
    try:
        read()
    except (ValueError, FileNotFoundError, WorkError) as error:
        return str(error)
    return None


def changed(rng: random.Random, good: bytes, reach: int | None = None) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(reach or len(data))] = rng.randrange(256)
    return bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])


# --- teacher.toml


def described(folder: Path, text: str) -> Callable[[], object]:
    (folder / "model.onnx").touch()
    (folder / "teacher.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    return lambda: read_description(folder / "model.onnx")


def toml(**fields: str) -> str:
    return "".join(f"{name} = {value}\n" for name, value in (GOOD | fields).items())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input_size": "[100000, 100000]"}, f"1 to {MAX_SIDE_PX} each"),
        ({"input_size": f"[{10**400}, 1]"}, "input_size"),
        ({"input_size": "[true, true]"}, "input_size"),
        ({"input_size": "{a = 1}"}, "input_size"),
        ({"mean": f"[{10**400}, 0, 0]"}, "mean"),
        ({"mean": "[nan, 0, 0]"}, "mean"),
        ({"std": "[1e-999, 1, 1]"}, "std"),
        ({"std": "[inf, 1, 1]"}, "std"),
        ({"classes": "5"}, "classes"),
        ({"classes": '"abc"'}, "classes"),
        ({"classes": "[[]]"}, "classes"),
        ({"output": "[]"}, "output"),
        ({"engine": "{}"}, "engine"),
        ({"engine": '"/tmp/evil.so"'}, "engine"),
        ({"classes": "[" * 100_000}, "not TOML"),
        ({"code": '"import os"'}, "unknown fields"),
    ],
)
def test_descriptions_that_no_teacher_can_have_are_refused(tmp_path: Path, fields: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        described(tmp_path, toml(**fields))()


def test_a_description_of_any_size_is_not_read(tmp_path: Path) -> None:
    read = described(tmp_path, toml())
    assert error_of(read) is None
    with (tmp_path / "teacher.toml").open("r+b") as file:
        file.truncate(2**34)  # a hole, which takes no room on the disk
    assert "bytes; allowed:" in str(error_of(read))


def test_changed_descriptions_are_an_error_or_another_one(tmp_path: Path) -> None:
    rng, good = random.Random(0), toml(classes='["a", "b"]').encode()  # noqa: S311 - repeatable damage
    texts = [changed(rng, good).decode("utf-8", "surrogateescape") for _ in range(500)]
    errors = [error_of(described(tmp_path, text)) for text in texts]
    assert 200 < sum(error is not None for error in errors) < 500


# --- ONNX and torch.export


class Net(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def test_changed_onnx_files_are_an_error_or_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    description = Description(input_size=(8, 6), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), output="logits")
    path = Path(export_onnx(Net(), tmp_path, description))
    described = tmp_path / "teacher.toml"
    described.write_text(described.read_text().replace('"auto"', '"onnxruntime"', 1))
    rng, good = random.Random(0), path.read_bytes()  # noqa: S311 - repeatable damage
    errors = []
    for _ in range(150):
        path.write_bytes(changed(rng, good))
        errors.append(error_of(lambda: load_teacher(f"onnx:{path}", num_threads=1)))
    assert 50 < sum(error is not None for error in errors) < 150


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 6),))
    torch.export.save(program, tmp_path / "plain.pt2")
    described(tmp_path, toml())()
    packed = zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt2") as old, packed as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        new.writestr("plain/extra/bomb", bytes(2**27))
    assert (tmp_path / "model.pt2").stat().st_size < 2**19
    assert error_of(lambda: load_teacher(f"torch:{tmp_path / 'plain.pt2'}")) is None
    with pytest.raises(ValueError, match="it is packed"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


# --- students


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    view: dict[str, Any] = {"input_size": (64, 48), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    made = Student(model=ResCBAM(18, 3).eval(), teacher="onnx:x.onnx", teacher_fingerprint="abc", **view)
    save_student(Folder(str(tmp_path)), made)
    return tmp_path


@pytest.mark.parametrize(
    "description",
    [
        {"num_classes": 10**9},
        {"num_classes": "3"},
        {"num_classes": -1},
        {"depth": [18]},
        {"depth": 10**6},
        {"input_size": [10**6, 10**6]},
        {"input_size": 64},
        {"mean": [1e300, 0, 0]},
        {"std": [0, 1, 1]},
        {"std": "abc"},
        {"class_names": 5},
        {"class_names": [{}]},
        {"fingerprint": None},
        {"format_version": 2},
        {"format_version": []},
        {"model": "evil"},
        {"__class__": "evil"},
    ],
)
def test_students_that_cannot_be_are_refused_before_a_network_is_made(
    run: Path, description: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Folder(str(run)).read_json("student.json")
    Folder(str(run)).write_json("student.json", kept | description)
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(
        distill.student.model, "ResCBAM", lambda depth, num: made.append((depth, num)) or ResCBAM(depth, num)
    )
    with pytest.raises(ValueError, match=f"the student in {run} "):
        load_student(str(run))
    assert all(num == 3 for _, num in made)


@pytest.mark.parametrize("text", ["[]", "5", '"x"', "null", "[" * 100_000, "", '{"depth": 18}', "\xff\xfe"])
def test_descriptions_of_a_student_that_are_none_are_refused(run: Path, text: str) -> None:
    (run / "student.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"the student in {run} cannot be read"):
        load_student(str(run))


def test_changed_weights_are_an_error(run: Path) -> None:
    path, rng = run / "student.safetensors", random.Random(0)  # noqa: S311 - repeatable damage
    good = path.read_bytes()
    for _ in range(60):
        path.write_bytes(changed(rng, good, reach=8000))  # the header, whose tensors' places and sizes are trusted
        assert f"the student in {run} " in str(error_of(lambda: load_student(str(run))))


def test_weights_of_other_names_and_sizes_are_an_error(run: Path) -> None:
    path = run / "student.safetensors"
    tensors = load(path.read_bytes())
    for changes in ({"evil": torch.zeros(1)}, {"conv1.weight": torch.zeros(1)}, {"fc.bias": torch.zeros(10**6)}):
        path.write_bytes(save(tensors | changes))
        with pytest.raises(ValueError, match=f"the student in {run} cannot be read"):
            load_student(str(run))


# --- the state of a training


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def restored(folder: Path) -> Callable[[], object]:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    worker: Any = SimpleNamespace(network=network, optimizer=optimizer, accelerator=SimpleNamespace(device="cpu"))
    return lambda: Trainer.restore(worker, folder)


def state() -> dict[str, Any]:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return {"network": network.state_dict(), "optimiser": optimizer.state_dict(), "epoch": 1, "step": 2}


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / STATE_FILE)
    assert error_of(restored(tmp_path)) is None
    for legacy in (False, True):
        torch.save(
            state() | {"step": Evil(tmp_path / "marker")},
            tmp_path / STATE_FILE,
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(WorkError, match=r"read: (it holds more than tensors|File is not a zip file); delete"):
            restored(tmp_path)()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "changes",
    [{"network": {}}, {"network": 5}, {"optimiser": {"state": {}, "param_groups": []}}, {"epoch": "x"}, {"step": None}],
)
def test_a_state_of_another_training_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.save(state() | changes, tmp_path / STATE_FILE)
    with pytest.raises(WorkError, match="cannot be read"):
        restored(tmp_path)()


def test_changed_states_are_an_error_or_other_values(tmp_path: Path) -> None:
    path, rng = tmp_path / STATE_FILE, random.Random(0)  # noqa: S311 - repeatable damage
    torch.save(state(), path)
    good = path.read_bytes()
    errors = 0
    for _ in range(300):
        path.write_bytes(changed(rng, good))
        errors += error_of(restored(tmp_path)) is not None
    assert errors > 100
    path.write_bytes(good)
    with zipfile.ZipFile(path) as old:
        records = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry, content in records.items():
            new.writestr(entry, content)
    with pytest.raises(WorkError, match="it is packed"):
        restored(tmp_path)()
