"""Storage of a student: its weights as safetensors and its description as JSON; nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cluster.storage import Folder, same_fingerprint
from distill.student.model import ResCBAM, Student
from distill.teachers.teacher_toml import Description

if TYPE_CHECKING:
    from distill.teachers import Teacher

WEIGHTS_FILE = "student.safetensors"
DESCRIPTION_FILE = "student.json"
FORMAT_VERSION = 1


def check_pair(run: str, student: Student, teacher: Teacher) -> None:
    """Refuse a student of another teacher. Raises: ValueError."""
    if not same_fingerprint(student.teacher_fingerprint, teacher.fingerprint):
        raise ValueError(
            f"student {run} was distilled from {student.teacher} ({student.teacher_fingerprint}), not from "
            f"{teacher.spec} ({teacher.fingerprint}); give its own teacher"
        )
    if student.num_classes != teacher.num_classes:
        raise ValueError(
            f"student {run} has {student.num_classes} classes, teacher {teacher.spec} "
            f"{teacher.num_classes}; give the teacher that it was distilled from"
        )


def save_student(folder: Folder, student: Student) -> Student:
    """Write a student's weights (safetensors), then its description (JSON); return it with its fingerprint."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in student.model.state_dict().items()}
    weights = save_tensors(tensors)
    description = {
        f.name: getattr(student, f.name) for f in dataclasses.fields(student) if f.name not in {"model", "fingerprint"}
    }
    description |= {
        "format_version": FORMAT_VERSION,
        "depth": student.depth,
        "num_classes": student.num_classes,
    }
    description["fingerprint"] = hashlib.sha256(weights).hexdigest()
    folder.write_bytes(WEIGHTS_FILE, weights)
    folder.write_json(DESCRIPTION_FILE, description)
    return dataclasses.replace(student, fingerprint=description["fingerprint"])


def load_student(run: str, device: str = "cpu") -> Student:
    """Load the student that `python -m distill ... --out RUN` left, ready to explain; nothing is unpickled.

    Raises:
        FileNotFoundError: RUN holds no student.
        ValueError: a file is damaged or of another format.
    """
    folder = Folder(run)
    if not folder.exists(DESCRIPTION_FILE):
        raise FileNotFoundError(
            f"{run} holds no student ({DESCRIPTION_FILE} is missing); "
            "give the --out folder of a finished `python -m distill RECIPE`"
        )
    weights = folder.read_bytes(WEIGHTS_FILE)
    fingerprint = hashlib.sha256(weights).hexdigest()
    try:
        description, tensors = folder.read_json(DESCRIPTION_FILE), load_tensors(weights)
        version, stored = description.pop("format_version"), str(description.pop("fingerprint"))
        depth, num_classes = description.pop("depth"), description.pop("num_classes")
        if len(tensors["fc.bias"]) != num_classes:  # before a network of any size is made
            raise ValueError(f"it is said to have {num_classes} classes, and has {len(tensors['fc.bias'])}")
        if broken := sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()):
            raise ValueError(f"weights are not finite: {', '.join(broken[:3])}")
        model = ResCBAM(depth, num_classes)
        model.load_state_dict(tensors)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items()}
        student = Student(model=model, fingerprint=fingerprint, **fields)
        Description(
            input_size=student.input_size,
            mean=student.mean,
            std=student.std,
            output="logits",
            classes=student.class_names,
        )
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the student in {run} cannot be read ({error}); distill again or copy the folder anew"
        ) from error
    if version != FORMAT_VERSION or not same_fingerprint(stored, fingerprint):
        raise ValueError(
            f"the student in {run} has format {version} and fingerprint {stored}, which do not fit this program "
            f"(format {FORMAT_VERSION}) or its weights; copy the folder anew"
        )
    model.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)  # pyright: ignore[reportCallIssue]
    return student
