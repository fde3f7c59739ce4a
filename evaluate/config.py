"""Configurations of the commands of `python -m evaluate`: one dataclass each, which is its command line too.

A command gets its configuration whole. This file imports no torch: the command line reads it before any work starts.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from cluster.locations import Locations
from distill.teachers import split_spec
from evaluate.games.protocol import Protocol, RankedBy
from evaluate.metrics.settings import Metric, Settings

View = Literal["centre_crop", "resize"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Part that all commands share which query the black box."""

    data: str
    """Folder or URI of the images."""
    teacher: str
    """The black box, KIND:WHERE, such as onnx:model.onnx."""
    limit: int | None = None
    """Take only the first so many images, in sorted order."""
    per_class: int | None = None
    """Take only the first so many images of each class, in sorted order."""
    max_queries: int | None = None
    """Start only if the job needs at most so many queries to the black box; their number is printed first."""

    def check(self) -> None:
        """Check what needs no work. Raises: ValueError for a teacher of an unknown kind."""
        split_spec(self.teacher)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Part that all jobs share which write Parquet parts on several workers."""

    out: str
    """Folder or URI for the results; the same command again goes on where it stopped."""
    num_workers: int | None = None
    """Number of workers. Default: one per GPU, else one per four cores."""


@dataclass(frozen=True, kw_only=True)
class JobConfig(TeacherConfig, OutputConfig):
    """Part that all jobs share which query the black box on several workers."""


@dataclass(frozen=True, kw_only=True)
class MapsConfig(JobConfig):
    """Part that all jobs share which read stored maps."""

    maps: tuple[str, ...]
    """Folders that `python -m explain` wrote, one per method; all of the same images and teacher."""


@dataclass(frozen=True, kw_only=True)
class GamesConfig(MapsConfig):
    """Play the insertion and deletion games with stored maps on the black box; write scores to Parquet and MLflow."""

    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
    """The protocol."""
    cross_teacher: bool = False
    """Score maps that were made for another black box than --teacher, for `python -m evaluate specificity`."""


@dataclass(frozen=True, kw_only=True)
class MetricsConfig(MapsConfig):
    """Compute metrics of stored maps besides the games: ROAD, mu-fidelity, pointing, max-sensitivity, fidelity."""

    measures: tuple[Metric, ...] = ("road", "mu_fidelity")
    """Metrics to compute; pointing and energy need masks or boxes of the objects, max_sensitivity and fidelity need
    --student."""
    student: str | None = None
    """RUN folder of `python -m distill` that the maps explain."""
    boxes: str | None = None
    """Folder of boxes, NAME.xml for each image NAME.* (PASCAL-VOC, as ImageNet's). Default: those of the data set."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    """The metrics' settings."""


@dataclass(frozen=True, kw_only=True)
class SanityConfig(JobConfig):
    """Check that maps depend on what the student has learned: randomize its parameters, explain another class."""

    student: str
    """RUN folder of `python -m distill` whose maps are checked."""
    methods: tuple[str, ...] = ()
    """Methods that explain a student, with their default options. Default: all of them; score_cam and mask take
    hundreds of passes a map, and an image needs up to nine maps."""
    other_student: str | None = None
    """RUN folder of another student to compare with, such as one of `python -m distill ... --shuffled`."""
    split: str | None = None
    """Part of the data set: train, val or test. Default: val, else test, else everything."""
    seed: int = 0
    """Seed of the randomized parameters, and of seeded methods."""


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(TeacherConfig):
    """Compute how often student and teacher rank the same classes first, in the same order (Sim 1 to 5)."""

    student: str
    """Folder that `python -m distill` wrote; the result is stored there too."""
    split: str | None = None
    """Part of the data set: train, val or test. Default: val, else test, else everything."""
    view: View = "centre_crop"
    """What both models see of an image: the validation crop, or the whole image as it is explained and scored."""


@dataclass(frozen=True, kw_only=True)
class InsightsConfig(OutputConfig):
    """Find what a black box relies on: clusters of each class's maps, tested by changing images; or compare two models.

    Without --teacher nothing is tested, and nothing is confirmed.
    """

    maps: str
    """Folder that `python -m explain` wrote; small maps (--map-cells 28) are enough."""
    data: str
    """Folder or URI of the images."""
    teacher: str | None = None
    """The black box that the maps explain, KIND:WHERE: each suspicion is tested on it. Default: no test."""
    against: str | None = None
    """Folder of maps of another model by the same method and of the same images: where does it look elsewhere, although
    it predicts the same?"""
    fail_above: float | None = None
    """End with status 1 where the mean change of a class's maps to those of --against is above this value (0 to 1) with
    95 % confidence."""
    boxes: str | None = None
    """Folder of boxes, NAME.xml for each image NAME.* (PASCAL-VOC, as ImageNet's). Default: those of the data set."""
    limit: int | None = None
    """Take only the first so many images, in sorted order."""
    per_class: int | None = None
    """Take only the first so many images of each class, in sorted order."""
    max_suspicions: int = 20
    """Number of suspicions that are tested at most, the clearest first."""
    num_tested: int = 40
    """Number of images that each suspicion is tested on at most; an image takes seven queries."""
    max_queries: int | None = None
    """Test only if that needs at most so many queries to the black box; their number is printed first."""
    seed: int = 0
    """Seed of the clusters, of the tested images and of random regions."""

    def check(self) -> None:
        """Check what needs no work. Raises: ValueError."""
        if self.teacher is not None:
            split_spec(self.teacher)
        if self.fail_above is not None and (self.against is None or not 0 <= self.fail_above <= 1):
            raise ValueError(
                f"fail_above {self.fail_above} is not allowed; give 0 to 1, and the other model's maps by --against"
            )
        for name, least in (("max_suspicions", 0), ("num_tested", 10)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give {least} or more")


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """Part that all commands share which read scores."""

    scores: tuple[str, ...]
    """Folders that `python -m evaluate games` wrote."""

    def check(self) -> None:
        """Check what needs no work. Raises: ValueError."""


@dataclass(frozen=True, kw_only=True)
class StoredConfig(ScoresConfig):
    """Part that commands share which open what the scores' configurations name.

    A configuration may come from somebody else, so a location in it is opened only where it lies on this machine
    beside the scores, or where the user named it too.
    """

    data: tuple[str, ...] = ()
    """Folder or URI of the scored images. Needed to show images that lie elsewhere than beside the scores."""
    maps: tuple[str, ...] = ()
    """Folders or URIs of the scored maps, or one above them. Needed for maps elsewhere than beside the scores."""
    student: tuple[str, ...] = ()
    """RUN folders of the students of the maps. Needed for students elsewhere than beside the scores."""
    photographs: bool = True
    """Show the images themselves."""

    @property
    def locations(self) -> Locations:
        """Locations that the command may open: those that the user named."""
        return Locations((*self.scores, *self.data, *self.maps, *self.student))


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoredConfig):
    """Write one self-contained HTML page: table of methods, curves, gallery, agreement, commands."""

    measures: tuple[str, ...] = ()
    """Folders that `python -m evaluate measures` wrote, of the same maps: more columns, and fidelity flags."""
    out: str
    """HTML file to write, a path or URI."""
    num_gallery: int = 8
    """Number of images in the gallery."""
    table: str | None = None
    """Also write the table of methods, as .md or .csv; both are written."""
    query_plot: str | None = None
    """Also write the plot of quality against queries, both games side by side, as .png."""
    beside: str | None = None
    """Data set of the paper's whose order of methods is compared with ours, such as imagenet. Default: that of the same
    name, if it has one."""
    against: str | None = None
    """Method that the others are tested against: its folder of maps, such as rise_4000, or its name in the table.
    Default: mal_grad_cam."""

    def check(self) -> None:
        """Check what needs no work. Raises: ValueError."""
        if self.query_plot is not None and not self.query_plot.endswith(".png"):
            raise ValueError(f"query_plot {self.query_plot} must end in .png")
        if self.num_gallery < 0:
            raise ValueError(f"num_gallery {self.num_gallery} is not allowed; give 0 or more")

    @property
    def locations(self) -> Locations:
        """Locations that the command may open: those that the user named."""
        return Locations((*super().locations.named, *self.measures))


@dataclass(frozen=True, kw_only=True)
class StabilityConfig(ScoresConfig):
    """Compare the order of methods under other baselines and steps: ranks, Kendall's tau, win rates."""

    measure: RankedBy = "gap"
    """Number that ranks the methods; gap is insertion minus deletion AUC, a gain needs --least-relevant scores."""
    table: str | None = None
    """Also write the tables, as .md or .csv; both are written."""


@dataclass(frozen=True, kw_only=True)
class SpecificityConfig(ScoresConfig):
    """Compare maps made for two black boxes, each scored on both: do maps explain their own black box?"""

    table: str | None = None
    """Also write the tables, as .md or .csv; both are written."""


@dataclass(frozen=True, kw_only=True)
class PaperConfig(StoredConfig):
    """Write the paper's tables 1 to 3 and figures 5 and 6 from our scores, beside the paper's printed numbers."""

    out: str
    """Folder or URI for table1 ... table3 (.md, .csv, .tex) and the figures (.png)."""
    beside: tuple[str, ...] = ()
    """NAME=ROW for a data set that stands beside a row of the paper with another name, such as cars_40=cars."""
    num_images: int = 4
    """Number of images in each figure: best, middle and worst ones by the report's rule."""

    def check(self) -> None:
        """Check what needs no work. Raises: ValueError."""
        if self.num_images < 1:
            raise ValueError(f"num_images {self.num_images} is too small; give 1 or more")
