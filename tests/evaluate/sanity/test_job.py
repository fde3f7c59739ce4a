"""The checks' job: its worker without Ray, what is refused before work, and once the whole command on Ray."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pandas as pd
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
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import RefusedImageError, load_teacher
from evaluate.__main__ import main
from evaluate.config import SanityConfig
from evaluate.sanity.checks import STAGES, untrained
from evaluate.sanity.job import SanityWork, SanityWorker, Subject, _row, check_maps, check_methods, load_other, pairs
from evaluate.sanity.summary import SIMILARITIES, mlflow_metrics, summarize_checks
from evaluate.statistics import mean_interval
from explain.methods.registry import METHODS
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.runners.white_box import Explanation

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEACHER = "python:box_teacher:make"
NAMES = ("mal_grad_cam", "matt", "cam")
NUM_IMAGES, BROKEN = 5, 1
SIZE = (40, 48)


def write_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir()
    for k in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((36, 24)).save(root / f"{k:02d}.png")
    (root / f"{BROKEN:02d}.png").write_bytes(b"no image")
    return root


def make_student(folder: Path, seed: int, **changes: Any) -> str:
    torch.manual_seed(seed)
    model = ResCBAM(18, changes.pop("num_classes", 3))
    for name, value in model.state_dict().items():  # gates that are open differently from place to place
        if name.endswith("spatial.bn.weight"):
            value.fill_(1.5)
    half = (0.5, 0.5, 0.5)
    fields = {"input_size": SIZE, "teacher_fingerprint": load_teacher(TEACHER).fingerprint, **changes}
    save_student(Folder(str(folder)), Student(model=model.eval(), mean=half, std=half, teacher=TEACHER, **fields))
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("sanity")
    data = write_images(root / "photos")
    return SimpleNamespace(root=root, data=data, run=make_student(root / "run", 0), other=make_student(root / "b", 1))


def work_of(place: SimpleNamespace, **changes: Any) -> SanityWork:
    stored = {"schema_version": "1", "methods": {name: {} for name in NAMES}, "seed": 0, "protocol_hash": "0" * 8}
    stored |= {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint}
    for name, run in {"student": place.run, "other_student": place.other}.items():
        stored |= {name: run, f"{name}_fingerprint": load_student(run).fingerprint}
    images = without_image_ids(open_images(str(place.data)))
    return SanityWork(stored={**stored, **changes}, images=images, readouts=(None, None))


def items_of(*numbers: int) -> list[dict[str, Any]]:
    return [{"image_id": f"{k:02d}.png", "draw": 0} for k in numbers]


@pytest.fixture(scope="module")
def table(place: SimpleNamespace) -> Any:
    return SanityWorker(work_of(place))(items_of(*range(NUM_IMAGES))).to_pandas()


def frame(place: SimpleNamespace, k: int, size: tuple[int, int]) -> np.ndarray:
    return resize(decode((place.data / f"{k:02d}.png").read_bytes()), size)


def classes(place: SimpleNamespace, k: int) -> list[int]:
    probs = box_teacher.make()(frame(place, k, box_teacher.SIZE)[None])[0]
    return sorted(range(3), key=lambda c: -probs[c])


def test_every_image_method_check_and_stage_is_one_row(table: Any) -> None:
    keys = table[["image_id", "method", "check", "stage"]]
    assert len(table) == NUM_IMAGES * (8 + 7 + 8)
    assert not keys.duplicated().any()
    assert list(table["image_id"]) == sorted(table["image_id"])
    for name in NAMES:
        own = table[(table["method"] == name) & (table["image_id"] == "00.png")]
        wanted = pairs(METHODS[name], other=True)
        assert list(zip(own["check"], own["stage"].fillna("-"), strict=True)) == [(c, s or "-") for c, s in wanted]
    assert set(table[table["check"] == "wrong_class"]["method"]) == {"mal_grad_cam", "cam"}
    for name in SIMILARITIES:
        assert (table[name].isna() == table["error"].notna()).all()


def test_a_broken_image_says_so_in_all_its_rows(table: Any) -> None:
    errors = table[table["error"].notna()]
    broken = errors[errors["image_id"] == f"{BROKEN:02d}.png"]
    assert len(broken) == 8 + 7 + 8
    assert set(broken["error"].str.contains("cannot be decoded")) == {True}
    assert set(errors[errors["image_id"] != f"{BROKEN:02d}.png"]["error"]) <= {
        "the compared map is constant: it ranks no pixels"
    }


def test_an_image_that_the_black_box_refuses_says_so_and_others_are_as_they_were(
    place: SimpleNamespace, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = SanityWorker(work_of(place, methods={"matt": {}}))
    refused, answer = frame(place, 3, box_teacher.SIZE), worker.teacher.probabilities

    def picky(frames: np.ndarray) -> np.ndarray:
        if any(np.array_equal(one, refused) for one in frames):
            raise RefusedImageError("not this one")
        return answer(frames)

    monkeypatch.setattr(worker.teacher, "probabilities", picky)
    found = worker(items_of(*range(NUM_IMAGES))).to_pandas().set_index("image_id")
    assert set(found.loc["03.png", "error"]) == {"not this one"}
    wanted = table[table["method"] == "matt"].set_index("image_id")
    for image_id in ("00.png", "02.png", "04.png"):
        assert found.loc[image_id, "ssim"].to_list() == pytest.approx(wanted.loc[image_id, "ssim"].to_list(), abs=2e-3)


def explain(place: SimpleNamespace, model: torch.nn.Module, k: int, target: int) -> np.ndarray:
    images = load_student(place.run).normalize(frame(place, k, SIZE)[None])
    return mal_grad_cam(model, images, torch.tensor([target]))[0].numpy()


def test_values_are_those_of_plain_copies_of_the_student(place: SimpleNamespace, table: Any) -> None:
    student, other = load_student(place.run).model, load_student(place.other).model
    fresh = untrained(lambda: ResCBAM(18, 3), seed=0, draw=0).state_dict()
    found = table[table["method"] == "mal_grad_cam"].set_index(["image_id", "check", "stage"])
    num_compared = 0
    for k in (0, 4):
        first, second, _ = classes(place, k)
        intact = explain(place, student, k, first)
        compared: dict[tuple[str, str | None], np.ndarray] = {
            ("wrong_class", None): explain(place, student, k, second),
            ("other_student", None): explain(place, other, k, first),
        }
        redrawn: set[str] = set()
        for stage, modules in STAGES.items():
            redrawn |= set(modules)
            model = ResCBAM(18, 3).eval()
            model.load_state_dict(
                {n: (fresh[n] if n.split(".")[0] in redrawn else v) for n, v in student.state_dict().items()}
            )
            compared["randomised", stage] = explain(place, model, k, first)
        for (check, stage), saliency in compared.items():
            row = found.loc[(f"{k:02d}.png", check, stage)]
            assert isinstance(row["error"], str) == (np.ptp(saliency) == 0)
            if isinstance(row["error"], str):
                continue
            num_compared += 1
            wanted: Any = stats.spearmanr(intact.ravel(), saliency.ravel())
            assert row["rank_correlation"] == pytest.approx(wanted.statistic, abs=2e-3)
            assert row["rank_correlation_absolute"] == pytest.approx(row["rank_correlation"])  # a softmax is positive
            assert row["target"] == first
            assert row["compared_target"] == (second if check == "wrong_class" else first)
        assert found.loc[(f"{k:02d}.png", "wrong_class", None)]["rank_correlation"] < 0.999
    assert num_compared > 8


def test_an_image_alone_has_the_same_values(place: SimpleNamespace, table: Any) -> None:
    alone = SanityWorker(work_of(place))(items_of(3)).to_pandas()
    together = table[table["image_id"] == "03.png"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        alone.drop(columns="seconds"), together.drop(columns="seconds"), atol=2e-3, check_dtype=False
    )


def test_without_another_student_there_is_no_row_of_it(place: SimpleNamespace) -> None:
    config = work_of(place, other_student=None, methods={"matt": {}})
    found = SanityWorker(config)(items_of(0)).to_pandas()
    assert list(found["stage"]) == list(STAGES)


def test_a_black_box_of_one_class_has_no_wrong_one() -> None:
    saliency = np.random.default_rng(0).random((12, 12), np.float32)
    answer = Explanation(saliency=saliency, target=0, target_prob=None, seconds=0.0)
    subject = Subject(image_id="a", frame=np.zeros((2, 2, 3), np.uint8), classes=(0,))
    assert subject.request(1, seed=0) is None
    assert _row(subject, answer, None)["error"] == "the black box has no second class"
    assert _row(subject, answer, answer)["ssim"] == pytest.approx(1)


def test_means_are_over_the_images_that_have_a_value(place: SimpleNamespace, table: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = Folder(str(tmp_path))
    pq.write_table(SanityWorker(work_of(place))(items_of(*range(NUM_IMAGES))), tmp_path / "part-00000.parquet")
    checked = summarize_checks(folder)
    assert [(one.method, one.check, one.stage) for one in checked] == [
        (name, *pair) for name in NAMES for pair in pairs(METHODS[name], other=True)
    ]
    for one in checked:
        own = table[(table["method"] == one.method) & (table["check"] == one.check)]
        own = own[own["stage"].isna()] if one.stage is None else own[own["stage"] == one.stage]
        values = own["ssim"].dropna().to_numpy()
        assert one.similarities["ssim"] == mean_interval(values)
        assert one.num_errors == NUM_IMAGES - len(values)
    named = mlflow_metrics([one for one in checked if one.method == "matt"])
    assert {"sanity/randomised_stem_ssim", "sanity/randomised_fc_rank_correlation"} <= set(named)
    assert np.isfinite(list(named.values())).all()


def test_redrawing_the_classifier_alone_leaves_matt_as_it_is(table: Any) -> None:
    own = table[(table["method"] == "matt") & table["error"].isna()].set_index("stage")
    assert (own.loc["fc", "rank_correlation"] > 0.9999).all()
    assert (own.loc["stem", "rank_correlation"] < 0.99).all()


def test_methods_that_do_not_look_into_the_student_are_refused() -> None:
    assert [method.name for method in check_methods(["matt", "mal_grad_cam", "matt"])] == ["mal_grad_cam", "matt"]
    assert {method.explains for method in check_methods([])} == {"student"}
    for name in ("random", "rise", "edges"):
        with pytest.raises(ValueError, match=f"'{name}' does not look into the student.*choose from mal_grad_cam"):
            check_methods([name])
    with pytest.raises(ValueError, match="unknown method 'gradcam'"):
        check_methods(["gradcam"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"input_size": (32, 32)}, "input_size"), ({"num_classes": 4}, "num_classes 4"), ({}, "is --student itself")],
)
def test_another_student_must_be_another_and_comparable(
    place: SimpleNamespace, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_other(make_student(tmp_path, 0, **changes), load_student(place.run), ())


def test_a_student_of_shuffled_answers_is_only_compared_with(place: SimpleNamespace, tmp_path: Path) -> None:
    shuffled = make_student(tmp_path / "run", 2, shuffled=True)
    config = SanityConfig(student=shuffled, teacher=TEACHER, data=str(place.data), out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="give it as --other-student"):
        check_maps(config)
    assert load_other(shuffled, load_student(place.run), ()).shuffled


def words_of(place: SimpleNamespace, out: str, **changes: str) -> list[str]:
    given = {"--student": place.run, "--data": str(place.data), "--teacher": TEACHER, "--out": out, **changes}
    return ["sanity", *(word for pair in given.items() for word in pair)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--teacher": "magic:box"}, "unknown teacher kind"),
        ({"--teacher": "python:box_teacher:make_other"}, "give its own teacher"),
        ({"--methods": "random"}, "does not look into the student"),
        ({"--student": "nowhere"}, "holds no student"),
        ({"--limit": "0"}, "limit"),
        ({"--data": "nowhere"}, "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(
    place: SimpleNamespace, tmp_path: Path, capsys: Any, change: dict[str, str], message: str
) -> None:
    assert main(words_of(place, str(tmp_path / "out"), **change)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")  # the workers import the black box too
        with ray_session():
            yield


@pytest.mark.slow
def test_the_command_writes_rows_on_ray_and_tells_mlflow(
    place: SimpleNamespace, table: Any, ray_here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{place.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("COLUMNS", "200")
    out = str(place.root / "checks")
    words = [*words_of(place, out), "--other-student", place.other, "--methods", *NAMES]
    for _ in range(2):  # the second start finds everything done
        assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"{len(table)} rows" in printed
    assert "A map that became constant ranks no pixels: it counts as an error" in printed
    assert "MATT does not depend on a class: there is no wrong one." in printed
    assert "Random, Center Gaussian, Edges do not look into the student" in printed
    found = pd.read_parquet(out)
    apart = ["protocol_hash", "seconds"]
    pd.testing.assert_frame_equal(found.drop(columns=apart), table.drop(columns=apart), atol=2e-3)
    assert main([*words, "--seed", "1"]) == 2  # another configuration
    client: Any = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("photos").experiment_id])
    assert sorted(run.data.tags["method"] for run in runs) == sorted(NAMES)
    for run in runs:
        fall = client.get_metric_history(run.info.run_id, "sanity/randomised_rank_correlation")
        assert [point.step for point in fall] == list(range(7))
        assert fall[0].value == 1
        assert fall[-1].value == pytest.approx(run.data.metrics["sanity/randomised_stem_rank_correlation"])
