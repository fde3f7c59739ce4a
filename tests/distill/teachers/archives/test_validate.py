"""Archives that bring code, or more bytes than they have: refused before anything is loaded."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
from linear_teacher import NUM_CLASSES, SIZE, TinyNet
from teacher_files import write_toml

from distill.teachers import load_teacher


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    torch.save({"model": Evil(marker)}, path)
    write_toml(tmp_path)
    with pytest.raises(ValueError, match=r"is refused: .*pickled or compiled code is never loaded"):
        load_teacher(f"torch:{path}")
    torch.save({"model": Evil(marker)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"is refused: it is not a torch.export archive"):
        load_teacher(f"torch:{path}")
    assert not marker.exists()


def pickled(marker: Path) -> bytes:

    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer)
    return buffer.getvalue()


def rewrite(source: Path, target: Path, changes: dict[str, bytes]) -> None:
    """Write an archive again with some records replaced or added; "/name" lies outside of its root folder."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        records = {entry.split("/", 1)[1]: old.read(entry) for entry in old.namelist()}
        for record, content in (records | changes).items():
            new.writestr(record[1:] if record.startswith("/") else f"model/{record}", content)


def edited(source: Path, record: str, old: str, new: str) -> dict[str, bytes]:
    text = torch._C.PyTorchFileReader(str(source)).get_record(record).decode()
    assert old in text
    return {record: text.replace(old, new).encode()}


def evil_changes(name: str, source: Path, marker: Path) -> dict[str, bytes]:
    graph, weights = "models/model.json", "data/weights/model_weights_config.json"
    touch = f"__import__('pathlib').Path('{marker}').touch()"
    return {
        "sample inputs": {"data/sample_inputs/model.pt": pickled(marker)},
        "legacy weights": {"data/weights/model.pt": pickled(marker)},
        "pickled weight": edited(source, weights, '"use_pickle": false', '"use_pickle": true')
        | {"data/weights/weight_0": pickled(marker)},
        "old layout": {"/version": b"8.20", "/serialized_state_dict.pt": pickled(marker)},
        "compiled library": {"data/aotinductor/model/model.so": b"ELF"},
        "function": edited(source, graph, "torch.ops.aten.linear.default", "torch.os.system"),
        "file operator": edited(source, graph, "torch.ops.aten.linear.default", "torch.ops.aten.from_file.default"),
        "expression": edited(source, graph, "Symbol('s", f"{touch} or Symbol('s"),
        "name": edited(source, graph, '"name": "pixels"', f'"name": "pixels=[{touch}]"'),
        "guard": edited(source, graph, '"guards_code": []', f'"guards_code": ["{touch}"]'),
        "no json": {graph: b"{"},
    }[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sample inputs", "its data/sample_inputs/model.pt is a pickle of more than tensors"),
        ("legacy weights", "its data/weights/model.pt is a pickle of more than tensors"),
        ("pickled weight", "use_pickle"),
        ("compiled library", r"it holds \['data/aotinductor/model/model.so'\]"),
        ("old layout", "it is not a torch.export archive"),
        ("function", "target 'torch.os.system'"),
        ("file operator", "target 'torch.ops.aten.from_file.default'"),
        ("expression", r"expr_str .__import__"),
        ("name", r"name .pixels=\[__import__"),
        ("guard", "it brings guard code of its own"),
        ("no json", "is not JSON"),
    ],
)
def test_an_archive_that_brings_code_is_refused(name: str, reason: str, archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    write_toml(tmp_path)
    rewrite(archive, tmp_path / "model.pt2", evil_changes(name, archive, marker))
    with pytest.raises(ValueError, match=f"is refused: .*{reason}"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    assert not marker.exists()


def test_an_archive_that_is_only_written_again_still_loads(archive: Path, tmp_path: Path) -> None:
    write_toml(tmp_path)
    rewrite(archive, tmp_path / "model.pt2", {})
    assert load_teacher(f"torch:{tmp_path / 'model.pt2'}").num_classes == NUM_CLASSES


def test_an_archive_in_training_mode_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(TinyNet().train(), (torch.zeros(2, 3, *SIZE),))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path)
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def overlapping(source: Path, target: Path, *, names: int) -> None:
    """Write an archive whose entries in `extra/` all lie in the same bytes: each header names those of the last."""
    with zipfile.ZipFile(target, "w") as new, zipfile.ZipFile(source) as old:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("model/extra/bomb", bytes(2**20))
    with zipfile.ZipFile(target, "a") as new:
        bomb = new.infolist()[-1]
        for k in range(names):
            copy = zipfile.ZipInfo(f"model/extra/bomb{k}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(copy, field, getattr(bomb, field))
            new.filelist.append(copy)
            new.NameToInfo[copy.filename] = copy
        setattr(new, "_didModify", True)  # noqa: B010 - it is zipfile's own


def test_entries_in_the_bytes_of_others_are_refused(archive: Path, tmp_path: Path) -> None:
    write_toml(tmp_path)
    overlapping(archive, tmp_path / "model.pt2", names=0)
    assert load_teacher(f"torch:{tmp_path / 'model.pt2'}").num_classes == NUM_CLASSES
    overlapping(archive, tmp_path / "model.pt2", names=50)
    with pytest.raises(ValueError, match="lies in the bytes of another entry"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def test_two_entries_of_one_name_are_refused(archive: Path, tmp_path: Path) -> None:
    write_toml(tmp_path)
    rewrite(archive, tmp_path / "model.pt2", {})
    with zipfile.ZipFile(tmp_path / "model.pt2", "a") as new, pytest.warns(UserWarning, match="Duplicate name"):
        new.writestr("model/models/model.json", b"{}")
    with pytest.raises(ValueError, match="is refused"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def test_an_archive_larger_than_any_is_not_read(tmp_path: Path) -> None:
    write_toml(tmp_path)
    (tmp_path / "model.pt2").touch()
    os.truncate(tmp_path / "model.pt2", 2**40)
    with pytest.raises(ValueError, match="allowed: 8589934592"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")
