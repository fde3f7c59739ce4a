"""Jobs that ask a black box over HTTP: what they cost is said before, and asked once; the rest is as with any other."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from box_teacher import SIZE
from inference_client import LOAD_QUERIES, Server, running_server
from PIL import Image

import evaluate.jobs
import evaluate.sanity.job
import explain.job
import explain.targets
from distill.data import open_images
from distill.teachers.http.client import TOKEN_VARIABLE
from distill.teachers.query_budget import Share, check_budget
from evaluate.__main__ import main as evaluate_main
from evaluate.config import SanityConfig
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays, num_frames
from evaluate.metrics.compute import FUNCTIONS, Subject, queries
from evaluate.metrics.settings import METRICS, ROWS, Settings
from evaluate.sanity.job import check_maps
from evaluate.similarity import agreements
from explain.__main__ import main as explain_main
from explain.methods.query.queries import Queries
from explain.methods.registry import METHODS

NUM_IMAGES = 3
NUM_LOADS = 8  # processes that load the teacher for maps and scores, at most: each checks it by one query
NUM_FRAMES = 2 * 13  # 12 x 18 pixels in steps of 18: 13 frames of each of two games
SECRET = "s3cr3t-t0ken"  # noqa: S105 - of the test


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Leave Ray and MLflow out, and keep this test's answers apart."""
    running.reset()
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.teachers.retry.time.sleep", lambda _: None)
    monkeypatch.setattr("evaluate.games.job.track_games", lambda *_: None)
    for module in (explain.job, evaluate.jobs):
        monkeypatch.setattr(module, "ray_session", nullcontext)
    return running


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(NUM_IMAGES):
        coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIZE[1], SIZE[0])).save(tmp_path / "photos" / f"{k}.png")
    return str(tmp_path / "photos")


def explain_words(method: str, data: str, teacher: str, out: Path, *more: str) -> list[str]:
    return [method, "--data", data, "--teacher", teacher, "--out", str(out), *more]


def games_words(maps: Path, data: str, teacher: str, out: Path, *more: str) -> list[str]:
    return ["games", "--maps", str(maps), "--data", data, "--teacher", teacher, "--out", str(out), *more]


def stored(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder)


def test_maps_and_scores_are_those_of_the_same_black_box_here_and_a_rerun_asks_nothing(
    server: Server, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both take uint8: the server over HTTP, and the callable that it serves."""
    specs = {"far": server.spec(tmp_path, "bytes"), "near": "python:box_teacher:make"}
    found: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    for name, spec in specs.items():
        folder = tmp_path / name
        assert explain_main(explain_words("rise", data, spec, folder / "maps", "--num-masks", "20")) == 0
        assert evaluate_main(games_words(folder / "maps", data, spec, folder / "scores")) == 0
        found[name] = stored(folder / "maps"), stored(folder / "scores")
    asked = LOAD_QUERIES + NUM_LOADS + NUM_IMAGES + 20 * NUM_IMAGES + NUM_FRAMES * NUM_IMAGES
    assert server.get("queries") <= asked, "frames that look alike are asked once"
    for column, place in (("saliency", 0), ("curve", 1)):
        for far, near in zip(found["far"][place][column], found["near"][place][column], strict=True):
            np.testing.assert_allclose(far, near, atol=1e-5)
    assert found["far"][0]["target"].tolist() == found["near"][0]["target"].tolist()
    said = capsys.readouterr().err
    assert (
        f"at most 63 queries to {specs['far']} (targets 1 for each of 3 images, rise 20 for each of 3 images)" in said
    )
    assert "at most 78 queries" in said
    assert specs["near"] not in said, "what costs nothing is not announced"
    server.set(queries=0, requests=0)
    again = tmp_path / "again"  # the folder of RISE's own answers lies beside the maps
    assert explain_main(explain_words("random", data, specs["far"], again / "maps")) == 0
    assert evaluate_main(games_words(tmp_path / "far" / "maps", data, specs["far"], again / "scores")) == 0
    assert 0 < server.get("queries") == server.get("requests") <= NUM_LOADS, "each process checks the model, no more"
    pd.testing.assert_frame_equal(stored(again / "scores"), found["far"][1])


def test_a_job_that_lost_its_server_goes_on_and_pays_for_no_answer_twice(
    server: Server, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = server.spec(tmp_path, "bytes")
    assert explain_main(explain_words("edges", data, spec, tmp_path / "maps")) == 0
    server.set(fault="503", times=10**6, healthy=4)
    words = games_words(tmp_path / "maps", data, spec, tmp_path / "scores")
    assert evaluate_main(words) == 2
    assert "error: teacher" in (said := capsys.readouterr().err)
    assert "status 503" in said
    assert not list((tmp_path / "scores").glob("*.parquet")), "no image is blamed"
    server.set(fault="", times=0)
    assert evaluate_main(words) == 0
    assert stored(tmp_path / "scores")["error"].isna().tolist() == [True] * 2 * NUM_IMAGES
    first = server.get("queries")
    assert first <= LOAD_QUERIES + 2 * NUM_LOADS + NUM_IMAGES + NUM_FRAMES * NUM_IMAGES
    other = tmp_path / "undisturbed"
    assert evaluate_main(games_words(tmp_path / "maps", data, spec, other)) == 0
    pd.testing.assert_frame_equal(stored(other), stored(tmp_path / "scores"))
    assert server.get("queries") <= first + NUM_LOADS, "each process checks the model, no more"


def test_a_job_beyond_its_budget_asks_nothing(
    server: Server, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = explain_words("rise", data, server.spec(tmp_path, "bytes"), tmp_path / "maps", "--num-masks", "20")
    assert explain_main([*words, "--max-queries", "62"]) == 2
    said = capsys.readouterr().err
    assert "error: this job may cost at most 63 queries" in said
    assert "more than --max-queries 62" in said
    assert server.get("queries") == LOAD_QUERIES, "those that check it"
    assert not (tmp_path / "maps").exists()
    assert explain_main([*words, "--max-queries", "63"]) == 0


def test_evaluate_holds_the_budget_too(
    server: Server, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = server.spec(tmp_path, "bytes")
    assert explain_main(explain_words("edges", data, spec, tmp_path / "maps")) == 0
    words = games_words(tmp_path / "maps", data, spec, tmp_path / "out", "--max-queries", "77")
    assert evaluate_main(words) == 2
    assert evaluate_main(["measures", *words[1:]]) == 2
    said = capsys.readouterr().err
    assert "78 queries" in said
    assert "(games 26 for each of 3 maps)" in said
    assert "429 queries" in said  # ROAD: two frames for each of seven percentages; mu-fidelity: 128 and the image
    assert server.get("queries") <= LOAD_QUERIES + NUM_LOADS + NUM_IMAGES


@pytest.mark.parametrize("name", [method.name for method in METHODS.values() if method.is_query_based])
def test_a_method_asks_no_more_than_it_says(name: str) -> None:
    method = METHODS[name]
    assert method.budget is not None
    asked: list[int] = []

    def score(frames: torch.Tensor) -> torch.Tensor:
        asked.append(len(frames))
        return frames.flatten(1)[:, :2].softmax(dim=1)

    options: dict[str, Any] = {method.budget: 70, **({"grid": 4} if name == "oracle" else {})}
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    method.load()(Queries(score), image, torch.tensor([0]), seeds=[0], **options)
    assert 0 < sum(asked) <= 70
    assert sum(asked) == 70 or name not in ("rise", "lime")


@pytest.mark.parametrize(
    "protocol", [Protocol(), Protocol(step_px=50), Protocol(patches=5, least_relevant=True)], ids=lambda p: p.name
)
def test_frames_are_counted_as_they_are_played(protocol: Protocol) -> None:
    image = torch.rand(3, 12, 18)
    plays, _ = make_plays(image, image[0], target=0, protocol=protocol, image_id="a", mean=[0.0] * 3, std=[1.0] * 3)
    assert num_frames(protocol, (12, 18)) == sum(play.num_steps + 1 for play in plays)


def test_measures_ask_what_they_say() -> None:
    """Two maps of an image; every measure that asks."""
    asked: list[int] = []

    def forward(frames: torch.Tensor) -> torch.Tensor:
        asked.append(len(frames))
        return torch.full((len(frames), 3), 1 / 3)

    teacher: Any = SimpleNamespace(
        forward=forward, batch_size=8, num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3, num_ranked=1
    )
    settings = Settings(num_subsets=6, num_masks=4, num_points=3)
    subject = make_subject(lambda frames: np.zeros((len(frames), 3), dtype=np.float32))
    for measure in METRICS:
        if measure in ("pointing", "energy", "max_sensitivity"):
            continue
        asked.clear()
        values = FUNCTIONS[measure](subject, settings, teacher)
        said = queries(measure, settings, len(subject.maps))
        assert sum(asked) == pytest.approx(sum(map(sum, said)))
        if measure == "fidelity":
            told = dict(zip(ROWS["fidelity"], values[0], strict=True))
            texts = [name for name, value in told.items() if isinstance(value, str) and "no KL" in value]
            assert texts == ["fidelity_clean_kl", "fidelity_masked_kl", "fidelity_frames_kl"]
            assert told["fidelity_clean_agreement"] == 1.0


def make_subject(answer: Callable[[np.ndarray], np.ndarray]) -> Subject:
    maps = [torch.rand(4, 6, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    return Subject(
        image_id="a",
        pixels=torch.zeros(3, *SIZE),
        maps=maps,
        targets=[0, 1],
        mask=lambda: np.zeros(SIZE, dtype=bool),
        explain=[lambda frames: frames[..., 0]] * 2,
        frame=lambda: np.zeros((*SIZE, 3), dtype=np.float32),
        answer=answer,
    )


def test_a_black_box_that_names_one_class_is_refused_where_a_second_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = SimpleNamespace(num_ranked=1, spec="http://x", num_classes=10)
    monkeypatch.setattr(evaluate.sanity.job, "load_teacher", lambda _: judge)
    monkeypatch.setattr(evaluate.sanity.job, "load_explained", lambda _, **__: SimpleNamespace(shuffled=False))
    monkeypatch.setattr(evaluate.sanity.job, "check_pair", lambda *_: None)
    config = SanityConfig(student="run", teacher="http://x", data="nowhere", out="nowhere")
    with pytest.raises(ValueError, match="names one class and no second choice"):
        check_maps(config)
    with pytest.raises(FileNotFoundError):  # a map of no class needs none, and the images are looked for
        check_maps(dataclasses.replace(config, methods=("matt",)))


def test_agreement_is_counted_as_far_as_the_black_box_ranks(data: str) -> None:
    def probabilities(images: np.ndarray) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[images.argmax(axis=3).flatten()[: len(images)]]

    student: Any = SimpleNamespace(
        input_size=SIZE,
        model=lambda x: x.mean(dim=(2, 3)),
        normalize=lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2).float(),
    )
    for ranked, last in ((1, 1), (2, 2), (None, 3)):
        teacher: Any = SimpleNamespace(input_size=SIZE, num_classes=3, num_ranked=ranked, probabilities=probabilities)
        agreed, _ = agreements(student, teacher, open_images(data), "resize")
        assert list(agreed) == list(range(1, last + 1))


def test_what_a_label_leaves_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for output, ranked, said in (("labels", 1, "names a class and no more"), ("top_k", 5, "names 5 classes")):
        teacher: Any = SimpleNamespace(spec="http://x", costs_queries=True, num_ranked=ranked, output=output)
        check_budget(teacher, [Share(what="games", each=450, number=1000, unit="maps")], None)
        shown = capsys.readouterr().err
        assert "at most 450,000 queries to http://x (games 450 for each of 1,000 maps)" in shown
        assert said in shown


def test_the_token_is_in_nothing_that_a_job_leaves(
    server: Server, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server repeats the token for images that it refuses; error rows, configurations and manifests do not."""
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    spec = server.spec(tmp_path, "bytes")
    assert explain_main(explain_words("edges", data, spec, tmp_path / "out" / "maps")) == 0
    server.set(fault="echo bright")
    assert evaluate_main(games_words(tmp_path / "out" / "maps", data, spec, tmp_path / "out" / "scores")) == 0
    errors = stored(tmp_path / "out" / "scores")["error"].dropna()
    assert errors.str.contains("too bright").any()
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not errors.str.contains(SECRET).any()
