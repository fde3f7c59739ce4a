"""The student as the metrics ask it: to make a map anew, or for its answers; and whether it is the maps' student.

It is asked as `explain` asks it, so many images a pass and each pass on one thread: the same bits in any job.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cluster.storage import same_fingerprint
from distill.student.checkpoint import check_pair, load_student
from distill.student.model import Student
from evaluate.map_sets import Source
from evaluate.metrics.settings import Metric
from explain.methods.registry import METHODS
from explain.runners.white_box import Explainer, Request, explainer_of

if TYPE_CHECKING:
    from distill.teachers import Teacher

OF_STUDENT: tuple[Metric, ...] = ("max_sensitivity", "fidelity")
"""The metrics that ask the student."""


def check_student(run: str | None, sources: Sequence[Source], teacher: "Teacher", metrics: Sequence[str]) -> str:
    """Return the student's fingerprint.

    Args:
        run: the student's folder.
        sources: the maps.
        teacher: the black box.
        measures: those that ask the student.

    Raises:
        ValueError: there is no student, it is not what the maps explain, or fidelity is to another black box.
    """
    names = ", ".join(metrics)
    if run is None:
        raise ValueError(f"the student is asked for {names}; give --student RUN, or leave it out of --measures")
    student = load_student(run)
    explained = [source for source in sources if explains_student(source)]
    if not explained:
        raise ValueError(f"{names}: none of the maps is of a method that explains a student; leave it out")
    for source in explained:
        made_by = source.config["student_fingerprint"]
        if not same_fingerprint(made_by, student.fingerprint):
            raise ValueError(
                f"the maps in {source.uri} explain student {source.config['student']} ({made_by}), not --student "
                f"{run} ({student.fingerprint}); give that student"
            )
    if "fidelity" in metrics:
        check_pair(run, student, teacher)
    return student.fingerprint


def explains_student(source: Source) -> bool:
    """Tell whether the maps are of a registered method that looked into the student, and not into the teacher."""
    if source.method not in METHODS:
        return False
    return source.config.get("explains", METHODS[source.method].explains) == "student"


def applies_to(source: Source, metric: Metric) -> bool:
    """Tell whether a metric says something of these maps: what asks the student, only of a pass over the student."""
    return metric not in OF_STUDENT or (explains_student(source) and not METHODS[source.method].is_query_based)


def make_explainer(source: Source, student: Student | None) -> Explainer | None:
    """Load what made a source's maps; None where no metric makes one anew."""
    if student is None or not applies_to(source, "max_sensitivity"):
        return None
    method = METHODS[source.method]
    return explainer_of(method, student, method.read_options(source.config["options"]))


def explain_frames(explainer: Explainer, target: int, seed: int, frames: np.ndarray) -> np.ndarray:
    """Explain frames (N, H, W, 3) in units of [0, 1], all for one class and with one seed; return (N, h, w)."""
    requests = [Request(frame=frame * np.float32(255), target=target, seed=seed) for frame in frames]
    return np.stack([answer.saliency for answer in explainer(requests) if answer is not None])
