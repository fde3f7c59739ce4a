"""The commands `python -m distill RECIPE`: train a student that predicts what a black box predicts.

`python -m distill finetune RECIPE` makes a black box for a data set: a known network, fine-tuned on its labels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from cluster import cli, command_line
from cluster.errors import visible
from distill.config import DistillConfig, FineTuneConfig
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES

DISTILL = (
    "Train a white-box student that answers as a black box does. `python -m distill RECIPE --help` has a recipe's "
    "options; `python -m distill finetune --help`: make a black box of a network, fine-tuned on a data set's labels. "
    + cli.VERBOSE_HELP
)
FINE_TUNE = "Make a black box for a data set: a network with a new last layer, trained as a whole on the labels."


def _train(config: DistillConfig | FineTuneConfig, name: str) -> str:
    """Distill or fine-tune; return what the run folder holds, in words, and the command that comes next."""
    from distill.training import launch

    if isinstance(config, DistillConfig):
        metrics = launch.distill(config, name=name)
        maps = {"student": config.out, "teacher": config.teacher, "out": cli.beside(config.out, "-maps/mal_grad_cam")}
        following = cli.next_step("explain", "mal_grad_cam", data=config.data, **maps)
        return f"student in {config.out}: {_shown(metrics)}\n{following}"
    metrics = launch.finetune(config, name=name)
    teacher, student = f"onnx:{config.out}/model.onnx", cli.beside(config.out, "-student")
    following = cli.next_step("distill", name, data=config.data, teacher=teacher, out=student)
    return f"black box {teacher}, torch:{config.out}/model.pt2: {_shown(metrics)}\n{following}"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    missing: Any = tyro.MISSING
    arguments = cli.take_verbose(args)
    if arguments[:1] == ["finetune"]:
        given = {"data": missing, "network": missing, "out": missing}
        recipes = {name: (line, FineTuneConfig(**given, recipe=r)) for name, (line, r) in FINE_TUNING_RECIPES.items()}
        return _run(recipes, arguments[1:], prog=cli.prog("distill finetune"), description=FINE_TUNE)
    given = {"data": missing, "teacher": missing, "out": missing}
    recipes = {name: (line, DistillConfig(**given, recipe=r)) for name, (line, r) in RECIPES.items()}
    return _run(recipes, arguments, prog=cli.prog("distill"), description=DISTILL)


def _run(recipes: Mapping[str, tuple[str, Any]], arguments: Sequence[str], *, prog: str, description: str) -> int:
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    if arguments[:1] == [name] and name not in recipes:
        print(f"error: unknown recipe {visible(name)!r}; recipes: {', '.join(recipes)}", file=sys.stderr)
        return 2
    parse: Any = tyro.extras.overridable_config_cli
    given = ["finetune", *arguments] if prog.endswith("finetune") else arguments
    options = {"args": arguments, "prog": prog, "description": description}
    with command_line.running("distill", given):
        return cli.run(lambda: _train(cli.checked(parse(recipes, **options)), name))


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('val_')} {value:.4f}" for name, value in metrics.items())


if __name__ == "__main__":
    sys.exit(main())
