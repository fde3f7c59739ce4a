"""`python -m explain METHOD --data DIR [--student RUN] [--teacher TEACHER] --out MAPS`.

`python -m explain fit --student RUN --maps MAPS` fits the learned read-out, for the method `readout`.
`python -m explain register METHOD --student RUN --name NAME` puts a student with a method into MLflow's registry.
`python -m explain show --maps MAPS... --data DIR --out FOLDER` draws stored maps, and a gallery of all images.
`python -m explain image PHOTO --teacher TEACHER` explains one photograph at once, without Ray.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from cluster import cli, command_line
from explain.auto import SUMMARY, AutoOptions, resolve
from explain.config import Job
from explain.methods.registry import METHODS, find_method
from explain.pictures.config import Show
from explain.pictures.one_image import ExplainImage, explain_image
from explain.readout.config import FitSettings
from explain.serving.config import Registration

AUTO = "auto"
EXPLAIN = (
    "Compute saliency maps of a data set by one method and store them as Parquet. "
    "`python -m explain fit --help`: fit a learned read-out to a student. "
    "`python -m explain register --help`: serve a student's maps from MLflow's registry. "
    "`python -m explain show --help`: draw stored maps. `python -m explain image --help`: explain one photograph. "
    + cli.VERBOSE_HELP
)
REGISTER = "Put a student with a method into MLflow's registry: image in, map out."


def parse(
    args: Sequence[str], *, kind: Any = Job, command: str = "explain", description: str = EXPLAIN
) -> tuple[str, Any]:
    """Parse the command line into the method's name and its job.

    Raises:
        ValueError: For an unknown method, or options that contradict each other.
    """
    known = [(method.name, method.options, method.summary) for method in METHODS.values()]
    if kind is Job:
        known.append((AUTO, AutoOptions, SUMMARY))
    if args and not args[0].startswith("-"):
        args = [args[0].replace("-", "_"), *args[1:]]
        if args[0] not in (name for name, *_ in known):
            find_method(args[0])
    commands: Any = Union[tuple(_command(kind, *one) for one in known)]  # noqa: UP007 - made at run time
    job = cli.checked(tyro.cli(commands, prog=cli.prog(command), args=args, description=description))
    return args[0], job


def _command(kind: Any, name: str, options: type, summary: str) -> Any:
    return Annotated[kind[options], tyro.conf.subcommand(name, description=summary)]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 for what the user can mend."""
    given = cli.take_verbose(args)
    command = {"register": _register, "fit": _fit, "show": _show, "image": _image}.get(given[0] if given else "")
    with command_line.running("explain", given):
        return cli.run(lambda: command(given[1:]) if command else _explain(given))


def _explain(args: Sequence[str]) -> str:
    name, job = parse(args)
    if name == AUTO:
        name, job = resolve(job)
        print(f"auto: {name}, {job.options}", file=sys.stderr)
    job.check(find_method(name))
    from explain.job import explain

    summary = explain(name, job)
    num_maps = summary.rows - summary.errors
    lines = [f"{num_maps} maps and {summary.errors} images without one (column error) in {job.out}"]
    pictures = cli.beside(name if "://" in job.out else job.out, "-pictures")
    lines.append(cli.next_step("explain", "show", maps=job.out, data=job.data, out=pictures))
    if job.teacher is not None:
        games = {"maps": job.out, "data": job.data, "teacher": job.teacher, "out": cli.beside(job.out, "-scores")}
        lines.append(cli.next_step("evaluate", "games", **games))
    return "\n".join(lines)


def _fit(args: Sequence[str]) -> str:
    settings = cli.checked(tyro.cli(FitSettings, prog=cli.prog("explain fit"), args=args))
    from explain.readout.fit import fit

    result = fit(settings)
    summary = (
        f"read-out {result['fingerprint'][:12]} in {settings.student}, trained on {result['num_images']} images; its "
        f"maps' correlation with validation maps is {result['held_out_correlation']:.3f}"
    )
    following = cli.next_step(
        "explain",
        "readout",
        student=settings.student,
        data=result["data"],
        teacher=settings.teacher,
        out=cli.beside(settings.student, "-readout"),
    )
    if "games" not in result:
        return f"{summary}\n{following}"
    games = result["games"]
    before, after = (f"{games[when]['deletion']:.3f} / {games[when]['insertion']:.3f}" for when in ("before", "after"))
    played = f"before the games; the black box's deletion / insertion on them went from {before} to {after}"
    return f"{summary} {played}\n{following}"


def _show(args: Sequence[str]) -> str:
    config = cli.checked(tyro.cli(Show, prog=cli.prog("explain show"), args=args))
    from explain.pictures.show import show

    shown = show(config)
    missing = f"; {shown.num_missing} maps are missing, the page says why" if shown.num_missing else ""
    return f"{shown.num_pictures} pictures of {shown.num_images} images{missing}\nopen {shown.page}"


def _image(args: Sequence[str]) -> str:
    return explain_image(cli.checked(tyro.cli(ExplainImage, prog=cli.prog("explain image"), args=args)))


def _register(args: Sequence[str]) -> str:
    name, job = parse(args, kind=Registration, command="explain register", description=REGISTER)
    job.check(find_method(name))
    from explain.serving.pyfunc import register

    model = register(name, job)
    return f"model {model}\n{cli.next_step('cluster', 'verify', model)}"


if __name__ == "__main__":
    sys.exit(main())
