"""Storage of a read-out: one safetensors file beside its student's, with the description in the file's metadata.

One file, which appears whole: a fit that is killed leaves the read-out of before, or the new one. `readout.json` says
the same for people; only a read-out of before version 0.2, whose weights have no description, is read with it. Its
fingerprint has 12 hex digits of the SHA-256, that of later ones all 64.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.errors import WorkError
from cluster.storage import Folder, same_fingerprint
from distill.student import checkpoint as students
from distill.student.checkpoint import load_student
from distill.student.model import ResCBAM, Student
from explain.readout.network import LAYERS, ReadOut, require_readout

WEIGHTS_FILE = "readout.safetensors"
DESCRIPTION_FILE = "readout.json"
DESCRIPTION_KEY = "description"
FORMAT_VERSION = 1


def new_readout(model: ResCBAM) -> ReadOut:
    """Make a read-out for a student, its weights drawn from torch's global generator."""
    num_attention = sum(name.rpartition(".")[2] == "cbam" for name, _ in model.named_modules())
    layers = [list(model.get_submodule(layer).children()) for layer in LAYERS]
    return ReadOut(num_attention, tuple(int(blocks[-1].channels_out) for blocks in layers))  # pyright: ignore[reportArgumentType]


def save_readout(run: str, head: ReadOut, student: Student, provenance: Mapping[str, Any]) -> str:
    """Write a read-out into its student's folder, in place of one that is there; return its fingerprint."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    fingerprint = _fingerprint(tensors)
    description = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "student_fingerprint": student.fingerprint,
        "width": head.width,
        **provenance,
    }
    folder = Folder(run)
    folder.write_bytes(WEIGHTS_FILE, save_tensors(tensors, {DESCRIPTION_KEY: json.dumps(description)}))
    folder.write_json(DESCRIPTION_FILE, description)
    return fingerprint


def has_readout(run: str) -> bool:
    """Tell whether a read-out was fitted to the student in a folder."""
    return Folder(run).exists(WEIGHTS_FILE)


def load_explained(
    run: str,
    device: str = "cpu",
    *,
    with_readout: bool = False,
    expected_fingerprint: str | None = None,
    expected_readout: str | None = None,
) -> Student:
    """Load a student, for methods that need it with its read-out as the network's module `readout`.

    Args:
        run: The student's folder.
        device: Where its passes are computed, "cpu" or "cuda".
        with_readout: Load the read-out too; no other method depends on it.
        expected_fingerprint: Fingerprint of the student that the job was checked with; None accepts any.
        expected_readout: Likewise of its read-out.

    Raises:
        FileNotFoundError: RUN holds no student.
        ValueError: A file is damaged or of another format; there is no read-out, or it was fitted to another student.
        WorkError: Student or read-out is not the expected one.
    """
    student = load_student(run, device=device)
    _check_fingerprint(f"student {run}", student.fingerprint, expected_fingerprint)
    if with_readout:
        folder = Folder(run)
        head = _load(folder, student) if folder.exists(WEIGHTS_FILE) else require_readout(student.model)
        _check_fingerprint(f"the read-out in {run}", head.fingerprint, expected_readout)
        student.model.add_module("readout", head.to(device).eval().requires_grad_(False))
    return student


def student_files(student: Student) -> tuple[str, ...]:
    """List the files in a student's folder that it is loaded from, its read-out included where it has been loaded."""
    own_files = (students.WEIGHTS_FILE, students.DESCRIPTION_FILE)
    return (*own_files, WEIGHTS_FILE, DESCRIPTION_FILE) if hasattr(student.model, "readout") else own_files


def readout_of(student: Student) -> ReadOut:
    """Return a student's read-out. Raises: ValueError where none was fitted to it."""
    return require_readout(student.model)


def _check_fingerprint(what: str, got: str, expected: str | None) -> None:
    if expected is not None and got != expected:
        raise WorkError(
            f"{what} has fingerprint {got}, but this job started with {expected}: its files were replaced since. Put "
            "the old ones back, or start the job again in a new folder"
        )


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(save_tensors(dict(tensors))).hexdigest()


def _description(data: bytes, folder: Folder) -> dict[str, Any]:
    """Read the description in the file's metadata; of a read-out of before version 0.2, the JSON file beside it."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return json.loads(metadata[DESCRIPTION_KEY]) if metadata else folder.read_json(DESCRIPTION_FILE)


def _load(folder: Folder, student: Student) -> ReadOut:
    weights = folder.read_bytes(WEIGHTS_FILE)
    try:
        tensors = load_tensors(weights)
        description = _description(weights, folder)
        version, fingerprint = description["format_version"], description["fingerprint"]
        fitted_to, width = description["student_fingerprint"], int(description["width"])
        if width != tensors["last.weight"].shape[1]:  # before a network of any size is made
            raise ValueError(f"it is said to have {width} channels, and has {tensors['last.weight'].shape[1]}")
        fresh = new_readout(student.model)
        head = ReadOut(fresh.num_attention, fresh.channels, width=width)
        head.load_state_dict(tensors)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"the read-out in {folder.uri} cannot be read ({error}); fit it again (python -m explain fit)"
        ) from error
    if version != FORMAT_VERSION or not same_fingerprint(str(fingerprint), _fingerprint(tensors)):
        raise ValueError(f"the read-out in {folder.uri} has format {version} or weights that do not fit; fit it again")
    if not same_fingerprint(str(fitted_to), student.fingerprint):
        raise ValueError(
            f"the read-out in {folder.uri} was fitted to student {fitted_to}, not {student.fingerprint}; fit it again"
        )
    head.fingerprint = fingerprint
    return head
