"""The stages of the paper's experiments, in their order, and the settings that they follow."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from benchmarks.paper.stage import Stage
from cluster.storage import CONFIG, Folder, config_hash
from distill.data import open_images
from evaluate.games.protocol import GAMES
from explain.methods.options import LimeOptions, RiseOptions
from explain.methods.registry import METHODS


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
    **{name: (name, {}) for name in METHODS if name not in ("oracle", "readout")},  # a ceiling; not the paper's
    "rise_8": ("rise", {"num_cells": 8, "keep_probability": 0.1}),  # the other masks of RISE's authors
}
"""Folder of maps -> method and options."""
QUESTIONS = {"rise": ("num_masks",), "lime": ("num_samples",), "kernel_shap": ("num_samples",)}
"""Method -> the settings that say how often it asks."""
STUDENT = "student.json"
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
    per_class: int | None = None
    """Explain and score the first so many images of each class only."""
    step_px: int | None = None
    """Pixels changed from one frame of the games to the next; without it as many as the black box's input is wide."""
    teacher: str | None = None
    """Black box of the data sets that are named, KIND:WHERE, instead of theirs."""
    network: str | None = None
    """Network to fine-tune for them, KIND:WHERE, instead of theirs."""
    init: str | None = None
    """Student that theirs start from (RUN), instead of another data set's; `none` starts from scratch."""
    finetune: str = ""
    """More options of `python -m distill finetune`, behind an equals sign: --finetune="--epochs=9 --compile"."""
    distill: str = ""
    """More options of `python -m distill RECIPE`, likewise."""
    num_workers: int | None = None
    """Workers that make maps and play the games. Default: one for each GPU, else one for every 4 cores."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the student's passes in the methods that look into it; bfloat16 is two to four times as fast on
    a CPU with such units."""
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

    @property
    def chosen(self) -> dict[str, int | None]:
        """Return the options that choose images, as the commands have them."""
        return {"limit": self.limit, "per_class": self.per_class}

    def images(self, name: str) -> str:
        """Return where a data set's images lie."""
        return f"{self.data.rstrip('/')}/{DATA_SETS[name].folder}"

    def place(self, name: str, *inside: str) -> str:
        """Return a folder for a data set's results."""
        return "/".join((self.out.rstrip("/"), name, *inside))


def stages(settings: Settings) -> Iterator[Stage]:
    """Yield all stages in their order, each once; what it must be made with is read when it is its turn."""
    seen: set[str] = set()
    for name in settings.names:
        for stage in itertools.chain(_student(name, settings), _explanations(name, settings)):
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
        making = Stage(
            name=title, command=("distill.teachers.tools.efficientnet_lite", out), out=out, proof="model.pt2"
        )
        return f"torch:{out}/model.pt2", making
    network, out = (settings.network if named else None) or data_set.network, settings.place(name, "teacher")
    command = ("distill", "finetune", name, "--data", settings.images(name), "--network", network, "--out", out)
    command = (*command, "--resume", *shlex.split(settings.finetune))
    return f"torch:{out}/model.pt2", Stage(name=title, command=command, out=out, made_with={"network": network})


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
    chosen, workers = _options(settings.chosen), _options({"num_workers": settings.num_workers})
    similarity = ("evaluate", "similarity", "--student", student, *about, *chosen)
    yield Stage(name=f"{name}: Sim N", command=similarity, out=student, proof=_similarity(student, settings.chosen))
    for folder in settings.methods:
        method, options = _method(folder, settings)
        maps, scores = settings.place(name, "maps", folder), settings.place(name, "scores", folder)
        made_with = {**settings.chosen, **{f"options.{key}": value for key, value in options.items()}}
        own = () if METHODS[method].is_query_based else ("--student", student)
        if not METHODS[method].is_query_based:
            made_with["student_fingerprint"] = _fingerprint(student)
        if METHODS[method].explains == "student":
            low = None if settings.precision == "float32" else settings.precision
            made_with["precision"] = low
            own = (*own, *_options({"precision": low}))
        num_images = functools.partial(_num_images, data, **settings.chosen)
        yield Stage(
            name=f"{name}: maps of {folder}",
            command=("explain", method, *about, *own, "--out", maps, *chosen, *_options(options), *workers),
            out=maps,
            made_with=made_with,
            num_rows=num_images,
        )
        step = {"step_px": settings.step_px}
        yield Stage(
            name=f"{name}: scores of {folder}",
            command=("evaluate", "games", "--maps", maps, *about, "--out", scores, *_options(step), *workers),
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
    students, maps = ([settings.place(name, folder) for name in names] for folder in ("student", "maps"))
    named = ("--student", *students, "--maps", *maps, "--data", *map(settings.images, names))  # may be opened
    command = ("evaluate", "tables", "--scores", *scores, *named, *beside, "--out", out)
    return Stage(name="tables and figures", command=command, out=out, proof=None)


def _method(folder: str, settings: Settings) -> tuple[str, dict[str, Any]]:
    method, options = MAPS[folder]
    return method, options | {name: getattr(settings, name) for name in QUESTIONS.get(method, ())}


def _options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Write options as on a command line; what is None is left out."""
    given = {name: value for name, value in values.items() if value is not None}
    return tuple(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value)))


@functools.cache
def _num_images(data: str, limit: int | None, per_class: int | None) -> int:
    return len(open_images(data, limit=limit, per_class=per_class).image_ids)


def _fingerprint(run: str) -> str | None:
    """Read a student's fingerprint; None before it is made."""
    return Folder(run).read_json(STUDENT)["fingerprint"] if Folder(run).exists(STUDENT) else None


def _maps_hash(maps: str) -> str | None:
    return config_hash(Folder(maps).config()) if Folder(maps).exists(CONFIG) else None


def _similarity(run: str, chosen: Mapping[str, int | None]) -> str:
    """Return the file of a student's own Sim N, or the name of none."""
    folder, wanted = Folder(run), {**chosen, "view": VIEW, "student_fingerprint": _fingerprint(run)}
    for name in folder.names():
        if name.startswith("similarity-"):
            found = folder.read_json(name)
            if all(found.get(key) == value for key, value in wanted.items()):
                return name
    return "similarity"
