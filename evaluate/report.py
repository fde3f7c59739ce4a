"""One self-contained page about scores, with its tables as Markdown and CSV, kept in MLflow too."""

from collections.abc import Sequence
from pathlib import Path

from evaluate.findings import Findings, gather
from evaluate.page import render
from evaluate.texts import comma_separated, console_text, markdown, table_stem, write_tables


def write_report(
    scores: Sequence[str],
    out: str,
    *,
    measures: Sequence[str] = (),
    photographs: bool = True,
    num_gallery: int = 8,
    tables: str | None = None,
) -> str:
    """Write the page, and the tables where asked for; keep both as artifacts of an MLflow run `report`.

    Args:
        scores: folders of `python -m evaluate games`; one protocol, one teacher, one data set.
        out: HTML file on this machine.
        measures: folders of `python -m evaluate measures`, of the same maps and black box.
        photographs: False leaves every input image out, for publication: maps alone.
        num_gallery: images in the gallery, 0 or more.
        tables: file name ending in .md or .csv; both are written beside each other.

    Returns:
        The summary for the console.

    Raises:
        ValueError: the scores cannot stand in one report, or an argument is out of range.
    """
    page, stem = _check(out, num_gallery, tables)
    findings = gather(scores, measures)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(findings, photographs=photographs, num_gallery=num_gallery), encoding="utf-8")
    written = [page]
    if stem is not None:
        written += write_tables(stem, markdown(findings), comma_separated(findings))
    _track(findings, written)
    return console_text(findings, page)


def _check(out: str, num_gallery: int, tables: str | None) -> tuple[Path, Path | None]:
    if num_gallery < 0:
        raise ValueError(f"num_gallery {num_gallery} is not allowed; give 0 or more")
    if "://" in out:
        raise ValueError(f"{out} is no file on this machine; the report is written locally and to MLflow")
    if Path(out).is_dir():
        raise ValueError(f"{out} is a folder; give an HTML file in it, such as {out.rstrip('/')}/report.html")
    return Path(out).expanduser(), None if tables is None else table_stem(tables)


def _track(findings: Findings, written: Sequence[Path]) -> None:
    from cluster.tracking import Tracker

    config = findings.results.config
    kept = ("protocol_hash", "teacher", "teacher_fingerprint", "data", "data_fingerprint", "split")
    params = {name: config.get(name) for name in kept} | {"scores": ", ".join(findings.results.uris)}
    with Tracker(findings.data_name, "report", params=params, tags={"stage": "report"}) as tracker:
        for path in written:
            tracker.artifact(path)
