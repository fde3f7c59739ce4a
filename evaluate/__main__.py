"""`python -m evaluate COMMAND`: maps and students held against the black box."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from cluster import cli
from distill.teachers import split_spec
from evaluate.games.protocol import Protocol, RankedBy
from evaluate.metrics.settings import Metric, Settings


@dataclass(frozen=True, kw_only=True)
class Games:
    """Play insertion and deletion with stored maps on the black box; scores go to Parquet and MLflow."""

    maps: tuple[str, ...]
    """Folders that `python -m explain` wrote, one per method; all of the same images and teacher."""
    data: str
    """The images that the maps were made of."""
    teacher: str
    """The black box that scores, KIND:WHERE, such as onnx:model.onnx."""
    out: str
    """Folder or URI for the scores; the same command again goes on where it stopped."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
    """The protocol."""
    cross_teacher: bool = False
    """Play maps that were made for another black box than --teacher, for `python -m evaluate specificity`."""
    limit: int | None = None
    """Play only the first so many images, in sorted order."""
    per_class: int | None = None
    """Play only the first so many images of each class, in sorted order."""
    max_queries: int | None = None
    """Start only if the job asks the black box at most so often; what it will ask is said first."""
    num_workers: int | None = None
    """Workers; without it one per GPU, else one per four cores."""

    def run(self) -> None:
        """Play, then print the table."""
        split_spec(self.teacher)
        from evaluate.games.job import play_games
        from evaluate.report.console import print_games

        result = play_games(
            self.maps,
            data=self.data,
            teacher=self.teacher,
            out=self.out,
            protocol=self.protocol,
            cross_teacher=self.cross_teacher,
            limit=self.limit,
            per_class=self.per_class,
            max_queries=self.max_queries,
            num_workers=self.num_workers,
        )
        print_games(result.summaries)
        print(f"{result.summary.rows} rows, {result.summary.errors} with an error, in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Measure stored maps by other rules than the games': ROAD, mu-fidelity, pointing, max-sensitivity, fidelity."""

    maps: tuple[str, ...]
    """Folders that `python -m explain` wrote, one per method; all of the same images and teacher."""
    data: str
    """The images that the maps were made of."""
    teacher: str
    """The black box that is asked, KIND:WHERE, such as onnx:model.onnx."""
    out: str
    """Folder or URI for the values; the same command again goes on where it stopped."""
    measures: tuple[Metric, ...] = ("road", "mu_fidelity")
    """Which ones; pointing and energy need masks or boxes of the objects, max_sensitivity and fidelity --student."""
    student: str | None = None
    """RUN folder of `python -m distill` that the maps explain."""
    boxes: str | None = None
    """Folder of boxes, NAME.xml for each image NAME.* (PASCAL-VOC, as ImageNet's). Default: what the data set has."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    """The metrics' settings."""
    limit: int | None = None
    """Measure only the first so many images, in sorted order."""
    per_class: int | None = None
    """Measure only the first so many images of each class, in sorted order."""
    max_queries: int | None = None
    """Start only if the job asks the black box at most so often; what it will ask is said first."""
    num_workers: int | None = None
    """Workers; without it one per GPU, else one per four cores."""

    def run(self) -> None:
        """Measure, then print the table."""
        split_spec(self.teacher)
        from evaluate.metrics.job import compute_metrics
        from evaluate.report.console import print_metrics

        result = compute_metrics(
            self.maps,
            data=self.data,
            teacher=self.teacher,
            out=self.out,
            metrics=self.measures,
            settings=self.settings,
            student=self.student,
            boxes=self.boxes,
            limit=self.limit,
            per_class=self.per_class,
            max_queries=self.max_queries,
            num_workers=self.num_workers,
        )
        print_metrics(result.summaries)
        print(f"{result.summary.rows} rows, {result.summary.errors} with an error, in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """Check that maps depend on what the student has learnt: redraw its parameters, ask for a wrong class, compare."""

    student: str
    """RUN folder of `python -m distill` whose maps are checked."""
    teacher: str
    """The black box that it was distilled from, KIND:WHERE; its top-1 is explained, its second choice is the wrong
    class."""
    data: str
    """Folder or URI of images."""
    out: str
    """Folder or URI for the similarities; the same command again goes on where it stopped."""
    methods: tuple[str, ...] = ()
    """Methods that explain a student, with their usual options; without it all of them, of which score_cam and mask
    take hundreds of passes a map, and there are up to nine maps an image."""
    other_student: str | None = None
    """RUN folder of another student to compare with, such as one of `python -m distill ... --shuffled`."""
    split: str | None = None
    """Part of the data set: train, val or test; without it val, else test, else everything."""
    limit: int | None = None
    """Check only the first so many images, in sorted order."""
    per_class: int | None = None
    """Check only the first so many images of each class, in sorted order."""
    seed: int = 0
    """Seed of the redrawn parameters, and of seeded methods."""
    max_queries: int | None = None
    """Start only if the job asks the black box at most so often; what it will ask is said first."""
    num_workers: int | None = None
    """Workers; without it one per GPU, else one per four cores."""

    def run(self) -> None:
        """Check, then print the table."""
        split_spec(self.teacher)
        from evaluate.report.console import print_sanity
        from evaluate.sanity.job import check_maps

        result = check_maps(
            self.student,
            teacher=self.teacher,
            data=self.data,
            out=self.out,
            methods=self.methods,
            other_student=self.other_student,
            split=self.split,
            limit=self.limit,
            per_class=self.per_class,
            seed=self.seed,
            max_queries=self.max_queries,
            num_workers=self.num_workers,
        )
        print_sanity(result.summaries)
        print(f"{result.summary.rows} rows, {result.summary.errors} with an error, in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Measure how often student and teacher rank the same classes first, in the same order (Sim 1 to 5)."""

    student: str
    """Folder that `python -m distill` wrote; the result is stored there too."""
    teacher: str
    """The black box that the student was distilled from, KIND:WHERE."""
    data: str
    """Folder or URI of images."""
    split: str | None = None
    """Part of the data set: train, val or test; without it val, else test, else everything."""
    limit: int | None = None
    """Take only the first so many images, in sorted order."""
    per_class: int | None = None
    """Take only the first so many images of each class, in sorted order."""
    max_queries: int | None = None
    """Start only if the job asks the black box at most so often; what it will ask is said first."""
    view: Literal["centre_crop", "resize"] = "centre_crop"
    """What both see of an image: the validation crop, or the whole image as it is explained and scored."""

    def run(self) -> None:
        """Measure, then print the table."""
        split_spec(self.teacher)
        from evaluate.report.console import print_agreement
        from evaluate.similarity import measure

        found = measure(
            self.student,
            teacher=self.teacher,
            data=self.data,
            split=self.split,
            limit=self.limit,
            per_class=self.per_class,
            max_queries=self.max_queries,
            view=self.view,
        )
        print_agreement(found)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained HTML page: table of methods, curves, gallery, agreement, commands."""

    scores: tuple[str, ...]
    """Folders that `python -m evaluate games` wrote."""
    measures: tuple[str, ...] = ()
    """Folders that `python -m evaluate measures` wrote, of the same maps: more columns, and fidelity flags."""
    out: str
    """HTML file to write, a path or URI."""
    photographs: bool = True
    """Show the images themselves in the gallery."""
    num_gallery: int = 8
    """Images in the gallery."""
    table: str | None = None
    """Also write the table of methods, as .md or .csv; both are written."""
    query_plot: str | None = None
    """Also write the plot of quality against queries, both games side by side, as .png."""
    beside: str | None = None
    """Data set of the paper's with whose order of methods to compare ours, such as imagenet. Default: that of the same
    name, if it has one."""
    against: str | None = None
    """Method that the others are tested against: its folder of maps, such as rise_4000, or its name in the table.
    Default: mal_grad_cam."""

    def run(self) -> None:
        """Write the page, then print what it found."""
        from evaluate.report.write import write_report

        summary = write_report(
            self.scores,
            self.out,
            measures=self.measures,
            photographs=self.photographs,
            num_gallery=self.num_gallery,
            tables=self.table,
            query_plot=self.query_plot,
            beside=self.beside,
            against=self.against,
        )
        print(summary)


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """Tell whether the order of methods holds under other baselines and steps: ranks, Kendall's tau, win rates."""

    scores: tuple[str, ...]
    """Folders that `python -m evaluate games` wrote of the same maps, one per protocol."""
    measure: RankedBy = "gap"
    """What the methods are ranked by; gap is insertion minus deletion AUC, a gain needs --least-relevant scores."""
    table: str | None = None
    """Also write the tables, as .md or .csv; both are written."""

    def run(self) -> None:
        """Compare, then print the tables."""
        from evaluate.report.rank_stability import write_stability

        print(write_stability(self.scores, measure=self.measure, tables=self.table))


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Write the paper's tables 1 to 3 and figures 5 and 6 from our scores, beside the paper's printed numbers."""

    scores: tuple[str, ...]
    """Folders that `python -m evaluate games` wrote, of one or several data sets, under one protocol."""
    out: str
    """Folder or URI for table1 ... table3 (.md, .csv, .tex) and the figures (.png)."""
    student: tuple[str, ...] = ()
    """RUN folders whose Sim N belongs into Table 1, besides the students of the scored maps."""
    beside: tuple[str, ...] = ()
    """NAME=ROW for a data set that stands beside a row of the paper with another name, such as cars_40=cars."""
    photographs: bool = True
    """Show the images themselves in the figures."""
    num_images: int = 4
    """Images in each figure: best, middle and worst ones by the report's rule."""

    def run(self) -> None:
        """Write everything, then list it."""
        from evaluate.paper.write import write_paper

        written = write_paper(
            self.scores,
            self.out,
            students=self.student,
            beside=self.beside,
            photographs=self.photographs,
            num_images=self.num_images,
        )
        print("\n".join(written))


@dataclass(frozen=True, kw_only=True)
class Specificity:
    """Tell whether maps explain their own black box: maps made for two of them, each scored on both."""

    scores: tuple[str, ...]
    """Folders that `python -m evaluate games` wrote: each black box's maps on itself, and with --cross-teacher on the
    other one."""
    table: str | None = None
    """Also write the tables, as .md or .csv; both are written."""

    def run(self) -> None:
        """Compare, then print the tables."""
        from evaluate.report.specificity import write_specificity

        print(write_specificity(self.scores, tables=self.table))


EVALUATE = (
    "Hold maps and students against the black box that they explain: games, measures and checks write Parquet and "
    "MLflow runs; report and tables read them."
)
Command = (
    Annotated[Games, tyro.conf.subcommand("games")]
    | Annotated[Metrics, tyro.conf.subcommand("measures")]
    | Annotated[Sanity, tyro.conf.subcommand("sanity")]
    | Annotated[Similarity, tyro.conf.subcommand("similarity")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[RankStability, tyro.conf.subcommand("substrates")]
    | Annotated[Tables, tyro.conf.subcommand("tables")]
    | Annotated[Specificity, tyro.conf.subcommand("specificity")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Run a subcommand; errors that the user can mend are one line on stderr and exit code 2."""
    parse: Any = tyro.cli
    return cli.run(lambda: parse(Command, prog=cli.prog("evaluate"), args=args, description=EVALUATE).run())


if __name__ == "__main__":
    sys.exit(main())
