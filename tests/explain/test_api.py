"""The Python API: the maps of the functions themselves, in tables and figures, without Ray; wrong calls are refused."""

import sys
from pathlib import Path

import box_teacher
import numpy as np
import pytest
import torch
from PIL import Image

from distill.student.model import ResCBAM, Student
from evaluate.api import play_maps
from evaluate.games.protocol import Protocol
from explain.__main__ import main
from explain.api import explain_images, open_teacher, wrap_callable
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise
from explain.methods.white_box.grad_cam import grad_cam
from explain.seeds import image_seed

SIZE = box_teacher.SIZE


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def teacher():
    box = box_teacher.make()
    return wrap_callable(box, input_size=SIZE, class_names=["a", "b", "c"], mean=box.mean, std=box.std)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    model = ResCBAM(18, 3).eval().requires_grad_(False)
    size = (64, 64)
    description = {"teacher": "python:box", "teacher_fingerprint": "", "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return Student(model=model, input_size=size, **description)


def test_maps_of_a_query_based_method_are_the_functions_own(frames, teacher):
    maps = explain_images(list(frames), "rise", teacher=teacher, num_masks=32, image_ids=["x", "y", "z"])
    target = torch.from_numpy(box_teacher.make()(frames).argmax(axis=1))
    for k, name in enumerate("xyz"):
        image = teacher.normalize(frames[k : k + 1])
        seeds = [image_seed(0, name, "rise")]
        plain = rise(Queries(teacher.forward), image, target[k : k + 1], seeds=seeds, num_masks=32)
        assert (maps.saliency[k] == plain[0].numpy()).all()
    assert maps.target.tolist() == target.tolist()
    assert maps.target_prob == pytest.approx(box_teacher.make()(frames).max(axis=1), abs=1e-6)
    assert maps.queries.tolist() == [32, 32, 32]
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_auto_knows_its_uncertainty_and_the_table_names_classes(frames, teacher):
    maps = explain_images(list(frames), teacher=teacher, queries=16)
    assert maps.method == "gp_regression"
    assert maps.std is not None
    assert maps.std.shape == maps.saliency.shape == (3, *SIZE)
    table = maps.table()
    assert list(table["class_name"]) == [["a", "b", "c"][target] for target in maps.target]
    assert bool(table["error"].isna().all())


def test_maps_of_a_student_are_the_methods_own(frames, student):
    photographs = [Image.fromarray(frame).resize((64, 64)) for frame in frames]
    maps = explain_images(photographs, "grad_cam", student=student, target=[0, 1, 2])
    pixels = student.normalize(np.stack([np.asarray(photograph) for photograph in photographs]))
    plain = grad_cam(student.model, pixels, torch.tensor([0, 1, 2])).numpy()
    assert np.abs(maps.saliency - plain).max() <= 1e-5 * np.abs(plain).max()
    assert maps.queries.tolist() == [0, 0, 0]


def test_both_games_end_where_they_should_and_the_areas_are_those_of_the_curves(frames, teacher):
    maps = explain_images(list(frames), teacher=teacher, queries=16)
    scores = play_maps(maps, teacher, protocol=Protocol(step_px=12))
    assert len(scores) == 2 * len(frames)
    probs = box_teacher.make()(frames)
    for row in scores.to_dict("records"):
        whole = row["curve"][0] if row["game"] == "deletion" else row["curve"][-1]
        assert whole == pytest.approx(probs[int(row["image_id"]), row["target"]], abs=1e-5)
        assert row["auc"] == pytest.approx(np.trapezoid(row["curve"], dx=1 / (len(row["curve"]) - 1)), abs=1e-6)


def test_figures_hold_all_images_and_methods(frames, teacher):
    maps = explain_images(list(frames), teacher=teacher, queries=16)
    control = explain_images(list(frames), "centre_gaussian", teacher=teacher)
    alone, both = maps.figure(long_side_px=90), maps.figure(control, long_side_px=90)
    assert both.width > alone.width
    assert both.height == alone.height > 3 * 60
    wide = maps.figure(control, long_side_px=90, columns=True)
    assert wide.width > 3 * 60
    assert wide.height > 3 * 60
    with pytest.raises(ValueError, match="different images"):
        maps.figure(explain_images(list(frames[:2]), "centre_gaussian", teacher=teacher))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"method": "no_such"}, "unknown method"),
        ({"method": "rise", "num_mask": 3}, "num_masks"),
        ({"method": "rise", "teacher": None}, "queries the black box"),
        ({"method": "grad_cam", "teacher": None}, "looks into a network"),
        ({"target": 3}, "classes: 0 to 2"),
        ({"target": [0, 1]}, "2 targets for 3 images"),
        ({"image_ids": ["a"]}, "1 image_ids for 3 images"),
        ({"images": []}, "no images"),
        ({"images": [np.zeros((4, 4, 3))]}, "uint8"),
        ({"method": "gp_regression", "prior": "readout"}, "needs a student"),
        ({"method": "kernel_shap", "substrate": "blurr"}, "substrate 'blurr' is not allowed"),
        ({"method": "lime", "num_samples": 8.5}, "num_samples 8.5 is not allowed"),
        ({"method": "lime", "kernel_width": np.inf}, "kernel_width inf is not allowed"),
        ({"method": "gp_regression", "num_segments": (20, "x")}, "num_segments .* is not allowed"),
    ],
)
def test_wrong_calls_are_refused(frames, teacher, call, match):
    given = {"images": list(frames), "teacher": teacher, **call}
    with pytest.raises(ValueError, match=match):
        explain_images(given.pop("images"), given.pop("method", "auto"), **given)


def test_a_callable_that_returns_no_probabilities_is_refused():
    with pytest.raises((ValueError, RuntimeError), match=r"sum|probabilities"):
        wrap_callable(lambda images: np.ones((len(images), 2)), input_size=(8, 8))


def test_one_image_is_explained_from_the_command_line(frames, tmp_path, capsys, monkeypatch):
    Image.fromarray(frames[0]).resize((60, 40)).save(tmp_path / "photo.png")
    command = ["image", str(tmp_path / "photo.png"), "--teacher", "python:box_teacher:make", "--queries", "16"]
    assert main(command) == 0
    told = capsys.readouterr().out
    picture = tmp_path / "photo.png.map.png"
    assert str(picture) in told
    assert "16 queries" in told
    with Image.open(picture) as opened:
        assert opened.width > 2 * 400
    assert main([*command, "--out", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "photo.png.map.png").is_file()
    with pytest.raises(SystemExit):
        main([*command[:2], "--queries", "16"])
    assert main(["image", str(tmp_path / "none.png"), *command[2:]]) == 2
    assert "none.png" in capsys.readouterr().err


def test_teachers_open_once(teacher):
    assert open_teacher(teacher) is teacher
    assert open_teacher("python:box_teacher:make").input_size == SIZE
    assert Path(box_teacher.__file__).is_file()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_an_opened_image_is_seen_as_its_file_is(teacher, frames, tmp_path, mode):
    picture = Image.new("I;16", (18, 12), 40_000) if mode == "I;16" else Image.fromarray(frames[0]).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(frames[1][:, :, 0]))
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    picture.save(path)
    with Image.open(path) as opened:
        maps = explain_images([opened, path], "random", teacher=teacher)
    assert (np.asarray(maps.photographs[0]) == np.asarray(maps.photographs[1])).all()


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((12, 18, 3), np.uint8), "in place of a list"),
        ("photo.jpg", "in place of a list"),
        (Image.new("RGB", (2, 2)), "in place of a list"),
        ([np.zeros((0, 4, 3), np.uint8)], "no pixels"),
        ([Image.new("RGB", (0, 0))], "no pixels"),
        ([np.broadcast_to(np.uint8(3), (70_000, 70_000, 3))], "too large"),
        ([Image.new("F", (4, 4), 0.5)], "white is not defined"),
    ],
)
def test_what_is_no_list_of_images_is_refused(teacher, images, match):
    with pytest.raises(ValueError, match=match):
        explain_images(images, "random", teacher=teacher)


@pytest.mark.parametrize(
    "values",
    [
        {"input_size": (0, 0)},
        {"input_size": (10**6, 10**6)},
        {"std": (0, 0, 0)},
        {"mean": (float("nan"), 0, 0)},
        {"batch_size": -3},
        {"batch_size": 10**9},
    ],
)
def test_a_callable_with_sizes_or_colors_that_none_can_have_is_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} is .*; allowed: "):
        wrap_callable(box_teacher.make(), **{"input_size": SIZE, **values})


def test_pictures_have_a_largest_size(frames, teacher):
    maps = explain_images(list(frames), "random", teacher=teacher, target=np.int64(1))  # pyright: ignore[reportArgumentType] - as `argmax` returns it
    assert maps.target.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="too large"):
        maps.figure(long_side_px=10**6)
