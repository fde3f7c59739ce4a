"""The command `python -m distill RECIPE`: train a student that predicts what a black box predicts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from distill.recipes import RECIPES, Recipe


@dataclass(frozen=True, kw_only=True)
class Distil:
    """Distil a black box into a white-box student."""

    data: str
    """Folder or URI with the images: class folders or none, with or without train/ and val/."""
    teacher: str
    """The black box, KIND:WHERE: onnx:model.onnx, torch:model.pt2, torchvision:resnet50, python:module:factory."""
    out: str
    """Run folder for the student, its checkpoints and soft labels; a path or URI."""
    init: str | None = None
    """Run folder of a student to start from, of the same depth; with other classes, all but its classifier is taken."""
    num_workers: int | None = None
    """Training workers; one per GPU by default, or one for all cores."""
    resume: bool = False
    """Go on with the work in --out from its last checkpoint."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


def main() -> int:
    """Run the command line; return the exit status."""
    missing = tyro.MISSING
    commands = {
        name: (line, Distil(data=missing, teacher=missing, out=missing, recipe=recipe))
        for name, (line, recipe) in RECIPES.items()
    }
    name = next((arg for arg in sys.argv[1:] if not arg.startswith("-")), "")
    args = tyro.extras.overridable_config_cli(commands, prog="python -m distill")
    try:
        from distill.loop import distil

        metrics = distil(
            args.recipe,
            name=name,
            data=args.data,
            teacher=args.teacher,
            out=args.out,
            init=args.init,
            num_workers=args.num_workers,
            resume=args.resume,
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"student in {args.out}: " + ", ".join(f"{k.removeprefix('val_')} {v:.4f}" for k, v in metrics.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
