"""Report data as text: Markdown and CSV tables for papers and READMEs, and a summary for the console."""

from collections.abc import Sequence

from evaluate.analysis.columns import Column
from evaluate.analysis.comparison import Comparison, MethodRow
from evaluate.format.markdown import escaped
from evaluate.format.numbers import interval_text, p_value
from evaluate.format.safe_text import readable
from evaluate.format.table import Table, console_page
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER
from evaluate.report.report_data import ReportData
from evaluate.scored_method import MARKS
from evaluate.statistics import Interval

FIXED = ("method", "kind", "config_hash", "num_images", "num_errors", "num_flat")
COSTS = ("tied_share", "teacher_queries", "student_passes", "seconds")
ARROWS = {True: " ↑", False: " ↓", None: ""}
PLAYED = ("deletion", "insertion", "deletion_gain", "insertion_gain")


def markdown(report_data: ReportData) -> str:
    """Write conclusions, table of methods, comparisons and agreement as Markdown."""
    results = report_data.results
    first = (
        f"{results.num_images} images of {report_data.data_name}, scored on {readable(results.config['teacher'])} "
        f"({results.config['teacher_fingerprint']}), protocol {results.config['protocol']['name']} "
        f"({results.config['protocol_hash']}). Means with 95 % bootstrap intervals over images."
    )
    blocks = [
        escaped(first),
        *map(escaped, report_data.advice),
        "\n".join(f"- {escaped(sentence)}" for sentence in report_data.conclusions),
        _methods_table(report_data).markdown().rstrip("\n"),
        " ".join(f"{column.heading}: {column.about}." for column in report_data.columns if column.about),
    ]
    for text, table in [_comparisons(report_data), _strata(report_data), _agreement(report_data)]:
        if table.rows:
            blocks += [escaped(text), table.markdown().rstrip("\n")]
    return "\n\n".join(blocks) + "\n"


def _methods_table(report_data: ReportData) -> Table:
    columns = report_data.columns
    costs = ["tied", "teacher queries", "student passes", "s / map", "images", "errors"]
    return Table(
        headings=["method", "kind", *map(_heading, columns), *costs],
        rows=[
            [row.scored.title, MARKS[row.scored.kind], *(_value(row, column) for column in columns), *_costs(row)]
            for row in report_data.rows
        ],
    )


def _costs(row: MethodRow) -> list[str]:
    costs = [f"{row.tied_share:.1%}", f"{row.teacher_queries:g}", f"{row.student_passes:g}", f"{row.seconds:.3g}"]
    return [*costs, str(row.gap.num), str(row.num_errors)]


def _heading(column: Column) -> str:
    return column.heading + ARROWS[column.higher_is_better]


def _value(row: MethodRow, column: Column) -> str:
    value = row.values.get(column.name)
    flat = f" ({row.num_flat} flat)" if column.name == "insertion_normalised" and row.num_flat else ""
    return ("-" if value is None else interval_text(value)) + flat


def _mean(value: Interval | None) -> str:
    return "-" if value is None or not value.num else f"{value.mean:.3f}"


def _comparisons(report_data: ReportData) -> tuple[str, Table]:
    """Lay out each method against the main one, and say what the cells hold; without rows where none was compared."""
    main, columns = report_data.results.main, [column for column in report_data.columns if column.is_compared]
    rows = [row for row in report_data.rows if row.against]
    text = (
        f"Each method minus {main.title if main else '-'}, paired on the images that both have: mean difference with "
        "its 95 % interval, the share of images on which the method is better (ties half), and the p value of "
        f"Wilcoxon's signed rank test, Holm-adjusted over these {sum(len(row.against) for row in rows)} comparisons. "
        "'better' and 'worse' stand where the interval leaves zero out and p is below 0.05."
    )
    cells = [[row.scored.title, *(_comparison(row.against.get(column.name)) for column in columns)] for row in rows]
    return text, Table(headings=["method", *map(_heading, columns)], rows=cells)


def _comparison(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    difference = interval_text(comparison.difference, sign="+")
    return f"{comparison.verdict}: {difference}, wins {comparison.win_rate:.1%}, p {p_value(comparison.p_holm)}"


def _strata(report_data: ReportData) -> tuple[str, Table]:
    known, differing = report_data.disagreements.known, report_data.disagreements.differing
    text = (
        f"Where the student names the black box's class, {len(known) - len(differing)} of {len(known)} images measured,"
        f" and where it names another one, {len(differing)}: there a map of the student explains another decision than "
        "the one it is scored on."
    )
    wheres = ("both agree", "they differ")
    headings = [f"{game}{ARROWS[HIGHER_IS_BETTER[game]]}, {where}" for game in GAMES for where in wheres]
    rows = [
        [one.scored.title, *(interval_text(part[game]) for game in GAMES for part in (one.agree, one.differ))]
        for one in report_data.strata
    ]
    return text, Table(headings=["method", *headings], rows=rows)


def _agreement(report_data: ReportData) -> tuple[str, Table]:
    rows = [
        [agreement.about, agreement.num_images, *(_sim_text(sim) for sim in agreement.sims), agreement.doubt or "-"]
        for agreement in report_data.student.agreements
    ]
    headings = ["view", "images", *(f"Sim{n}" for n in range(1, 6)), "made for"]
    return "Agreement of the student with the black box:", Table(headings=headings, rows=rows)


def _sim_text(sim: object) -> str:
    return "-" if not isinstance(sim, dict) else f"{sim['mean']:.3f} [{sim['low']:.3f}, {sim['high']:.3f}]"


def numbers(report_data: ReportData) -> Table:
    """List every number of the table of methods with full precision."""
    records = [_record(row, report_data.columns) for row in report_data.rows]
    return Table(headings=list(records[0]), rows=[list(record.values()) for record in records])


def _record(row: MethodRow, columns: Sequence[Column]) -> dict[str, object]:
    fixed = (row.scored.label, row.scored.kind, row.scored.config_hash, row.gap.num, row.num_errors, row.num_flat)
    record: dict[str, object] = dict(zip(FIXED, fixed, strict=True))
    for column in columns:
        value, comparison = row.values.get(column.name), row.against.get(column.name)
        intervals = {column.name: value, f"{column.name}_difference": comparison and comparison.difference}
        for name, one in intervals.items():
            record |= {name: one and one.mean, f"{name}_low": one and one.low, f"{name}_high": one and one.high}
        tests = ("win_rate", "p_value", "p_holm")
        record |= {f"{column.name}_{name}": comparison and float(getattr(comparison, name)) for name in tests}
    return record | {name: float(getattr(row, name)) for name in COSTS}


def console_text(report_data: ReportData, page: str | None) -> str:
    """Write both AUCs, relevance gains, metrics and Sim1 where known, conclusions, and where the page is."""
    played = [column for column in report_data.columns if column.name in PLAYED]
    computed = [column for column in report_data.columns if column.group == "measures"]
    table = Table(
        caption=f"{report_data.data_name}: {report_data.results.num_images} images, scored on the black box",
        headings=["method", *map(_heading, [*played, *computed]), "s / map"],
        rows=[
            [
                row.scored.title + (" (control)" if row.scored.is_control else ""),
                *(_value(row, column) for column in played),
                *(_mean(row.values.get(column.name)) for column in computed),
                f"{row.seconds:.3g}",
            ]
            for row in report_data.rows
        ],
    )
    return console_page("", [table], [*report_data.advice, *report_data.conclusions, *_last_lines(report_data, page)])


def _last_lines(report_data: ReportData, page: str | None) -> list[str]:
    sim1, differing = report_data.student.sim1, report_data.disagreements
    lines = [problem for problem in (report_data.images_problem, report_data.maps_problem) if problem]
    if sim1 is None and report_data.student.uri is not None:
        lines.append(report_data.student.problem)
    if sim1 is not None:
        lines.append(f"Student and black box agree on the first class (Sim1): {_sim_text(sim1)}")
    if differing.measured:
        lines.append(f"They disagree on {len(differing.differing)} of {len(differing.known)} explained images.")
    return [*filter(None, lines), *([] if page is None else [f"Report: {page}"])]
