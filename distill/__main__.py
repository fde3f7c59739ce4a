"""The commands `python -m distill RECIPE`: train a student that predicts what a black box predicts.

`python -m distill finetune RECIPE` makes a black box for a data set: a known network, fine-tuned on its labels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from cluster import cli, command_line
from cluster.errors import visible
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES, Recipe, TrainingRecipe

DISTILL = (
    "Train a white-box student that answers as a black box does. `python -m distill RECIPE --help` has a recipe's "
    "options; `python -m distill finetune --help`: make a black box of a network, fine-tuned on a data set's labels."
)
FINE_TUNE = "Make a black box for a data set: a network with a new last layer, trained as a whole on the labels."


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Distill a black box into a white-box student."""

    data: str
    """Folder or URI with the images: class folders or none, with or without train/ and val/, or an official layout."""
    teacher: str
    """The black box, KIND:WHERE: onnx:model.onnx, torch:model.pt2, torchvision:resnet50, python:module:factory."""
    out: str
    """Run folder for the student, its checkpoints and soft labels; a path or URI."""
    init: str | None = None
    """Run folder of a student to start from, of the same depth; with other classes, all but its classifier is taken."""
    num_workers: int | None = None
    """Training workers; one per GPU by default, else one for every four cores."""
    min_workers: int | None = None
    """Go on with so few where nodes go away, with up to --num-workers where they join; by default all are needed."""
    resume: bool = False
    """Go on with the work in --out from its last checkpoint."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]

    def run(self, name: str) -> str:
        """Distill; return what came out, in words."""
        from distill.training.launch import distill

        workers = {"num_workers": self.num_workers, "min_workers": self.min_workers}
        options = {"init": self.init, **workers, "resume": self.resume}
        metrics = distill(self.recipe, name=name, data=self.data, teacher=self.teacher, out=self.out, **options)
        return f"student in {self.out}: {_shown(metrics)}"


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Fine-tune a network on a data set's labels and export it as a black box."""

    data: str
    """Folder or URI with the images, in class folders or a data set's official layout."""
    network: str
    """What to start from, KIND:WHERE: torchvision:resnet50, lite:efficientnet-lite0, python:module:factory."""
    out: str
    """Run folder for the black box (model.onnx, model.pt2, teacher.toml) and its checkpoints; a path or URI."""
    num_workers: int | None = None
    """Training workers; one per GPU by default, else one for every four cores."""
    min_workers: int | None = None
    """Go on with so few where nodes go away, with up to --num-workers where they join; by default all are needed."""
    resume: bool = False
    """Go on with the work in --out from its last checkpoint."""
    recipe: Annotated[TrainingRecipe, tyro.conf.arg(name="")]

    def run(self, name: str) -> str:
        """Fine-tune; return what came out, in words."""
        from distill.training.launch import finetune

        options = {"num_workers": self.num_workers, "min_workers": self.min_workers, "resume": self.resume}
        metrics = finetune(self.recipe, name=name, data=self.data, network=self.network, out=self.out, **options)
        return f"black box onnx:{self.out}/model.onnx, torch:{self.out}/model.pt2: {_shown(metrics)}"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    missing: Any = tyro.MISSING
    arguments = sys.argv[1:] if args is None else args
    if arguments[:1] == ["finetune"]:
        given = {"data": missing, "network": missing, "out": missing}
        recipes = {name: (line, FineTune(**given, recipe=r)) for name, (line, r) in FINE_TUNING_RECIPES.items()}
        return _run(recipes, arguments[1:], prog=cli.prog("distill finetune"), description=FINE_TUNE)
    given = {"data": missing, "teacher": missing, "out": missing}
    recipes = {name: (line, Distill(**given, recipe=r)) for name, (line, r) in RECIPES.items()}
    return _run(recipes, arguments, prog=cli.prog("distill"), description=DISTILL)


def _run(recipes: Mapping[str, tuple[str, Any]], arguments: Sequence[str], *, prog: str, description: str) -> int:
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    if arguments[:1] == [name] and name not in recipes:
        print(f"error: unknown recipe {visible(name)!r}; recipes: {', '.join(recipes)}", file=sys.stderr)
        return 2
    command = tyro.extras.overridable_config_cli(recipes, args=arguments, prog=prog, description=description)
    given = ["finetune", *arguments] if prog.endswith("finetune") else arguments
    with command_line.running("distill", given):
        return cli.run(lambda: command.run(name))


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('val_')} {value:.4f}" for name, value in metrics.items())


if __name__ == "__main__":
    sys.exit(main())
