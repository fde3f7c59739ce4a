"""Plumbing: one Ray for several commands, MLflow's pages and the records it missed, what a run at full size costs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from cluster import cli


def upload(
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    uri: str | None = None,
    also: tuple[str, ...] = (),
) -> None:
    """Send unsent tracking records to MLflow and rename their file to FILE.sent.

    Args:
        file: The file that the job named in its warning; artifacts below its folder are sent.
        uri: The store to send to; else MLFLOW_TRACKING_URI, else the one on this machine that each run was meant for.
        also: Other folders and files whose artifacts are sent.
    """
    from cluster.tracking import unsent as spill

    run_ids = spill.upload(file, uri=uri, also=also)
    print(f"sent {len(run_ids)} run(s): {' '.join(run_ids)}")


def run(command: Annotated[tyro.conf.Positional[list[str]], tyro.conf.arg(metavar="COMMAND")]) -> int:
    """Start Ray on this machine once for all jobs of a command, such as a script that explains by many methods.

    Args:
        command: The command and its arguments, after --.
    """
    from cluster.session import run_with_ray

    return run_with_ray(command)


def ui(*, port: int = 5000) -> None:
    """Show the runs in a browser: MLflow's pages of the store in MLFLOW_TRACKING_URI, else `mlflow.db`, for reading.

    Args:
        port: Port on 127.0.0.1.
    """
    from cluster.tracking.server import serve

    serve(port)


def verify(model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]) -> None:
    """Check that a registered model's files are those that `python -m explain register` sent; nothing of it is run.

    Args:
        model: models:/NAME/VERSION or models:/NAME@ALIAS, in the registry of MLFLOW_TRACKING_URI.
    """
    from cluster.tracking.registry import verify_model

    print(f"unchanged: {model}, sha256 {verify_model(model)}")


def plan(
    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")],
    *,
    rates: tuple[str, ...],
    gpus: tuple[int, ...] = (1, 8, 64),
    epochs: int | None = None,
    num_train: int | None = None,
    num_images: int | None = None,
    depth: int | None = None,
    input_size: tuple[int, int] | None = None,
) -> None:
    """Say what a recipe costs at full size, as Markdown: hours, queries and storage of each job that was measured.

    Args:
        recipe: The recipe's name, as of python -m distill.
        rates: Folders of finished jobs (a student's, maps, scores), whose manifests hold rates; or .json files.
        gpus: How many workers, each as the measured one; a worker has a GPU where there are any.
        epochs: Other than the recipe's.
        num_train: Training images, other than the data set's.
        num_images: Images to explain and score, other than the data set's.
        depth: Layers of the student, other than the recipe's.
        input_size: Height and width in pixels that the student sees, other than the recipe's.
    """
    from cluster.planning.cost_model import costs, find_workload, plan_text

    settings = {"depth": depth, "input_size": input_size and list(input_size)}
    workload = find_workload(recipe, settings=settings, epochs=epochs, num_train=num_train, num_images=num_images)
    print(plan_text(workload, costs(workload, rates), gpus))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    given = cli.take_verbose(arguments)
    app = tyro.extras.SubcommandApp()
    app.command(plan)
    app.command(run)
    app.command(ui)
    app.command(upload)
    app.command(verify)
    return cli.run(lambda: app.cli(prog=cli.prog("cluster"), description=f"{__doc__} {cli.VERBOSE_HELP}", args=given))


if __name__ == "__main__":
    sys.exit(main())
