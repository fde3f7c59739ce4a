"""Where a read-out lies: beside the student that it was fitted to, as safetensors and a JSON description."""

import hashlib
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cluster.storage import Folder
from distill.student import checkpoint as students
from distill.student.checkpoint import load_student
from distill.student.model import ResCBAM, Student
from explain.readout.network import LAYERS, ReadOut, require_readout

WEIGHTS_FILE = "readout.safetensors"
DESCRIPTION_FILE = "readout.json"
FORMAT_VERSION = 1


def new_readout(model: ResCBAM) -> ReadOut:
    """Make a read-out for a student, its weights drawn from torch's global generator."""
    num_attention = sum(name.rpartition(".")[2] == "cbam" for name, _ in model.named_modules())
    layers = [list(model.get_submodule(layer).children()) for layer in LAYERS]
    return ReadOut(num_attention, tuple(int(blocks[-1].channels_out) for blocks in layers))  # pyright: ignore[reportArgumentType]


def save_readout(run: str, head: ReadOut, student: Student, about: Mapping[str, Any]) -> str:
    """Write a read-out into its student's folder, the description last; return its fingerprint."""
    weights = save_tensors({name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()})
    fingerprint = hashlib.sha256(weights).hexdigest()[:12]
    folder = Folder(run)
    folder.write_bytes(WEIGHTS_FILE, weights)
    description = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "student_fingerprint": student.fingerprint,
        "width": head.width,
        **about,
    }
    folder.write_json(DESCRIPTION_FILE, description)
    return fingerprint


def load_explained(run: str, device: str = "cpu") -> Student:
    """Load a student, with its read-out as the network's module `readout` where one was fitted to it.

    Raises:
        FileNotFoundError: RUN holds no student.
        ValueError: a file is damaged, of another format, or the read-out was fitted to another student.
    """
    student, folder = load_student(run, device=device), Folder(run)
    if folder.exists(DESCRIPTION_FILE):
        student.model.add_module("readout", _load(folder, student).to(device).eval().requires_grad_(False))
    return student


def student_files(student: Student) -> tuple[str, ...]:
    """List the files in a student's folder that it is loaded from."""
    own_files = (students.WEIGHTS_FILE, students.DESCRIPTION_FILE)
    return (*own_files, WEIGHTS_FILE, DESCRIPTION_FILE) if hasattr(student.model, "readout") else own_files


def readout_of(student: Student) -> ReadOut:
    """Return a student's read-out. Raises: ValueError where none was fitted to it."""
    return require_readout(student.model)


def _load(folder: Folder, student: Student) -> ReadOut:
    weights = folder.read_bytes(WEIGHTS_FILE)
    try:
        description, tensors = folder.read_json(DESCRIPTION_FILE), load_tensors(weights)
        version, fingerprint = description["format_version"], description["fingerprint"]
        fitted_to, width = description["student_fingerprint"], int(description["width"])
        if width != tensors["last.weight"].shape[1]:  # before a network of any size is made
            raise ValueError(f"it is said to have {width} channels, and has {tensors['last.weight'].shape[1]}")
        fresh = new_readout(student.model)
        head = ReadOut(fresh.num_attention, fresh.channels, width=width)
        head.load_state_dict(tensors)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the read-out in {folder.uri} cannot be read ({error}); fit it again (python -m explain fit)"
        ) from error
    if version != FORMAT_VERSION or fingerprint != hashlib.sha256(weights).hexdigest()[:12]:
        raise ValueError(f"the read-out in {folder.uri} has format {version} or weights that do not fit; fit it again")
    if fitted_to != student.fingerprint:
        raise ValueError(
            f"the read-out in {folder.uri} was fitted to student {fitted_to}, not {student.fingerprint}; fit it again"
        )
    head.fingerprint = fingerprint
    return head
