"""The measures' job: its worker without Ray, what is refused before work, and once the whole command on Ray."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from project_paths import HELPERS, ROOT
from scipy import stats

from cluster.session import ray_session
from cluster.storage import Folder
from distill.data import open_images
from distill.data.decode import decode, resize
from distill.data.frames import without_image_ids
from distill.perturb.curves import rank_pixels
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from evaluate.__main__ import main
from evaluate.games.baselines import BASELINES, image_rng
from evaluate.map_sets import open_played_images, open_sources
from evaluate.metrics.compute import FUNCTIONS, Subject
from evaluate.metrics.job import MetricsWork, MetricsWorker, image_items
from evaluate.metrics.max_sensitivity import max_sensitivity
from evaluate.metrics.mu_fidelity import draw_subsets, mu_fidelity, subset_frames, subset_sums
from evaluate.metrics.objects import Objects
from evaluate.metrics.pointing import mass_inside
from evaluate.metrics.road import road_frames
from evaluate.metrics.settings import FIELDS, HIGHER_IS_BETTER, METRICS, ROWS, Settings, settings_hash
from evaluate.metrics.student_passes import check_student
from evaluate.metrics.summary import mlflow_metrics, summarize_metrics
from evaluate.statistics import mean_interval
from explain.maps import maps_table
from explain.methods.query.rise import rise_masks
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.seeds import image_seed

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEACHER = "python:box_teacher:make"
METHODS = ("mal_grad_cam", "random")
NAMES = {
    "mal_grad_cam": set(HIGHER_IS_BETTER),
    "random": set(HIGHER_IS_BETTER) - {"max_sensitivity", *ROWS["fidelity"]},
}
NUM_IMAGES = 6
BROKEN, NOT_FINITE, CONSTANT, NO_MASK = 1, 2, 3, 4  # numbers of the images that differ
SETTINGS = Settings(
    percentages=(20, 60), num_subsets=16, grid=4, num_perturbations=3, tolerance_px=2, num_masks=8, num_points=5
)
STUDENT_SIZE = (40, 48)


def write_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    (root / "masks").mkdir(parents=True)
    for k in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((36, 24)).save(root / f"{k:02d}.png")
        mask = np.zeros((24, 36), dtype=np.uint8)
        mask[4:16, 6:24] = 255
        if k != NO_MASK:
            Image.fromarray(mask).save(root / "masks" / f"{k:02d}.png")
    (root / f"{BROKEN:02d}.png").write_bytes(b"no image")
    return root


def make_student(folder: Path) -> Student:
    torch.manual_seed(0)
    model = ResCBAM(18, 3).eval()
    half = (0.5, 0.5, 0.5)
    teacher = load_teacher(TEACHER)
    student = Student(
        model=model,
        input_size=STUDENT_SIZE,
        mean=half,
        std=half,
        teacher=TEACHER,
        teacher_fingerprint=teacher.fingerprint,
    )
    return save_student(Folder(str(folder)), student)


def maps_config(data: Path, method: str, student: Student | None, run: Path) -> dict[str, Any]:
    images = open_images(str(data))
    explains = method == "mal_grad_cam" and student is not None
    return {
        "schema_version": 1,
        "method": method,
        "options": {},
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": None,
        "limit": None,
        "student": str(run) if explains else None,
        "student_fingerprint": student.fingerprint if explains and student else None,
        "teacher": TEACHER,
        "teacher_fingerprint": load_teacher(TEACHER).fingerprint,
        "target": "teacher",
        "seed": 0,
    }


def make_saliency(method: str, k: int) -> np.ndarray:
    saliency = np.random.default_rng([len(method), k]).random((8, 8), dtype=np.float32)
    if k == NOT_FINITE and method == "random":
        saliency[2, 2] = np.nan
    return np.full_like(saliency, 0.3) if k == CONSTANT else saliency


def frame(data: Path, k: int, size: tuple[int, int] = box_teacher.SIZE) -> np.ndarray:
    return resize(decode((data / f"{k:02d}.png").read_bytes()), size)


def target_of(data: Path, k: int) -> int:
    return int(box_teacher.make()(frame(data, k)[None])[0].argmax())


def write_maps(data: Path, out: Path, method: str, student: Student | None, run: Path) -> str:
    config, rows = maps_config(data, method, student, run), []
    folder = Folder(str(out))
    folder.claim(config, what="maps")
    for k in range(NUM_IMAGES):
        row: dict[str, Any] = {"image_id": f"{k:02d}.png", "error": "the file cannot be decoded"}
        if k != BROKEN:
            saliency = make_saliency(method, k)
            row |= {"target": target_of(data, k), "error": None, "saliency": saliency}
            row |= {"map_height": saliency.shape[0], "map_width": saliency.shape[1]}
        rows.append(row)
    for part, start in enumerate(range(0, NUM_IMAGES, 4)):
        pq.write_table(maps_table(rows[start : start + 4], config), out / f"part-{part:05d}.parquet")
    folder.finish({"rows": NUM_IMAGES})
    return str(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("measures")
    data, run = write_images(root / "photos"), root / "run"
    student = make_student(run)
    maps = [write_maps(data, root / name, name, student, run) for name in METHODS]
    return SimpleNamespace(root=root, data=data, run=str(run), maps=maps)


def work_of(place: SimpleNamespace, measures: tuple[Any, ...], **changes: Any) -> MetricsWork:
    fields = {name: SETTINGS.fields(name, target="teacher", objects="masks") for name in measures}
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint, "boxes": None}
    stored |= {"student": place.run, "student_fingerprint": load_student(place.run).fingerprint, "measures": fields}
    images = without_image_ids(open_images(str(place.data)))
    sources = open_sources(place.maps, teacher=TEACHER, teacher_fingerprint=load_teacher(TEACHER).fingerprint)
    return MetricsWork(stored={**stored, **changes}, settings=SETTINGS, sources=sources, images=images)


def items_of(place: SimpleNamespace) -> list[Any]:
    sources = work_of(place, METRICS).sources
    images = open_played_images(str(place.data), sources[0], None)
    return json.loads(json.dumps(image_items(sources, images)))


@pytest.fixture(scope="module")
def table(place: SimpleNamespace) -> Any:
    worker = MetricsWorker(work_of(place, METRICS))
    place.asked = count_queries(worker)
    return worker(items_of(place)).to_pandas()


def count_queries(worker: MetricsWorker) -> list[int]:
    asked: list[int] = []
    forward = worker.teacher.forward

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixels))
        return forward(pixels)

    worker.teacher.forward = counted
    return asked


def value(table: Any, method: str, k: int, measure: str) -> float:
    rows = table[(table["method"] == method) & (table["image_id"] == f"{k:02d}.png") & (table["measure"] == measure)]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_every_image_method_and_measure_is_one_row(table):
    keys = table[["image_id", "method", "measure"]]
    assert len(table) == NUM_IMAGES * sum(map(len, NAMES.values())) == NUM_IMAGES * (14 + 6)
    assert not keys.duplicated().any()
    assert (table["value"].isna() == table["error"].notna()).all()
    assert set(table["measure"]) == set(HIGHER_IS_BETTER)
    for measure in METRICS:
        wanted = settings_hash(SETTINGS.fields(measure, target="teacher", objects="masks"))
        assert set(table[table["measure"].isin(ROWS[measure])]["protocol_hash"]) == {wanted}
    assert table.groupby("method")["config_hash"].nunique().eq(1).all()


def test_rows_without_a_value_say_why(table):
    errors = table[table["error"].notna()].set_index(["image_id", "method", "measure"])["error"]
    assert set(errors[f"{BROKEN:02d}.png"]) == {"ImageError: the file cannot be decoded: not an image of a known "
        "format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)"}  # fmt: skip
    assert set(errors[f"{NOT_FINITE:02d}.png", "random"]) == {"the map holds values that are not finite"}
    constant = errors[f"{CONSTANT:02d}.png", "mal_grad_cam"]
    assert set(constant.index) == {"pointing_game", "energy_inside"}
    assert "constant" in constant["pointing_game"]
    assert set(errors[f"{NO_MASK:02d}.png", "mal_grad_cam"].index) == {"pointing_game", "energy_inside"}
    assert "no object mask" in errors[f"{NO_MASK:02d}.png", "mal_grad_cam", "energy_inside"]
    assert "00.png" not in errors.index


def test_what_asks_the_student_has_no_rows_of_other_maps(table):
    names = table.groupby("method")["measure"].agg(set)
    assert names.to_dict() == NAMES


def test_shared_frames_are_asked_once_and_every_query_is_counted(place, table):
    """Whole image and 16 subsets once an image, 4 frames of ROAD a map; for fidelity whole image and 8 masks once an
    image, 5 frames of each game a map of the student.
    """
    images = NUM_IMAGES - 1
    maps = images * 2 - 1
    assert sum(place.asked) == images * 17 + maps * 4 + images * 9 + images * 10
    assert table["teacher_queries"].sum() == pytest.approx(sum(place.asked))
    assert (table[table["error"].isna()]["seconds"] > 0).sum() > 0
    assert (table["seconds"] >= 0).all()


def test_values_are_those_of_the_formulas(place, table):
    teacher = load_teacher(TEACHER)
    for method in METHODS:
        for k in (0, 5):
            image_id, target = f"{k:02d}.png", target_of(place.data, k)
            pixels, saliency = teacher.normalize(frame(place.data, k)[None])[0], make_saliency(method, k)
            ranks = rank_pixels(torch.from_numpy(saliency), teacher.input_size).ranks
            frames = road_frames(pixels, ranks, percentages=(20, 60), rng=image_rng(0, image_id))
            probs = teacher.forward(frames)[:, target].numpy()
            assert value(table, method, k, "road_morf") == pytest.approx(probs[:2].mean(), abs=1e-6)
            assert value(table, method, k, "road_lerf") == pytest.approx(probs[2:].mean(), abs=1e-6)
            gap = probs[2:].mean() / 2 - probs[:2].mean() / 2
            assert value(table, method, k, "road_gap") == pytest.approx(gap, abs=1e-6)
            subsets = draw_subsets(image_rng(0, image_id), grid=4, num=16)
            shown = subset_frames(pixels, subsets, baseline=torch.zeros_like(pixels))
            drops = teacher.forward(pixels[None])[0, target] - teacher.forward(shown)[:, target]
            sums = subset_sums(torch.from_numpy(saliency), subsets, teacher.input_size)
            wanted = mu_fidelity(sums, drops.numpy())
            assert value(table, method, k, "mu_fidelity") == pytest.approx(wanted, abs=1e-4)
            mask = open_images(str(place.data)).mask(image_id)
            assert mask is not None
            assert value(table, method, k, "energy_inside") == pytest.approx(mass_inside(saliency, mask))
            assert value(table, method, k, "pointing_game") in (0, 1)


def test_max_sensitivity_is_of_the_methods_own_maps(place, table):
    student, target = load_student(place.run), torch.tensor([target_of(place.data, 0)])

    def explain(frames: np.ndarray) -> np.ndarray:
        made = [mal_grad_cam(student.model, student.normalize(one[None] * 255), target)[0] for one in frames]
        return torch.stack(made).numpy()

    image = frame(place.data, 0, STUDENT_SIZE).astype(np.float32) / 255
    wanted = max_sensitivity(explain, image, num=3, rng=image_rng(0, "00.png"))
    assert wanted > 0
    assert value(table, "mal_grad_cam", 0, "max_sensitivity") == pytest.approx(wanted, rel=1e-2)


def test_fidelity_is_of_what_both_see(place, table):
    """The games' frames are played here; the student sees them through Pillow, as floats, colour by colour."""
    teacher, student = load_teacher(TEACHER), load_student(place.run)
    height, width = STUDENT_SIZE

    def seen(pixels: torch.Tensor) -> np.ndarray:
        colours = pixels.numpy() * np.array(teacher.std)[:, None, None] + np.array(teacher.mean)[:, None, None]
        images = [Image.fromarray(np.float32(colour)).resize((width, height), 2) for colour in colours]
        return np.stack([np.asarray(one) for one in images], axis=2) * 255

    def kl_and_same(pixels: list[torch.Tensor], shown: list[np.ndarray]) -> tuple[float, float]:
        p = teacher.forward(torch.stack(pixels)).double()
        q = student.model(student.normalize(np.stack(shown))).double().softmax(dim=1)
        same = [int(a.argmax()) == int(b.argmax()) for a, b in zip(p, q, strict=True)]
        scores.append((p, q))
        return float((p * (p / q).log()).sum(dim=1).mean()), float(np.mean(same))

    correlate: Any = stats.spearmanr
    for k in (0, 5):
        scores: list[tuple[torch.Tensor, torch.Tensor]] = []
        image_id, target = f"{k:02d}.png", target_of(place.data, k)
        pixels = teacher.normalize(frame(place.data, k)[None])[0]
        own = {name.removeprefix("fidelity_"): value(table, "mal_grad_cam", k, name) for name in ROWS["fidelity"]}
        kl, same = kl_and_same([pixels], [frame(place.data, k, STUDENT_SIZE).astype(np.float32)])
        assert (own["clean_kl"], own["clean_agreement"]) == (pytest.approx(kl, rel=1e-4), same)
        seed, size = image_seed(0, image_id, "rise"), box_teacher.SIZE
        masks = [
            *rise_masks(range(4), seed=seed, size=size, num_cells=7, keep_probability=0.5),
            *rise_masks(range(4), seed=seed, size=size, num_cells=8, keep_probability=0.1),
        ]
        masked = [pixels * mask for mask in masks]
        kl, same = kl_and_same(masked, [seen(one) for one in masked])
        assert (own["masked_kl"], own["masked_agreement"]) == (pytest.approx(kl, rel=1e-4), same)
        p, q = (answers[:, target].numpy() for answers in scores[-1])
        by_family = [correlate(p[half], q[half]).statistic for half in (slice(4), slice(4, 8))]
        assert own["masked_correlation"] == pytest.approx(np.mean(by_family))
        order = np.argsort(rank_pixels(torch.from_numpy(make_saliency("mal_grad_cam", k)), size).ranks.flatten())
        ends = (pixels, torch.zeros_like(pixels)), (BASELINES["blur"](pixels, mean=(), std=(), rng=None), pixels)
        frames = []
        for start, finish in ends:
            for point in (0, 3, 6, 9, 12):  # 12 steps of a row's width
                shown = start.clone().flatten(1)
                shown[:, order[: point * 18]] = finish.flatten(1)[:, order[: point * 18]]
                frames.append(shown.view_as(start))
        kl, same = kl_and_same(frames, [seen(one) for one in frames])
        assert (own["frames_kl"], own["frames_agreement"]) == (pytest.approx(kl, rel=1e-4), same)


class Twin:
    """A student that is the black box: of its input size and seeing what it sees."""

    def __init__(self) -> None:
        self.box, self.asked = box_teacher.make(), 0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.asked += len(frames)
        return np.log(self.box(np.round(frames * 255).astype(np.uint8))).astype(np.float32)


def subject_of(place: SimpleNamespace, k: int, answer: Any) -> Subject:
    teacher = load_teacher(TEACHER)
    return Subject(
        image_id=f"{k:02d}.png",
        pixels=teacher.normalize(frame(place.data, k)[None])[0],
        maps=[torch.from_numpy(make_saliency(method, k)) for method in METHODS],
        targets=[target_of(place.data, k)] * 2,
        mask=lambda: np.zeros(box_teacher.SIZE, bool),
        explain=[lambda frames: frames[..., 0], None],
        frame=lambda: frame(place.data, k).astype(np.float32) / 255,
        answer=answer,
    )


def test_a_student_that_is_the_black_box_is_faithful(place):
    twin = Twin()
    (own,) = FUNCTIONS["fidelity"](subject_of(place, 0, twin).only([0]), SETTINGS, load_teacher(TEACHER))
    assert own == pytest.approx((1, 0, 1, 0, 1, 1, 0), abs=1e-6)
    assert twin.asked == 1 + 8 + 2 * 5


def test_a_planted_disagreement_is_found_where_it_is(place):
    """The student takes one class for another on the whole image, on the mean colour, or under one mask."""

    def values(is_wrong: Any) -> dict[str, Any]:
        twin = Twin()

        def answer(frames: np.ndarray) -> np.ndarray:
            logits = twin(frames)
            return np.where(is_wrong(frames)[:, None], -logits, logits)

        (found, _) = FUNCTIONS["fidelity"](subject_of(place, 0, answer), SETTINGS, load_teacher(TEACHER))
        return dict(zip(ROWS["fidelity"], found, strict=True))

    image = frame(place.data, 0) / np.float32(255)
    box = box_teacher.make()

    def is_image(frames: np.ndarray) -> np.ndarray:
        return np.abs(frames - image).max(axis=(1, 2, 3)) < 1e-5

    def is_flat(frames: np.ndarray) -> np.ndarray:
        return np.ptp(frames, axis=(1, 2)).max(axis=1) < 1e-5

    p = box(frame(place.data, 0)[None])[0]
    kl = float((p * np.log(p * (1 / p).sum() * p)).sum())  # against q = (1 / p) / sum (1 / p)
    whole = values(is_image)  # it is the first frame of deletion too, and the last of insertion
    assert whole["fidelity_clean_agreement"] == 0
    assert whole["fidelity_clean_kl"] == pytest.approx(kl, rel=1e-4)
    assert whole["fidelity_frames_agreement"] == pytest.approx(0.8)
    assert whole["fidelity_frames_kl"] == pytest.approx(kl * 0.2, rel=1e-3)
    assert (whole["fidelity_masked_agreement"], whole["fidelity_masked_kl"]) == (1, pytest.approx(0, abs=1e-6))
    flat = values(is_flat)
    assert (flat["fidelity_clean_agreement"], flat["fidelity_masked_agreement"]) == (1, 1)
    assert flat["fidelity_frames_agreement"] == pytest.approx(0.9)
    few = values(lambda frames: np.arange(len(frames)) % 9 == 3 if len(frames) == 9 else np.zeros(len(frames), bool))
    assert few["fidelity_masked_agreement"] == pytest.approx(7 / 8)
    assert few["fidelity_masked_correlation"] < 1
    assert few["fidelity_clean_agreement"] == few["fidelity_frames_agreement"] == 1


def test_a_student_that_answers_with_nothing_has_a_row_that_says_so(place):
    with pytest.raises(ValueError, match="not finite"):
        FUNCTIONS["fidelity"](
            subject_of(place, 0, lambda frames: np.full((len(frames), 3), np.nan, np.float32)),
            SETTINGS,
            load_teacher(TEACHER),
        )


def test_an_image_alone_is_the_same_as_in_a_shard(place, table):
    worker = MetricsWorker(work_of(place, ("road", "mu_fidelity", "max_sensitivity", "fidelity")))
    alone = worker([items_of(place)[5]]).to_pandas()
    together = table.set_index(["image_id", "method", "measure"])["value"]
    for row in alone.to_dict("records"):
        other = together[row["image_id"], row["method"], row["measure"]]
        assert row["value"] == other or (np.isnan(row["value"]) and np.isnan(other))


def test_boxes_stand_in_for_masks(place, tmp_path):
    size = "<size><width>36</width><height>24</height></size>"
    box = "<bndbox><xmin>6</xmin><ymin>4</ymin><xmax>24</xmax><ymax>16</ymax></bndbox>"
    (tmp_path / "00.xml").write_text(f"<annotation>{size}<object>{box}</object></annotation>")
    images = open_images(str(place.data))
    objects = Objects(images=images, boxes=str(tmp_path))
    objects.check()
    worker = MetricsWorker(work_of(place, ("energy",), boxes=str(tmp_path)))
    rows = worker([item for item in items_of(place) if item["image_id"] in ("00.png", "05.png")]).to_pandas()
    mask = images.mask("00.png")
    assert mask is not None
    plain = objects.mask("00.png", box_teacher.SIZE)
    assert np.array_equal(plain, mask[1::2, 1::2])
    assert value(rows, "random", 0, "energy_inside") == mass_inside(make_saliency("random", 0), plain)
    assert set(rows[rows["image_id"] == "05.png"]["error"]) == {f"{tmp_path} has no 05.xml"}


def test_what_a_measure_needs_is_asked_for_before_work(place, tmp_path):
    sources = work_of(place, METRICS).sources
    teacher, asked = load_teacher(TEACHER), ("max_sensitivity", "fidelity")
    assert check_student(place.run, sources, teacher, asked) == load_student(place.run).fingerprint
    with pytest.raises(ValueError, match="give --student RUN"):
        check_student(None, sources, teacher, asked)
    of_teacher = dataclasses.replace(sources[0], config={**sources[0].config, "explains": "teacher"})
    for useless in (sources[1], of_teacher):
        with pytest.raises(ValueError, match="explains a student"):
            check_student(place.run, [useless], teacher, asked)
    other = dataclasses.replace(sources[0], config={**sources[0].config, "student_fingerprint": "0" * 12})
    with pytest.raises(ValueError, match="give that student"):
        check_student(place.run, [other], teacher, asked)
    stranger = load_teacher("python:box_teacher:make_other")
    with pytest.raises(ValueError, match="give its own teacher"):
        check_student(place.run, sources, stranger, asked)
    assert check_student(place.run, sources, stranger, ("max_sensitivity",))
    bare = tmp_path / "bare"
    shutil.copytree(place.data, bare, ignore=shutil.ignore_patterns("masks"))
    with pytest.raises(ValueError, match=r"no object masks.*--boxes"):
        Objects(images=open_images(str(bare))).check()
    with pytest.raises(ValueError, match=r"no annotation of any image.*00\.xml"):
        Objects(images=open_images(str(bare)), boxes=str(bare)).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "magic:box"], "unknown teacher kind"),
        (["--measures", "max_sensitivity"], "give --student RUN"),
        (["--percentages", "0", "50"], "percentages (0, 50)"),
        (["--percentages", "50", "50"], "percentages (50, 50)"),
        (["--num-subsets", "1"], "num_subsets 1"),
        (["--measures", "fidelity"], "give --student RUN"),
        (["--num-masks", "7"], "num_masks 7"),
        (["--num-points", "1"], "num_points 1"),
        (["--boxes", "/nowhere", "--measures", "pointing"], "no annotation of any image"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(place, tmp_path, capsys, change, message):
    given = ["--maps", *place.maps, "--data", str(place.data), "--teacher", TEACHER, "--out", str(tmp_path / "out")]
    assert main(["measures", *given, *change]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_hashes_name_a_measures_own_settings():
    """A setting moves the hash of its own measure alone."""

    def hashes(settings: Settings, **changes: Any) -> dict[str, str]:
        given: dict[str, Any] = {"target": "teacher", "objects": "masks", **changes}
        return {name: settings_hash(settings.fields(name, **given)) for name in METRICS}

    before = hashes(Settings())
    assert hashes(Settings(tolerance_px=15.0, percentages=Settings().percentages[::-1])) == before
    assert len(set(before.values())) == len(METRICS)
    assert {name for names in FIELDS.values() for name in names} == {f.name for f in dataclasses.fields(Settings)}
    for after, moved in (
        (hashes(Settings(percentages=(50,))), {"road"}),
        (hashes(Settings(num_subsets=64)), {"mu_fidelity"}),
        (hashes(Settings(radius=0.1)), {"max_sensitivity"}),
        (hashes(Settings(num_masks=50)), {"fidelity"}),
        (hashes(Settings(num_points=5)), {"fidelity"}),
        (hashes(Settings(seed=1)), {"road", "mu_fidelity", "max_sensitivity", "fidelity"}),
        (hashes(Settings(), objects="boxes"), {"pointing", "energy"}),
        (hashes(Settings(), target="label"), set(METRICS)),
    ):
        assert {name for name in METRICS if after[name] != before[name]} == moved


def test_measured_is_a_mean_with_its_interval_and_its_errors(place, tmp_path, table):
    write_measured(place, tmp_path / "out", METRICS)
    found = {(one.label, one.metric): one for one in summarize_metrics([str(tmp_path / "out")])}
    assert set(found) == {(method, name) for method in METHODS for name in NAMES[method]}
    rows = table[(table["method"] == "random") & (table["measure"] == "mu_fidelity")]
    one = found["random", "mu_fidelity"]
    assert one.value == mean_interval(rows["value"].dropna().to_numpy())
    assert one.values.to_dict() == rows.dropna(subset="value").set_index("image_id")["value"].to_dict()
    assert (one.value.num, one.num_errors) == (int(rows["value"].notna().sum()), int(rows["value"].isna().sum()))
    nowhere = dataclasses.replace(one, metric="road_gap", values=one.values.iloc[:0], num_errors=NUM_IMAGES)
    assert nowhere.value.num == 0
    named = mlflow_metrics([one, nowhere])
    assert named == {"metrics/mu_fidelity": one.value.mean}


def test_folders_of_different_measures_come_together_and_the_same_twice_does_not(place, tmp_path):
    first = write_measured(place, tmp_path / "first", ("road",))
    second = write_measured(place, tmp_path / "second", ("energy",))
    assert {one.metric for one in summarize_metrics([first, second])} == {*ROWS["road"], *ROWS["energy"]}
    with pytest.raises(ValueError, match="stands in"):
        summarize_metrics([first, first])
    with pytest.raises(ValueError, match="holds no metrics"):
        summarize_metrics([place.maps[0]])
    others = {
        "the black box: t": {"teacher_fingerprint": "0" * 12},
        "road: settings .*, images d": {"data_fingerprint": "0" * 12},
        "road: settings": {"measures": {"road": Settings().fields("road", target="teacher", objects="masks")}},
    }
    for k, (message, changes) in enumerate(others.items()):
        other = write_measured(place, tmp_path / f"other-{k}", ("road",), **changes)
        with pytest.raises(ValueError, match=f"{message}.*cannot stand in one table"):
            summarize_metrics([first, other])
    fewer = write_measured(place, tmp_path / "fewer", ("energy",), data_fingerprint="0" * 12)  # --limit of its own
    assert len(summarize_metrics([first, fewer])) == 8


def write_measured(place: SimpleNamespace, out: Path, names: tuple[Any, ...], **changes: Any) -> str:
    """Write a folder as the job does, in this process."""
    work = work_of(place, names)
    records = [source.record() for source in work.sources]
    described = {"maps": records, "data": "photos", "data_fingerprint": "d", "teacher_fingerprint": "t"}
    folder = Folder(str(out))
    folder.claim({**work.stored, **described, **changes}, what="metrics")
    pq.write_table(MetricsWorker(work)(items_of(place)), out / "part-00000.parquet")
    return folder.uri


@pytest.fixture
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")  # the workers import the black box too
        with ray_session():
            yield


@pytest.mark.slow
def test_the_command_writes_measures_on_ray_and_tells_mlflow(place, table, ray_here, monkeypatch, capsys):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{place.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    out = str(place.root / "measures")
    words = ["--maps", *place.maps, "--data", str(place.data), "--teacher", TEACHER, "--out", out]
    words += ["--student", place.run, "--measures", *METRICS, "--percentages", "20", "60", "--num-subsets", "16"]
    words += ["--grid", "4", "--num-perturbations", "3", "--tolerance-px", "2", "--num-masks", "8", "--num-points", "5"]
    for _ in range(2):  # the second start finds everything done
        assert main(["measures", *words]) == 0
    assert f"{len(table)} rows" in capsys.readouterr().out
    found = pd.read_parquet(out)
    costs = ["seconds"]
    pd.testing.assert_frame_equal(
        found.drop(columns=["config_hash", *costs]), table.drop(columns=["config_hash", *costs]), rtol=1e-3
    )
    client: Any = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("photos").experiment_id])
    assert sorted(run.data.tags["method"] for run in runs) == sorted(METHODS)
    assert {run.data.tags["stage"] for run in runs} == {"measures"}
    for run in runs:
        file = client.download_artifacts(run.info.run_id, "metrics.json")
        table = pd.read_json(file, orient="split").set_index("name")
        assert set(table.index) == set(NAMES[run.data.tags["method"]])
        row = table.loc["road_gap"]
        assert row["low"] <= run.data.metrics["metrics/road_gap"] <= row["high"]
