"""Count how often the call path of an explain job enters and re-enters files: `python -m benchmarks.studies.call_path`.

The job explains two images by `mal_grad_cam`, targets from a black box, in this process and without Ray. Calls of the
project's own functions are recorded in their order. A *stay* is a maximal run of calls in one file; a *return* is a
stay in a file that was entered before. Two paths are counted: that of a reader, who follows each function where it is
called first, and that of every call.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import explain.job
import explain.targets
from cluster.sharded_job import Summary
from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from explain.config import Job
from explain.methods.registry import METHODS

ROOT = Path(__file__).parents[2]
PACKAGES = ("cluster", "distill", "explain")
METHOD, TEACHER, SIZE = "mal_grad_cam", "python:benchmarks.studies.call_path:make_teacher", (64, 48)


class Teacher:
    """A black box of two classes: dark and bright."""

    input_size, fingerprint = (40, 56), "brightness"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities (B, 2) for uint8 images (B, H, W, 3)."""
        bright = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1)


def make_teacher() -> Teacher:
    """Return the black box."""
    return Teacher()


def run_here(worker: Any, config: Any, shards: Sequence[Any], folder: Folder, **_: Any) -> Summary:
    """Compute shards in this process, as `run_shards` does on Ray."""
    compute = worker(config)
    for shard in shards:
        pq.write_table(compute(shard.items), f"{folder.path}/{shard.name}.parquet")
    rows = sum(shard.num_items for shard in shards)
    return Summary(rows, 0, 0, 0.0)


def make_inputs(root: Path) -> Job:
    """Write two images and an untrained student; return the job that explains them."""
    (root / "data").mkdir()
    for name, level in (("dark", 40), ("bright", 200)):
        Image.fromarray(np.full((50, 70, 3), level, dtype=np.uint8)).save(root / "data" / f"{name}.png")
    student = Student(
        model=ResCBAM(18, 2).eval().requires_grad_(False),
        input_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        teacher=TEACHER,
        teacher_fingerprint=load_teacher(TEACHER).fingerprint,
    )
    save_student(Folder(str(root / "student")), student)
    paths = {"data": str(root / "data"), "student": str(root / "student"), "out": str(root / "maps")}
    return Job(options=METHODS[METHOD].options(), teacher=TEACHER, num_workers=1, **paths)


def record_calls(job: Job) -> list[tuple[str, CodeType]]:
    """Run the job; return the file and code of each call of the project's own functions, in their order."""
    calls: list[tuple[str, CodeType]] = []
    importing = 0

    def on_event(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal importing
        path, at_import = frame.f_code.co_filename, frame.f_code.co_name == "<module>"
        if at_import:
            importing += {"call": 1, "return": -1}.get(event, 0)
        if event != "call" or at_import or importing or not path.startswith(str(ROOT)):
            return
        name = Path(path).relative_to(ROOT).as_posix()
        if name.startswith(PACKAGES):
            calls.append((name, frame.f_code))

    torch.set_num_threads(1)
    sys.setprofile(on_event)
    try:
        explain.job.explain(METHOD, job)
    finally:
        sys.setprofile(None)
    return calls


def count_stays(files: Sequence[str]) -> tuple[int, int]:
    """Count maximal runs in one file, and those of them in a file that was entered before."""
    stays = [name for i, name in enumerate(files) if i == 0 or files[i - 1] != name]
    return len(stays), len(stays) - len(set(stays))


def main() -> None:
    """Print stays and returns of both paths."""
    explain.job.run_shards = run_here
    if hasattr(explain.targets, "run_shards"):
        explain.targets.run_shards = run_here  # pyright: ignore[reportAttributeAccessIssue]
    explain.job.ray_session = nullcontext
    explain.job.worker_resources = lambda _: None  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as root:
        calls = record_calls(make_inputs(Path(root)))
    first = list(dict.fromkeys(calls))
    for title, path in (("first call of each function", first), ("every call", calls)):
        for packages in (("explain/",), PACKAGES):
            files = [name for name, _ in path if name.startswith(packages)]
            stays, returns = count_stays(files)
            print(f"{title}, in {' '.join(packages)}: {len(files)} calls, {stays} stays, {returns} of them returns")
    if "--path" in sys.argv:
        for name, code in first:
            print(f"  {name}:{code.co_name}")


if __name__ == "__main__":
    main()
