"""`python -m explain image PHOTO --teacher TEACHER`: one picture of one photograph's map, in seconds, without Ray."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from distill.teachers import split_spec
from explain.pictures.config import check_picture

if TYPE_CHECKING:
    from explain.api import Maps


@dataclass(frozen=True, kw_only=True)
class ExplainImage:
    """Explain photographs with one method and write a picture of the maps; starts no Ray."""

    photographs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files."""
    teacher: str | None = None
    """The black box, KIND:WHERE, such as onnx:model.onnx."""
    student: str | None = None
    """RUN folder of `python -m distill`; methods that look into a network look into it."""
    method: str = "auto"
    """Method to explain with; auto takes the best one for a number of queries."""
    queries: int | None = None
    """Queries to the black box per image, for auto and for methods that query it. Default: the method's own, 200."""
    target: int | None = None
    """Index of the class to explain. Default: the predicted one."""
    out: str | None = None
    """PNG file for one picture of all, or a folder for one each. Default: PHOTO.map.png beside the first photograph."""
    opacity: float = 0.7
    """Share of the map's color where the map is highest, 0 to 1."""
    size: int = 448
    """Longer side of each picture in pixels."""
    columns: bool = False
    """Place the photographs beside each other, each over its map, instead of one per row."""
    seed: int = 0
    """Seed of random methods."""

    def __post_init__(self) -> None:
        if not self.photographs:
            raise ValueError("no photograph is given; give one or more image files")
        if self.teacher is None and self.student is None:
            raise ValueError("no model is given; give --teacher KIND:WHERE, --student RUN, or both")
        if self.teacher is not None:
            split_spec(self.teacher)
        check_picture(self)


def explain_image(config: ExplainImage) -> str:
    """Explain the photographs, write the picture, and return a line per photograph.

    Raises:
        ValueError, FileNotFoundError: as `explain.api.explain_images`.
    """
    import sys

    from explain.api import explain_images
    from explain.methods.registry import METHODS
    from explain.pictures.class_names import class_title

    budget = "queries" if config.method == "auto" else getattr(METHODS.get(config.method), "budget", None)
    if config.queries is not None and budget is None:
        raise ValueError(f"method {config.method!r} makes no queries; leave out --queries")
    options: dict[str, Any] = {} if config.queries is None else {str(budget): config.queries}
    shown = sys.stderr.isatty()

    def on_progress(done: int, queries: int) -> None:
        if shown:
            print(f"\r{done} of {len(config.photographs)} images, {queries} queries", end="", file=sys.stderr)

    maps = explain_images(
        config.photographs,
        config.method,
        teacher=config.teacher,
        student=config.student,
        target=config.target,
        seed=config.seed,
        on_progress=on_progress,
        **options,
    )
    if shown:
        print(file=sys.stderr)
    lines = [
        error or f"{class_title(maps.class_names, int(target))} ({prob:.2f}), {queries} queries, {seconds:.1f} s"
        for error, target, prob, queries, seconds in zip(
            maps.errors, maps.target, maps.target_prob, maps.queries, maps.seconds, strict=True
        )
    ]
    named = [f"{name}: {line}" for name, line in zip(maps.image_ids, lines, strict=True)]
    return "\n".join([*named, *(f"picture: {picture}" for picture in _write(maps, config))])


def _write(maps: "Maps", config: ExplainImage) -> list[Path]:
    """Write one picture of all photographs, or one each into a folder; return the files."""
    options: dict[str, Any] = {"long_side_px": config.size, "opacity": config.opacity}
    out = Path(config.out or f"{config.photographs[0]}.map.png")
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        maps.figure(columns=config.columns, **options).save(out)
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for k, name in enumerate(maps.image_ids):
        if maps.errors[k] is None:
            files.append(out / f"{name}.map.png")
            maps.row(k, **options).save(files[-1])
    return files
