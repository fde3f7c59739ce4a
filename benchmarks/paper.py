"""Drive the paper's experiments: black box, student, Sim N, maps and scores of every method, tables, in this order.

    python -m cluster run -- python -m benchmarks.paper cars_40 --data ../shared/data

Each stage is one of the project's own commands, printed before it runs. What is whole is not made again, what was
stopped goes on, and `--status` says how far everything is. A data set's results lie in folders of its own:
`OUT/NAME/teacher`, `student`, `maps/METHOD`, `scores/METHOD`, `tables`.
"""

from __future__ import annotations

import functools
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from cluster.shards import part_counts
from cluster.storage import MANIFEST, Folder, config_hash
from distill.images import open_images
from evaluate.protocol import GAMES
from explain.options import LimeOptions, RiseOptions
from explain.registry import METHODS

Execute = Callable[[Sequence[str]], int]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What the chain needs to know of a data set, whose name is that of its recipes."""

    folder: str
    """Its folder inside `--data`, with the kind of labels where it has several."""
    teacher: str | None = None
    """A black box that is there already."""
    network: str | None = None
    """Else the network that is fine-tuned into one; with neither, EfficientNet-Lite0 as it comes."""
    init: str | None = None
    """The data set whose student its own starts from."""
    row: str | None = None
    """The paper's row that it stands beside, where that has another name."""


RESNET = "torchvision:resnet50"
FINE_GRAINED = {
    "cub": "cub",
    "cars": "cars",
    "aircraft-variant": "aircraft#variant",
    "aircraft-family": "aircraft#family",
    "aircraft-manufacturer": "aircraft#manufacturer",
}
PAPER = {
    "imagenet": DataSet(folder="imagenet", teacher=RESNET),
    **{name: DataSet(folder=folder, network=RESNET, init="imagenet") for name, folder in FINE_GRAINED.items()},
}
DATA_SETS = PAPER | {
    "imagenette": DataSet(folder="imagenette", row="imagenet"),
    "cars_40": DataSet(folder="stanford_cars_40", network="lite:efficientnet-lite0", init="imagenette"),
}
ALL, SCRATCH = "all", "none"
MAPS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS if name != "oracle"},  # which is a ceiling and no explanation
    "rise_8": ("rise", {"num_cells": 8, "keep_probability": 0.1}),  # the other masks of RISE's authors
}
"""Folder of maps -> method and options."""
QUESTIONS = {"rise": ("num_masks",), "lime": ("num_samples",), "kernel_shap": ("num_samples",)}
"""Method -> the settings that say how often it asks."""
STUDENT, CHECKPOINTS = "student.json", "checkpoints"
VIEW = "centre_crop"  # of Table 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Run the paper's experiments on data sets, each from its black box to its tables, or go on with them."""

    data_sets: Annotated[tuple[str, ...], tyro.conf.Positional]
    """imagenet, cub, cars, aircraft-variant, aircraft-family, aircraft-manufacturer, or `all` of these; imagenette,
    cars_40. Where a student starts from another data set's, that one is made first."""
    data: str
    """Folder or URI with the data sets' folders: imagenet, cub, cars, aircraft, imagenette, stanford_cars_40."""
    out: str = "runs"
    """Folder for the results, which all machines reach."""
    methods: tuple[str, ...] = tuple(MAPS)
    """Methods to explain by; `rise_8` is RISE with 8 cells a side, each shown with probability 0.1."""
    num_masks: int = RiseOptions.num_masks
    """Masks of either RISE."""
    num_samples: int = LimeOptions.num_samples
    """Samples of LIME and KernelSHAP."""
    limit: int | None = None
    """Explain and score the first so many images only."""
    step_px: int | None = None
    """Pixels changed from one frame of the games to the next; without it as many as the black box's input is wide."""
    teacher: str | None = None
    """Black box of the data sets that are named, KIND:WHERE, instead of theirs."""
    network: str | None = None
    """Network to fine-tune for them, KIND:WHERE, instead of theirs."""
    init: str | None = None
    """Student that theirs start from (RUN), instead of another data set's; `none` starts from scratch."""
    finetune: str = ""
    """More options of `python -m distill finetune`, as one word: "--epochs=9 --compile"."""
    distill: str = ""
    """More options of `python -m distill RECIPE`, likewise."""
    status: bool = False
    """Say what is done and what is left, and do nothing."""

    def __post_init__(self) -> None:
        """Check the names."""
        for got, known in ((self.data_sets, (ALL, *DATA_SETS)), (self.methods, MAPS)):
            unknown = [name for name in got if name not in known]
            if unknown or not got:
                raise ValueError(f"got {' '.join(unknown) or 'no name'}; choose of {', '.join(known)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the data sets that are named, each once."""
        named = (tuple(PAPER) if name == ALL else (name,) for name in self.data_sets)
        return tuple(dict.fromkeys(name for names in named for name in names))

    def images(self, name: str) -> str:
        """Return where a data set's images lie."""
        return f"{self.data.rstrip('/')}/{DATA_SETS[name].folder}"

    def place(self, name: str, *inside: str) -> str:
        """Return a folder for a data set's results."""
        return "/".join((self.out.rstrip("/"), name, *inside))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command and what it leaves."""

    name: str
    """What it makes, in words."""
    command: tuple[str, ...]
    """What stands behind `python -m`."""
    out: str
    """Where that lies."""
    proof: str | None = MANIFEST
    """The file that is written last; None where each run makes it anew, in little time."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration of a whole result holds, by dotted keys."""
    num_rows: Callable[[], int] | None = None
    """Counts the rows of the whole, where it is Parquet."""

    @property
    def is_done(self) -> bool:
        """Tell whether the result is whole. Raises: ValueError where it was made with other settings."""
        folder = Folder(self.out)
        if self.proof is None or not folder.exists(self.proof):
            return False
        for key, wanted in self.made_with.items():
            if (found := _look_up(folder.config(), key)) != wanted:
                raise ValueError(
                    f"{self.out} was made with {key} {found}, not {wanted}; give the setting that it was made with, "
                    "delete the folder, or give another --out"
                )
        return True

    @property
    def progress(self) -> str:
        """Say how far it is."""
        folder = Folder(self.out)
        if self.is_done:
            return f"done{_figures(folder, str(self.proof))}"
        if self.num_rows and (parts := part_counts(folder)):
            return f"{sum(rows for rows, _ in parts.values()):,} of {self.num_rows():,} rows"
        if self.proof is None:
            return "made anew by each run"
        return "begun" if folder.exists(CHECKPOINTS) else "to do"


def stages(settings: Settings) -> Iterator[Stage]:
    """Yield all stages in their order, each once; what it must be made with is read when it is its turn."""
    seen: set[str] = set()
    for name in settings.names:
        for stage in (*_student(name, settings), *_explanations(name, settings)):
            if stage.name not in seen:
                seen.add(stage.name)
                yield stage
    yield _tables(settings)


def _black_box(name: str, settings: Settings) -> tuple[str, Stage | None]:
    """Return a data set's black box, KIND:WHERE, and the stage that makes it, where there is one to make."""
    data_set, named = DATA_SETS[name], name in settings.names
    there = (settings.teacher if named else None) or data_set.teacher
    if there is not None:
        return there, None
    title = f"{name}: black box"
    if data_set.network is None:
        out = settings.place("lite0")
        return f"onnx:{out}/model.onnx", Stage(
            name=title, command=("distill.teachers.lite", out), out=out, proof="teacher.toml"
        )
    network, out = (settings.network if named else None) or data_set.network, settings.place(name, "teacher")
    command = ("distill", "finetune", name, "--data", settings.images(name), "--network", network, "--out", out)
    command = (*command, "--resume", *shlex.split(settings.finetune))
    return f"onnx:{out}/model.onnx", Stage(name=title, command=command, out=out, made_with={"network": network})


def _student(name: str, settings: Settings) -> Iterator[Stage]:
    """Yield what leads to a data set's student: the one that it starts from, its black box, itself."""
    other = DATA_SETS[name].init
    init = settings.init if name in settings.names else None
    if init is None and other is not None:
        yield from _student(other, settings)
        init = settings.place(other, "student")
    teacher, making = _black_box(name, settings)
    if making is not None:
        yield making
    out = settings.place(name, "student")
    command = ("distill", name, "--data", settings.images(name), "--teacher", teacher, "--out", out, "--resume")
    init = None if init == SCRATCH else init
    made_with = {"init": None if init is None else _fingerprint(init)}
    command = (*command, *_options({"init": init}), *shlex.split(settings.distill))
    yield Stage(name=f"{name}: student", command=command, out=out, made_with=made_with)


def _explanations(name: str, settings: Settings) -> Iterator[Stage]:
    """Yield Sim N of a data set's student, then every method's maps and scores."""
    data, student = settings.images(name), settings.place(name, "student")
    about = ("--data", data, "--teacher", _black_box(name, settings)[0])
    limit = _options({"limit": settings.limit})
    similarity = ("evaluate", "similarity", "--student", student, *about, *limit)
    yield Stage(name=f"{name}: Sim N", command=similarity, out=student, proof=_similarity(student, settings.limit))
    for folder in settings.methods:
        method, options = _method(folder, settings)
        maps, scores = settings.place(name, "maps", folder), settings.place(name, "scores", folder)
        made_with = {"limit": settings.limit, **{f"options.{key}": value for key, value in options.items()}}
        if not METHODS[method].asks:
            made_with["student_fingerprint"] = _fingerprint(student)
        own = () if METHODS[method].asks else ("--student", student)
        num_images = functools.partial(_num_images, data, settings.limit)
        yield Stage(
            name=f"{name}: maps of {folder}",
            command=("explain", method, *about, *own, "--out", maps, *limit, *_options(options)),
            out=maps,
            made_with=made_with,
            num_rows=num_images,
        )
        step = {"step_px": settings.step_px}
        yield Stage(
            name=f"{name}: scores of {folder}",
            command=("evaluate", "games", "--maps", maps, *about, "--out", scores, *_options(step)),
            out=scores,
            made_with={"protocol.step_px": settings.step_px, "maps.0.config_hash": _maps_hash(maps)},
            num_rows=lambda count=num_images: count() * len(GAMES),
        )


def _tables(settings: Settings) -> Stage:
    names = settings.names
    out = settings.place(names[0], "tables") if len(names) == 1 else settings.place("tables")
    scores = [settings.place(name, "scores", folder) for name in names for folder in settings.methods]
    rows = [f"{name}={DATA_SETS[name].row}" for name in names if DATA_SETS[name].row]
    beside = ("--beside", *rows) if rows else ()
    students = [settings.place(name, "student") for name in names]
    command = ("evaluate", "tables", "--scores", *scores, "--student", *students, *beside, "--out", out)
    return Stage(name="tables and figures", command=command, out=out, proof=None)


def _method(folder: str, settings: Settings) -> tuple[str, dict[str, Any]]:
    method, options = MAPS[folder]
    return method, options | {name: getattr(settings, name) for name in QUESTIONS.get(method, ())}


def _options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Write options as on a command line; what is None is left out."""
    given = {name: value for name, value in values.items() if value is not None}
    return tuple(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value)))


@functools.cache
def _num_images(data: str, limit: int | None) -> int:
    return len(open_images(data, limit=limit).image_ids)


def _fingerprint(run: str) -> str | None:
    """Read a student's fingerprint; None before it is made."""
    return Folder(run).read_json(STUDENT)["fingerprint"] if Folder(run).exists(STUDENT) else None


def _maps_hash(maps: str) -> str | None:
    return config_hash(Folder(maps).config()) if Folder(maps).finished() else None


def _similarity(run: str, limit: int | None) -> str:
    """Return the file of a student's own Sim N, or the name of none."""
    folder = Folder(run)
    for name in folder.names():
        if name.startswith("similarity-"):
            found = folder.read_json(name)
            if [found[key] for key in ("limit", "view", "student_fingerprint")] == [limit, VIEW, _fingerprint(run)]:
                return name
    return "similarity"


def _look_up(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else config.get(part)
    return config


def _figures(folder: Folder, proof: str) -> str:
    """Pick from a result's file what says how it came out."""
    found = folder.read_json(proof) if proof != "teacher.toml" else {}
    metrics = {name.removeprefix("val_"): value for name, value in found.get("metrics", {}).items()}
    metrics |= {"sim1": found["sim1"]["mean"]} if "sim1" in found else {}
    shown = [f"{found['rows']:,} rows, {found['errors']:,} with an error"] if "rows" in found else []
    shown += [f"{name} {value:.4f}" for name, value in list(metrics.items())[:1]]
    return "".join(f": {text}" for text in shown)


def execute(command: Sequence[str]) -> int:
    """Run `python -m COMMAND` in a process of its own; return its exit status."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


def run(settings: Settings, execute: Execute = execute) -> int:
    """Run what is not done, stage by stage; return the exit status of the first that fails, else 0."""
    total = sum(1 for _ in stages(settings))
    for number, stage in enumerate(stages(settings), start=1):
        if stage.is_done:
            continue
        print(f"== {number}/{total} {stage.name}\n   python -m {shlex.join(stage.command)}", flush=True)
        if status := execute(stage.command):
            print(f"stopped at {stage.name} ({number}/{total}); the same command goes on there", file=sys.stderr)
            return status
    print(report(settings))
    return 0


def report(settings: Settings) -> str:
    """Say how far each stage is, and what comes next."""
    found = list(stages(settings))
    kept = [stage for stage in found if stage.proof]
    left = [stage for stage in kept if not stage.is_done]
    width = max(len(stage.name) for stage in found)
    lines = [f"{stage.name:<{width}}  {stage.progress}" for stage in found]
    lines += [f"{len(kept) - len(left)} of {len(kept)} stages done, {len(left)} left"]
    return "\n".join([*lines, *(f"next: python -m {shlex.join(stage.command)}" for stage in left[:1])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 2 for what the user can mend."""
    try:
        settings = tyro.cli(Settings, prog="python -m benchmarks.paper", args=arguments)
        if not settings.status:
            return run(settings)
        print(report(settings))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
