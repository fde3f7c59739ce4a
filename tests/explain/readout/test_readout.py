"""The learned read-out: what it reads against plain formulas, how it is kept, and that fitting it learns something."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.data import open_images
from distill.data.versions import record_versions
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from explain.maps import maps_table
from explain.readout import checkpoint as readouts
from explain.readout.checkpoint import load_explained, new_readout, readout_of, save_readout
from explain.readout.config import FitSettings
from explain.readout.dataset import ReadOutDataset, correlation
from explain.readout.fit import fit, split_validation, train
from explain.readout.network import NUM_PLACES, ReadOut, extract_features, readout, standardised
from explain.readout.refine import HARD_POINTS

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = ResCBAM(18, 4).eval().requires_grad_(False)
    for name, module in made.named_modules():
        if name.endswith("spatial.bn"):  # gates that differ from place to place, as learned ones do
            torch.nn.init.ones_(module.get_parameter("weight"))
    return made


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(tmp_path, model):
    student = Student(
        model=model, input_size=(64, 96), mean=MEAN, std=STD, teacher="onnx:x.onnx", teacher_fingerprint="abc"
    )
    return str(tmp_path / "run"), save_student(Folder(str(tmp_path / "run")), student)


def test_it_reads_what_cbams_change_and_the_class_activation_maps(model, images):
    target = torch.tensor([0, 3, 1])
    features = extract_features(model, images, target)
    assert features.maps.shape == (3, 2 * 8 + 2 * 3 + NUM_PLACES, 19, 28)
    ins, outs, feats, blocks = {}, {}, {}, ("layer2", "layer3", "layer4")
    handles = [
        m.register_forward_hook(lambda _, i, o, n=n: ins.update({n: i[0]}) or outs.update({n: o}))
        for n, m in model.named_modules()
        if n.endswith("cbam")
    ]
    x = images.clone().requires_grad_()
    keep = [model.get_submodule(n).register_forward_hook(lambda _, i, o, n=n: feats.update({n: o})) for n in blocks]
    scores = model(x)[range(3), target]
    grads = torch.autograd.grad(scores.sum(), [feats[n] for n in blocks])
    for handle in (*handles, *keep):
        handle.remove()
    plain = [(outs[n] - ins[n]).mean(dim=1) for n in ins] + [(outs[n] - ins[n]).abs().mean(dim=1) for n in ins]
    for name, grad in zip(blocks, grads, strict=True):
        weights = grad.flatten(2).mean(dim=2)
        plain += [torch.einsum("bc,bchw->bhw", weights, feats[name]), (grad * feats[name]).sum(dim=1)]
    for number, expected in enumerate(plain):
        large = F.interpolate(expected[:, None].detach(), size=(19, 28), mode="bilinear")[:, 0]
        large = large - large.mean(dim=(1, 2), keepdim=True)
        large = large / large.std(dim=(1, 2), keepdim=True, correction=0)
        assert torch.allclose(features.maps[:, number], large, atol=1e-3), number
    assert torch.equal(features.maps[0, -1], features.maps[0, -1].flip(0).flip(1))  # the distance from the center


def test_an_image_alone_has_the_same_map_as_in_a_batch_and_classes_differ(model, images):
    torch.manual_seed(3)
    model.add_module("readout", new_readout(model).eval())
    try:
        target = torch.tensor([0, 3, 1])
        together = readout(model, images, target)
        assert together.shape == (3, 19, 28)
        assert torch.allclose(readout(model, images[1:2], target[1:2])[0], together[1], atol=1e-4)
        assert not torch.allclose(readout(model, images, target.flip(0))[0], together[0], atol=1e-2)
    finally:
        del model.readout


def test_a_student_without_one_is_refused(model, images):
    with pytest.raises(ValueError, match="no read-out; python -m explain fit"):
        readout(model, images, torch.tensor([0, 0, 0]))


def test_a_constant_map_is_standardised_to_zeros():
    assert standardised(torch.full((2, 3, 4), 7.0)).abs().max() == 0


def test_correlation_is_numpys():
    one, other = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    expected = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(one, other, strict=True)]
    assert np.allclose(correlation(one, other), expected, atol=1e-5)


def open_reader(folder: str) -> Student:
    return load_explained(folder, with_readout=True)


def rewrite(folder: str, **changed: object) -> None:
    """Change fields of the description in a stored read-out."""
    path = Path(folder) / readouts.WEIGHTS_FILE
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()[readouts.DESCRIPTION_KEY])
    metadata = {readouts.DESCRIPTION_KEY: json.dumps(description | changed)}
    save_file(load_file(path), path, metadata)


def test_it_comes_back_as_it_was_kept(run):
    folder, student = run
    head = new_readout(student.model)
    fingerprint = save_readout(folder, head, student, {"num_images": 3})
    found = open_reader(folder)
    kept = readout_of(found)
    assert kept.fingerprint == fingerprint
    for name, tensor in head.state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor), name
    assert found.fingerprint == student.fingerprint


def test_one_of_before_version_02_is_read_with_the_description_beside_it(run):
    folder, student = run
    fingerprint = save_readout(folder, new_readout(student.model), student, {})
    path, beside = Path(folder) / readouts.WEIGHTS_FILE, Path(folder) / readouts.DESCRIPTION_FILE
    save_file(load_file(path), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == fingerprint  # of which 12 digits were stored
    for stored in (fingerprint[:12], fingerprint):
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"fingerprint": stored}))
        assert readout_of(open_reader(folder)).fingerprint == stored
    for wrong in ("", fingerprint[:6], "0" * 12):
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"fingerprint": wrong}))
        with pytest.raises(ValueError, match="fit it again"):
            open_reader(folder)


@pytest.mark.parametrize("field", ["width", "fingerprint", "format_version", "student_fingerprint"])
def test_a_description_that_does_not_fit_is_refused(run, field):
    folder, student = run
    save_readout(folder, new_readout(student.model), student, {})
    rewrite(folder, **{field: 10**9})
    with pytest.raises(ValueError, match="fit it again"):
        open_reader(folder)


@pytest.mark.parametrize("survives", ["neither", "weights"])
def test_a_fit_that_is_killed_leaves_the_old_read_out_or_the_new_one(run, monkeypatch, survives):
    folder, student = run
    before = save_readout(folder, new_readout(student.model), student, {})
    torch.manual_seed(5)
    head = new_readout(student.model)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "write_bytes" if survives == "neither" else "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        save_readout(folder, head, student, {})
    found = readout_of(open_reader(folder))
    assert (found.fingerprint == before) == (survives == "neither")
    bias, own_bias = found.last.bias, head.last.bias
    assert bias is not None
    assert own_bias is not None
    assert torch.equal(bias, own_bias) or survives == "neither"


def test_damaged_weights_are_refused_and_a_missing_read_out_is_named(run):
    folder, student = run
    with pytest.raises(ValueError, match="python -m explain fit"):
        open_reader(folder)
    save_readout(folder, new_readout(student.model), student, {})
    for damaged in (b"\x80\x04not safetensors", b"", b"\xff" * 9):
        Folder(folder).write_bytes(readouts.WEIGHTS_FILE, damaged)
        with pytest.raises(ValueError, match="cannot be read"):
            open_reader(folder)
        assert not hasattr(load_explained(folder).model, "readout"), "who needs none does not read it"


def test_a_worker_refuses_a_student_or_read_out_that_was_replaced(run):
    folder, student = run
    fingerprint = save_readout(folder, new_readout(student.model), student, {})
    expected = {"expected_fingerprint": student.fingerprint, "expected_readout": fingerprint}
    assert load_explained(folder, with_readout=True, **expected).fingerprint == student.fingerprint
    for name, value in expected.items():
        with pytest.raises(WorkError, match=rf"has fingerprint {value}, but this job started with old"):
            load_explained(folder, with_readout=True, **{**expected, name: "old"})


def test_training_finds_the_map_that_the_labels_are_made_of():
    generator = torch.Generator().manual_seed(0)
    head = ReadOut(1, (4, 4, 4), width=8)
    maps = standardised(torch.randn(60, 2, 2 + 6 + NUM_PLACES, 14, 14, generator=generator))
    layers = tuple(torch.randn(60, 2, 4, 7, 7, generator=generator) for _ in range(3))
    maps[:, 1] = maps[:, 0].flip(3)
    labels = standardised(maps[:, 0, 2] - maps[:, 0, 5])
    dataset = ReadOutDataset(
        maps=maps.half(),
        layers=layers,
        labels=labels,
        image_ids=tuple(map(str, range(60))),
        targets=torch.zeros(60, dtype=torch.long),
        frames=np.zeros((60, 14, 14, 3), dtype=np.uint8),
        device="cpu",
    )
    torch.manual_seed(0)
    settings = FitSettings(student="", maps="", epochs=12, lr=0.01, batch_size=8)
    chance = torch.Generator().manual_seed(0)
    validation, training = split_validation(60, settings, chance)
    assert sorted([*validation.tolist(), *training.tolist()]) == list(range(60))
    assert len(validation) == 6
    found = train(head, dataset, training, validation, settings=settings, generator=chance)
    assert found["held_out_correlation"] > 0.8
    assert 1 <= found["epoch"] <= 12


def label_maps(folder, data, split, fingerprint="abc", *, finished=True):
    """Leave maps of every image: bright on the left."""
    config = {"method": "gp_regression", "data": data, "split": split, "limit": None, "teacher": "onnx:x.onnx"}
    config |= {"teacher_fingerprint": fingerprint}
    kept = Folder(str(folder))
    kept.claim(config, what="maps")
    left = np.linspace(1, 0, 28, dtype=np.float32)[None].repeat(19, 0)
    rows = [
        {
            "image_id": f"train/a/{i}.png",
            "label": 0,
            "target": i % 4,
            "saliency": left,
            "map_height": 19,
            "map_width": 28,
        }
        for i in range(24)
    ]
    rows.append({"image_id": "train/a/24.png", "label": 0, "target": 1, "saliency": None, "error": "refused"})
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(maps_table(rows, config), sink)
    kept.write_bytes("part-0.parquet", sink.getvalue().to_pybytes())
    if finished:
        kept.finish({"rows": len(rows)})
    return str(folder)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "data" / split / "a").mkdir(parents=True)
        for i in range(25):
            pixels = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / "a" / f"{i}.png")
    return str(tmp_path / "data")


def test_fit_learns_from_maps_and_leaves_the_read_out_beside_its_student(run, data, tmp_path):
    folder, _ = run
    maps = label_maps(tmp_path / "maps", data, "train")
    settings = FitSettings(student=folder, maps=maps, epochs=20, lr=0.01, batch_size=8)
    made = fit(settings)
    assert made["num_images"] == 24
    assert made["held_out_correlation"] > 0.6
    reader = open_reader(folder)
    assert readout_of(reader).fingerprint == made["fingerprint"]
    saliency = readout(reader.model, torch.randn(1, 3, 64, 96), torch.tensor([0]))[0]
    assert saliency[:, :14].mean() > saliency[:, 14:].mean()
    assert fit(settings) == made


@pytest.mark.parametrize(
    ("made_with", "words"),
    [(("val", "abc"), "fitted to training images"), (("train", "other"), "give its own maps")],
)
def test_fit_refuses_maps_that_it_must_not_learn_from(run, data, tmp_path, made_with, words):
    maps = label_maps(tmp_path / "maps", data, *made_with)
    with pytest.raises(ValueError, match=words):
        fit(FitSettings(student=run[0], maps=maps))


def test_fit_waits_for_maps_that_are_unfinished(run, data, tmp_path):
    maps = label_maps(tmp_path / "maps", data, "train", finished=False)
    with pytest.raises(ValueError, match="unfinished maps"):
        fit(FitSettings(student=run[0], maps=maps))


@pytest.mark.parametrize(
    "stored", ["/elsewhere/photos", "s3://bucket/photos", "reference://x::http://host/refs.json", 7]
)
def test_fit_opens_no_images_that_only_the_maps_name(run, tmp_path, stored):
    maps = label_maps(tmp_path / "maps", stored, "train")
    with pytest.raises(ValueError, match=r"data .* of the configuration|data .* stored configuration only|URI"):
        fit(FitSettings(student=run[0], maps=maps))


def test_fit_takes_images_that_the_user_names_if_they_are_those_of_the_maps(run, data, tmp_path):
    maps = label_maps(tmp_path / "maps", "/elsewhere/photos", "train")
    settings = FitSettings(student=run[0], maps=maps, data=data, epochs=1, batch_size=8)
    assert fit(settings)["num_images"] == 24
    folder = Folder(maps)
    folder.write_json("_config.json", {**folder.config(), "data_fingerprint": "others"})
    with pytest.raises(ValueError, match=r"explain others of /elsewhere/photos; give --data with those images"):
        fit(settings)


def test_fit_learns_from_no_map_of_an_image_that_was_replaced_since(run, data, tmp_path):
    maps = label_maps(tmp_path / "maps", data, "train")
    record_versions(Folder(maps), open_images(data, split="train"))
    Image.new("RGB", (9, 9)).save(Path(data) / "train" / "a" / "3.png")
    with pytest.raises(
        ValueError, match=r"1 of 25 images have changed since the maps in .* were made, such as 'train/a/3"
    ):
        fit(FitSettings(student=run[0], maps=maps))


BOX = "python:tiny_teacher:bright"


def test_with_the_black_box_the_games_go_on_where_the_fit_ended(tmp_path, data, capfd):
    teacher = load_teacher(BOX)
    student = Student(
        model=ResCBAM(18, 10),
        input_size=(64, 96),
        mean=MEAN,
        std=STD,
        teacher=BOX,
        teacher_fingerprint=teacher.fingerprint,
    )
    folder = str(tmp_path / "run")
    save_student(Folder(folder), student)
    maps = label_maps(tmp_path / "maps", data, "train", teacher.fingerprint)
    plain = FitSettings(student=folder, maps=maps, epochs=2, lr=0.01, batch_size=8)
    settings = replace(plain, teacher=BOX, game_epochs=2, max_queries=2 * 2 * HARD_POINTS * 3)
    assert "games" not in fit(plain)
    made = fit(settings)
    games = made["games"]
    assert games["after"]["insertion"] - games["after"]["deletion"] >= (
        games["before"]["insertion"] - games["before"]["deletion"]
    )
    assert 0 <= games["epoch"] <= 2
    assert "at most 120 queries" in capfd.readouterr().err
    assert readout_of(open_reader(folder)).fingerprint == made["fingerprint"]
    assert fit(settings) == made
    with pytest.raises(ValueError, match="more than --max-queries 119"):
        fit(replace(settings, max_queries=119))


def test_fit_refuses_a_black_box_that_is_not_the_students(run, data, tmp_path):
    maps = label_maps(tmp_path / "maps", data, "train")
    with pytest.raises(ValueError, match="give its own teacher"):
        fit(FitSettings(student=run[0], maps=maps, teacher=BOX))


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"game_epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"held_out": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitSettings(student="a", maps="b", **wrong)
