"""Options of `python -m explain METHOD`, as the command line shows them. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import tyro

from distill.teachers import split_spec
from explain.methods.registry import METHODS, Method

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Options]):
    """Explain job: maps of one data set by one method."""

    options: Annotated[Options, tyro.conf.arg(name="")]
    """The method's own options."""
    data: str
    """Folder or URI of images: with or without class folders, or a data set's official layout (for FGVC-Aircraft with
    #variant, #family or #manufacturer behind it)."""
    out: str
    """Folder or URI for the maps. The same command again continues where it stopped."""
    student: str | None = None
    """RUN folder of `python -m distill`; its network is what the CAM methods look into. Without it they look into the
    teacher, where that is a torchvision network or a torch.export archive."""
    teacher: str | None = None
    """The black box, KIND:WHERE, as onnx:model.onnx; must be the one that the student was distilled from."""
    ask: Literal["teacher", "student"] = "teacher"
    """Model that a query-based method queries. The student, as a surrogate of the black box, shows whether its maps are
    poor because it is unfaithful or because of how they are made; the class to explain stays the black box's."""
    target: str | None = None
    """Class to explain: teacher or student (their top-1 on the whole image), label, or a class index. Default:
    teacher where one is given, else student."""
    split: str | None = None
    """Part of the data set: train, val or test. Default: val, else test, else all."""
    limit: int | None = None
    """Number of images: the first ones in sorted order, which lie in the first class folders."""
    per_class: int | None = None
    """Number of images of each class: the first ones in sorted order."""
    seed: int = 0
    """Seed of random methods; an image's map depends on it and on the image's id alone."""
    engine: Literal["auto", "eager", "onnxruntime", "openvino"] = "auto"
    """Engine of a CAM method, or of a student that is queried, without a GPU: torch (eager) or an inference engine;
    maps are equal but for the last bits. auto measures which is fastest, once per machine and student, and takes eager
    for fewer than 256 images, or 4096 queries."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the student's passes. bfloat16 needs OpenVINO and a CPU with such units, is two to four times as
    fast, and changes maps a little; they are another configuration."""
    map_cells: int | None = None
    """Rows and columns of a stored map, float16: each cell is the mean rank of its pixels. 28 take 2 kB instead of 200
    and keep the AUC of both games; magnitudes are lost. Default: the map itself, float32."""
    num_workers: int | None = None
    """Number of workers. Default: one for each GPU, else one for every 4 cores."""
    max_queries: int | None = None
    """Start only if the job sends at most so many queries to the black box; their number is printed first."""
    batch_size: int = 64
    """Images that a worker holds at once, rounded up to eights. Changes no map: the student always gets 8 at a time."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is too small; give 1 or more")
        if self.map_cells is not None and self.map_cells < 2:
            raise ValueError(f"map_cells {self.map_cells} is too small; give 2 or more, such as 28")
        if self.max_queries is not None and self.max_queries < 0:
            raise ValueError(f"max_queries {self.max_queries} is too small; give 0 or more")

    def needs_readout(self, method: Method) -> bool:
        """Tell whether the job needs the student's read-out."""
        return method.needs_readout or getattr(self.options, "prior", "none") == "readout"

    def queries_student(self, method: Method) -> bool:
        """Tell whether the student is queried: as a surrogate of the black box, or for a prior."""
        return method.is_query_based and (self.ask == "student" or getattr(self.options, "prior", "none") == "student")

    def check(self, method: Method) -> None:
        """Check what can be checked before anything is loaded.

        Raises:
            ValueError: If the method needs a model that was not given, or for an unknown kind of teacher.
        """
        if method.explains == "student" and self.student is None and self.teacher is None:
            raise ValueError(f"method {method.name!r} looks into a student; give --student RUN (python -m distill)")
        if method.explains == "teacher" and self.teacher is None:
            raise ValueError(f"method {method.name!r} queries the black box; give --teacher KIND:WHERE")
        if self.target == "student" and method.is_query_based:
            raise ValueError(
                f"method {method.name!r} queries the black box; its --target is teacher, label, or a class index"
            )
        if self.ask == "student" and not method.is_query_based:
            asking = ", ".join(one.name for one in METHODS.values() if one.is_query_based)
            raise ValueError(f"method {method.name!r} sends no queries; leave out --ask, which is for {asking}")
        if self.ask == "student" and self.student is None:
            raise ValueError("--ask student needs the student; give --student RUN (python -m distill)")
        prior = getattr(self.options, "prior", "none")
        if prior != "none" and (self.student is None or self.ask == "student"):
            raise ValueError(f"--prior {prior} needs --student RUN (python -m distill), and --ask teacher")
        if method.needs_readout and self.student is None:
            raise ValueError(f"method {method.name!r} reads a student; give --student RUN (python -m distill)")
        if self.teacher is not None:
            split_spec(self.teacher)
