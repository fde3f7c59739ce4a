"""Plumbing: one Ray for several commands, and tracking records that an MLflow store has missed."""

import sys
from pathlib import Path
from typing import Annotated

import tyro


def upload(file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")], uri: str | None = None) -> None:
    """Send a spill file to MLflow and rename it to FILE.sent.

    Args:
        file: The file that the job named in its warning.
        uri: The store to send to; else MLFLOW_TRACKING_URI, else the one that each run was meant for.
    """
    from cluster import spill

    run_ids = spill.upload(file, uri=uri)
    print(f"sent {len(run_ids)} run(s): {' '.join(run_ids)}")


def run(command: Annotated[tyro.conf.Positional[list[str]], tyro.conf.arg(metavar="COMMAND")]) -> None:
    """Start Ray on this machine once for all jobs of a command, such as a script that explains by many methods.

    Args:
        command: The command and its arguments, after --.
    """
    from cluster.session import run_with_ray

    sys.exit(run_with_ray(command))


def main() -> None:
    """Run the command line; a user's error is a line on stderr and exit status 2."""
    app = tyro.extras.SubcommandApp()
    app.command(run)
    app.command(upload)
    try:
        app.cli(prog="python -m cluster", description=__doc__)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
