"""Copy the demo's five free photographs, which come with scikit-image: `python -m distill.demo.photographs --out DIR`.

Chelsea the cat (CC0), coffee (CC0), astronaut Eileen Collins (public domain, NASA), rocket (public domain, SpaceX) and
motorcycle (Middlebury stereo data, public domain), as scikit-image's documentation of `skimage.data` names them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import cli

NAMES = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")


@dataclass(frozen=True, kw_only=True)
class PhotographsConfig:
    """Copy five free photographs into a folder."""

    out: str
    """Folder for the photographs."""


def copy_photographs(out: str) -> list[Path]:
    """Copy the photographs into the folder `out`; return their paths."""
    from importlib.resources import files

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).write_bytes(files("skimage.data").joinpath(name).read_bytes())
    return [folder / name for name in NAMES]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    import tyro

    def work() -> str:
        config = tyro.cli(PhotographsConfig, args=arguments, prog="python -m distill.demo.photographs")
        return "\n".join(map(str, copy_photographs(config.out)))

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
