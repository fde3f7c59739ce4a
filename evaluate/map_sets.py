"""The maps that a games job plays: which folders they lie in, and whether they may be compared at all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.storage import Folder, config_hash, same_fingerprint
from distill.data import ImageSet, open_images
from distill.data.versions import require_unchanged
from evaluate.stored import maps_config
from explain.maps import map_parts, read_part, saliency_maps

if TYPE_CHECKING:
    import pyarrow as pa

# Maps that differ in one of these are not about the same question: key -> what to say about it.
SAME = {
    "data_fingerprint": "different images; explain them with the same --data, --split, --limit and --per-class",
    "target": "different kinds of target; explain them with the same --target",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One folder of maps: one method in one configuration."""

    uri: str
    """The maps' folder."""
    config: dict[str, Any]
    """What `explain` stored there."""

    @property
    def method(self) -> str:
        """Return the method's name."""
        return self.config["method"]

    @property
    def config_hash(self) -> str:
        """Return the hash that the maps' rows carry."""
        return config_hash(self.config)

    def record(self) -> dict[str, Any]:
        """Describe the folder for the scores' configuration."""
        return {
            "uri": self.uri,
            "method": self.method,
            "config_hash": self.config_hash,
            "config": self.config,
        }


def open_sources(
    maps: Sequence[str], *, teacher: str, teacher_fingerprint: str, cross_teacher: bool = False
) -> list[Source]:
    """Open folders of maps and check that one black box can judge them side by side.

    Args:
        maps: the `--out` folders of `python -m explain`.
        teacher: the black box that scores, as the user named it.
        teacher_fingerprint: of that black box.
        cross_teacher: whether the maps must be of one other black box, instead of this one.

    Raises:
        ValueError: a folder is not finished or given twice, or the maps are of different images, targets or
            teachers; the message says what to do.
    """
    if not maps:
        raise ValueError("no maps given; give one or more --out folders of `python -m explain METHOD`")
    sources = [open_source(uri) for uri in maps]
    first = sources[0]
    for source in sources:
        for key, problem in SAME.items():
            _check_same(key, problem, first, source)
        if cross_teacher:
            _check_same("teacher_fingerprint", "different teachers; cross one at a time", first, source)
        _check_teacher(source, teacher, teacher_fingerprint, cross_teacher=cross_teacher)
    if first.config["target"] is None:
        raise ValueError(f"the maps in {first.uri} name no class to score; explain again with --teacher")
    _check_distinct(sources)
    return sources


def open_played_images(data: str, source: Source, limit: int | None = None, per_class: int | None = None) -> ImageSet:
    """Open the images that the maps explain, or the first `limit` of them, or `per_class` of each class.

    Raises:
        ValueError: the maps do not explain the images of `data`, or as `ImageSet.first`.
        FileNotFoundError: the folder is missing.
    """
    config = source.config
    images = open_images(data, split=config["split"], limit=config["limit"], per_class=config.get("per_class"))
    if images.fingerprint != config["data_fingerprint"]:
        raise ValueError(
            f"--data {data} ({len(images.image_ids)} images, {images.fingerprint}) is not what the maps in "
            f"{source.uri} were made of ({config['data']}, {config['data_fingerprint']}); give that folder"
        )
    return images.first(limit, per_class)


def map_items(sources: Sequence[Source], images: ImageSet) -> Iterator[dict[str, Any]]:
    """Yield one item per map to play: source (its number), part, row, and the image_id that must be there."""
    wanted = set(images.image_ids)
    for number, source in enumerate(sources):
        if source.config.get("data") == images.root:  # a copy elsewhere has other times
            require_unchanged(Folder(source.uri), images, what="maps")
        missing = set(wanted)
        for part in map_parts(source.uri):
            ids = read_part(source.uri, part, ["image_id"])["image_id"].to_pylist()
            for row, image_id in enumerate(ids):
                if image_id in wanted:
                    if image_id not in missing:
                        raise ValueError(
                            f"{source.uri} has two rows of {image_id!r}; explain again into another folder"
                        )
                    missing.remove(image_id)
                    yield {"source": number, "part": part, "row": row, "image_id": image_id}
        if missing:
            raise ValueError(
                f"{source.uri} has maps or error rows of {len(wanted) - len(missing)} of {len(wanted)} images; run its "
                "`python -m explain` again, it goes on where it stopped"
            )


def map_row(table: "pa.Table", place: int, image_id: str) -> dict[str, Any]:
    """Return a row of a maps' part as it was stored, with `saliency` as an array (H, W).

    A map that cannot be one has none, and an `error` that says why.
    """
    found = table.slice(place, 1)
    row = found.drop_columns(["saliency"]).to_pylist()[0]
    assert row["image_id"] == image_id, (row["image_id"], image_id)
    try:
        return {**row, "saliency": next(saliency_maps(found))}
    except ValueError as error:
        return {**row, "saliency": None, "error": str(error)}


def open_source(uri: str) -> Source:
    """Open one folder of maps. Raises: ValueError where it holds none, or is not finished."""
    folder = Folder(uri)
    config = maps_config(folder)
    if folder.finished() is None:
        raise ValueError(f"the maps in {uri} are not complete; run the same `python -m explain` again first")
    return Source(uri=folder.uri, config=config)


def _check_teacher(source: Source, teacher: str, teacher_fingerprint: str, *, cross_teacher: bool) -> None:
    """Refuse maps of another black box than the one that scores; with `cross_teacher`, those that are not."""
    made_for = source.config["teacher_fingerprint"]
    own = made_for is None or same_fingerprint(made_for, teacher_fingerprint)
    if cross_teacher and own:
        raise ValueError(
            f"the maps in {source.uri} were made for {source.config['teacher'] or 'no teacher'}, so {teacher} is no "
            "other one; leave --cross-teacher out"
        )
    if not cross_teacher and not own:
        raise ValueError(
            f"the maps in {source.uri} were made for teacher {source.config['teacher']} ({made_for}), "
            f"not for {teacher} ({teacher_fingerprint}); play them on their own teacher, in a job "
            "of their own, or on this one with --cross-teacher to see how specific they are"
        )


def _check_same(key: str, problem: str, first: Source, other: Source) -> None:
    got, wanted = other.config[key], first.config[key]
    same = same_fingerprint(got, wanted) if key.endswith("fingerprint") else got == wanted
    if not same:
        raise ValueError(
            f"maps of one job must belong together, but {first.uri} ({key} {wanted}) and {other.uri} "
            f"({key} {got}) are of {problem}"
        )


def _check_distinct(sources: Sequence[Source]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        if source.config_hash in seen:
            raise ValueError(
                f"{seen[source.config_hash]} and {source.uri} hold the same method with the same settings; "
                "give one of them"
            )
        seen[source.config_hash] = source.uri
