"""The demo's images: the same bytes for a seed, exact masks, balanced classes, and work that is not done twice."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data import open_images
from distill.demo import build as demo
from distill.demo.rendering import CLASSES, SHAPES, TEXTURES, render
from distill.demo.teacher import make_network, train_teacher

SMALL = {"num_train": 24, "num_val": 16, "epochs": 1}


def scene(class_name: str = "dotted_disc", *seed: int, side_px: int = 128):
    return render(class_name, np.random.default_rng(seed or (0,)), side_px=side_px)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "flowers"
    demo.make_data(demo.DemoConfig(out=str(out), **SMALL))
    return out


@pytest.mark.parametrize("class_name", CLASSES)
def test_outside_of_the_mask_is_background_and_inside_is_not(class_name):
    for seed in range(8):
        found = scene(class_name, seed)
        assert found.image.shape == found.background.shape == (128, 128, 3)
        assert found.mask.shape == (128, 128)
        np.testing.assert_array_equal(found.image[~found.mask], found.background[~found.mask])
        changed = (found.image != found.background).any(axis=-1)
        assert changed[found.mask].mean() > 0.95  # a pixel may by chance have the background's color


def test_objects_lie_anywhere_wholly_inside_in_many_sizes():
    masks = [scene(name, number, seed).mask for number, name in enumerate(CLASSES) for seed in range(40)]
    places = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    shares = np.array([mask.mean() for mask in masks])
    assert not any(mask[0].any() and mask[-1].any() for mask in masks)
    assert places.min() < 26
    assert places.max() > 102
    np.testing.assert_allclose(places.mean(axis=0), 63.5, atol=6)
    assert 0.015 < shares.min() < 0.04
    assert 0.15 < shares.max() < 0.2
    assert np.mean([mask[64, 64] for mask in masks]) < 0.35  # a map that points at the center is often wrong


def test_the_background_says_nothing_about_the_class():
    generators = [np.random.default_rng(5) for _ in CLASSES]
    scenes = [render(name, generator) for name, generator in zip(CLASSES, generators, strict=True)]
    assert all((found.background == scenes[0].background).all() for found in scenes)
    assert len({found.image.tobytes() for found in scenes}) == len(CLASSES)


def test_every_class_is_unlike_every_other():
    assert len(set(CLASSES.values())) == len(CLASSES) == 8
    assert list(CLASSES) == sorted(CLASSES)
    assert {shape for shape, _ in CLASSES.values()} <= set(SHAPES)
    assert {texture for _, texture in CLASSES.values()} <= set(TEXTURES)


def test_outlines_stay_within_their_radius():
    angles = np.linspace(-np.pi, np.pi, 1001)
    for outline in SHAPES.values():
        assert outline(angles).max() <= 1 + 1e-9
        assert outline(angles).min() >= 0.35


def test_another_size_and_an_unknown_class():
    assert scene(side_px=64).image.shape == (64, 64, 3)
    with pytest.raises(ValueError, match=r"'cat' is unknown.*checked_square"):
        scene("cat")


def test_the_same_seed_makes_the_same_bytes(made, tmp_path):
    demo.make_data(demo.DemoConfig(out=str(tmp_path / "again"), **SMALL))
    assert digests(made / "data") == digests(tmp_path / "again" / "data")
    demo.make_data(demo.DemoConfig(out=str(tmp_path / "other"), seed=1, **SMALL))
    first, other = digests(made / "data"), digests(tmp_path / "other" / "data")
    assert all(first[name] != other[name] for name in first if name.endswith(".png"))


def test_classes_are_balanced_and_every_held_out_image_has_its_mask(made):
    for split, each in (("train", 3), ("val", 2)):
        images = open_images(str(made / "data"), split=split)
        assert images.class_names == tuple(CLASSES)
        assert [images.class_ids.count(number) for number in range(8)] == [each] * 8
    assert images.name == "flowers"
    for image_id in images.image_ids:
        mask = images.mask(image_id)
        assert mask is not None
        assert 0.01 < mask.mean() < 0.3
    assert open_images(str(made / "data"), split="train").mask("train/dotted_disc/00001.png") is None


def test_no_held_out_image_is_trained_on(made):
    found = digests(made / "data")
    train, val = ({value for name, value in found.items() if name.startswith(split)} for split in ("train", "val"))
    assert len(train) == 24
    assert len(val) == 16
    assert not train & val


def test_finished_work_is_kept_and_other_work_is_refused(made, capsys, monkeypatch):
    monkeypatch.setattr(demo, "_files", lambda config: pytest.fail("rendered again"))
    demo.make_data(demo.DemoConfig(out=str(made), **SMALL))
    assert "is finished" in capsys.readouterr().out
    assert demo.main(["--out", str(made), "--seed", "3", "--num-train", "24", "--num-val", "16"]) == 2
    assert "seed" in capsys.readouterr().err


def test_a_killed_start_is_finished_by_the_next(made, tmp_path, monkeypatch):
    config = demo.DemoConfig(out=str(tmp_path), **SMALL)
    files = demo._files

    def cut_short(config):
        for number, file in enumerate(files(config)):
            if number == 5:
                raise KeyboardInterrupt
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(demo, "_files", cut_short)
        with pytest.raises(KeyboardInterrupt):
            demo.make_data(config)
    demo.make_data(config)
    assert digests(tmp_path / "data") == digests(made / "data")


@pytest.mark.parametrize("bad", [{"num_train": 7}, {"num_val": 0}, {"seed": -1}, {"epochs": 0}])
def test_numbers_out_of_range(bad):
    with pytest.raises(ValueError, match=r"allowed: \d or more"):
        demo.DemoConfig(out="x", **bad)


def test_the_black_box_is_exported_as_it_was_trained(made, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs the export extra")
    from distill.teachers import load_teacher

    train, val = (open_images(str(made / "data"), split=split) for split in ("train", "val"))
    before = torch.random.get_rng_state()
    accuracy = train_teacher(train, val, tmp_path, seed=0, epochs=1)
    assert torch.equal(before, torch.random.get_rng_state())  # the global generator is as it was
    teacher = load_teacher(f"onnx:{tmp_path}/model.onnx")
    assert (teacher.num_classes, teacher.input_size) == (8, (96, 96))
    from distill.data.decode import decode, resize

    frames = np.stack([resize(decode(val.read(image_id)), teacher.input_size) for image_id in val.image_ids])
    right = teacher.probabilities(frames).argmax(axis=1) == np.array(val.class_ids)
    assert abs(right.mean() - accuracy) <= 1 / len(right)


def test_the_network_takes_any_size_and_is_small():
    network = make_network(8).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 96, 64)).shape == (2, 8)
    assert sum(parameter.numel() for parameter in network.parameters()) < 500_000


def test_five_photographs_are_copied(tmp_path, capsys):
    from distill.data import open_images
    from distill.demo.photographs import NAMES, main

    assert main(["--out", str(tmp_path / "photographs")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMES)
    images = open_images(str(tmp_path / "photographs"))
    assert sorted(images.image_ids) == sorted(NAMES)
    assert all(min(images.image(image_id).size) > 250 for image_id in images.image_ids)
