"""Refining a read-out by the games: its frames against the games' own, its loss against a slow one, what it keeps."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from distill.perturb.blur import blur
from distill.perturb.curves import compose
from distill.student.model import Student
from distill.teachers import Teacher
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays
from explain.readout import refine as refining
from explain.readout.dataset import ReadOutDataset, correlation
from explain.readout.network import NUM_PLACES, ReadOut, standardised
from explain.readout.refine import (
    ANCHOR,
    HARD_POINTS,
    SOFT_POINTS,
    GameValidation,
    refine,
    soft_frames,
    soft_loss,
)
from explain.readout.train import maps_of_images

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SIZE, CELLS = (20, 28), (10, 14)


class Half(nn.Module):
    """Two classes: the first is as likely as one half of the image is far from gray."""

    def __init__(self, half):
        super().__init__()
        self.half = half
        self.fc = nn.Linear(1, 2)

    def forward(self, images):
        shown = images[..., :14] if self.half == "left" else images[..., 14:]
        evidence = 4 * shown.abs().mean(dim=(1, 2, 3)) - 2
        return torch.stack([evidence, torch.zeros_like(evidence)], dim=1)


class Box(Teacher):
    """The same as a black box."""

    def __init__(self, half):
        about = {"spec": half, "input_size": SIZE, "mean": MEAN, "std": STD, "fingerprint": half, "engine": "test"}
        super().__init__(output="logits", class_names=None, batch_size=None, **about)
        self.network = Half(half)
        self.finish()

    def _outputs(self, pixels):
        return self.network(pixels)


@pytest.fixture
def student():
    model: Any = Half("left").requires_grad_(False)
    return Student(model=model, input_size=SIZE, mean=MEAN, std=STD, teacher="left", teacher_fingerprint="left")


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    maps = standardised(torch.randn(40, 2, 2 + 6 + NUM_PLACES, *CELLS, generator=generator))
    x = torch.linspace(-1, 1, CELLS[1]).expand(CELLS)
    maps[:, :, -NUM_PLACES] = x  # where a cell lies: what a read-out needs here, as an image is or mirrored
    rng = np.random.default_rng(0)
    return ReadOutDataset(
        maps=maps.half(),
        layers=tuple(torch.zeros(40, 2, 4, 5, 7) for _ in range(3)),
        labels=standardised(torch.randn(40, *CELLS, generator=generator)),
        image_ids=tuple(map(str, range(40))),
        targets=torch.zeros(40, dtype=torch.long),
        frames=rng.choice(np.array([0, 255], dtype=np.uint8), (40, *SIZE, 3)),
        device="cpu",
    )


@pytest.fixture
def head():
    torch.manual_seed(0)
    return ReadOut(1, (4, 4, 4), width=8)


def judge_of(half, dataset, validation):
    return GameValidation(teacher=Box(half), frames=dataset.frames[validation], targets=dataset.targets[validation])


def test_the_black_box_plays_the_games_of_the_protocol(dataset):
    judge = judge_of("left", dataset, torch.arange(3))
    maps = torch.randn(3, *CELLS, generator=torch.Generator().manual_seed(2))
    protocol = Protocol(step_px=SIZE[0] * SIZE[1] // (2 * HARD_POINTS))
    probs = torch.empty(3, 2, HARD_POINTS)
    for pixels, saliency, found in zip(judge.frames, maps, probs, strict=True):
        image = judge.teacher.normalize(pixels[None])[0]
        plays, _ = make_plays(image, saliency, target=0, protocol=protocol, image_id="a", mean=MEAN, std=STD)
        for play, row in zip(plays, found, strict=True):
            frames = torch.empty(HARD_POINTS, 3, *SIZE)
            compose(play, range(1, 2 * HARD_POINTS, 2), out=frames)
            row[:] = judge.teacher.forward(frames)[:, 0]
    assert judge.games(maps) == pytest.approx(tuple(probs.mean(dim=(0, 2)).tolist()))


def test_a_soft_frame_is_a_hard_one_where_the_border_is_thin(monkeypatch):
    monkeypatch.setattr(refining, "SOFTNESS", 1e-6)
    generator = torch.Generator().manual_seed(0)
    images, maps = torch.randn(2, 3, *CELLS, generator=generator), torch.randn(2, *CELLS, generator=generator)
    shares = torch.tensor([[0.25, 0.5]])
    deletion, insertion = soft_frames(images, maps, shares)
    for i, share in enumerate((0.25, 0.5)):
        taken = maps[i] >= np.quantile(maps[i].numpy(), 1 - share)
        assert int(taken.sum()) == round(share * maps[i].numel())
        assert torch.allclose(deletion[i], torch.where(taken, 0, images[i]), atol=1e-4)
        assert torch.allclose(
            insertion[i], torch.where(taken, images[i], blur(images[i], refining.BLUR_SIGMA)), atol=1e-4
        )


def test_the_soft_loss_is_what_its_terms_say(dataset, head, student):
    numbers = torch.tensor([3, 1, 7])
    found = soft_loss(head, dataset, numbers, student, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    mirrored = torch.randint(2, (3,), generator=generator)
    uniform = torch.rand(SOFT_POINTS, 3, generator=generator)
    features, labels = dataset.batch(numbers, mirrored)
    maps, games = head(features), []
    sigma = refining.BLUR_SIGMA * SIZE[1]
    weight = gaussian_filter(np.ones(SIZE, dtype=np.float32), sigma, mode="constant", radius=5)
    for i, number in enumerate(numbers.tolist()):
        image = torch.from_numpy(dataset.frames[number]).permute(2, 0, 1) / 255 * 4 - 2
        image = image.flip(2) if mirrored[i] else image
        blurred = torch.from_numpy(
            gaussian_filter(image.numpy(), (0, sigma, sigma), mode="constant", radius=5) / weight
        )
        values = (maps[i] - maps[i].mean()) / maps[i].std(correction=0)
        for k in range(SOFT_POINTS):
            limit = values.detach().quantile(1 - (uniform[k, i] + k) / SOFT_POINTS)
            taken = 1 / (1 + torch.exp((limit - values) / refining.SOFTNESS))
            taken = F.interpolate(taken[None, None], SIZE, mode="bilinear")[0]
            frames = torch.stack([image * (1 - taken), image * taken + blurred * (1 - taken)])
            odds = student.model(frames)
            shown = torch.exp(odds[:, 0]) / torch.exp(odds).sum(dim=1)
            games.append(shown[0] - shown[1])
    expected = torch.stack(games).mean() + ANCHOR * (1 - correlation(maps, labels).mean())
    assert torch.allclose(found, expected, atol=1e-5)


def test_games_on_a_faithful_student_make_both_games_on_the_black_box_better(dataset, head, student):
    validation, training = torch.arange(8), torch.arange(8, 40)
    made = refine(
        head,
        dataset,
        training,
        validation,
        student=student,
        validate=judge_of("left", dataset, validation),
        epochs=12,
        seed=0,
    )
    assert made["epoch"] > 0
    assert made["after"]["deletion"] < made["before"]["deletion"] - 0.01
    assert made["after"]["insertion"] > made["before"]["insertion"] + 0.01
    maps = maps_of_images(head, dataset, validation)
    assert maps[..., :7].mean() > maps[..., 7:].mean()
    assert judge_of("left", dataset, validation).games(maps) == pytest.approx(tuple(made["after"].values()))


def test_a_read_out_that_games_on_an_unfaithful_student_would_spoil_stays_as_it_came(
    dataset, head, student, monkeypatch
):
    monkeypatch.setattr(refining, "LR", 0.05)  # so that an epoch does spoil it
    validation, training = torch.arange(8), torch.arange(8, 40)
    for tensor in head.parameters():  # a read-out that the black box likes: bright on the right
        tensor.data.zero_()
    head.hidden[0].weight.data[0, 2 + 6, 1, 1] = 1.0  # the place from left to right
    head.hidden[0].bias.data[0] = 2.0
    for conv in head.hidden[1:]:
        conv.weight.data[0, 0, 1, 1] = 1.0
    head.last.weight.data[0, 0] = 1.0
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    made = refine(
        head,
        dataset,
        training,
        validation,
        student=student,
        validate=judge_of("right", dataset, validation),
        epochs=4,
        seed=0,
    )
    assert made["epoch"] == 0
    assert made["after"] == made["before"]
    assert all(torch.equal(before[name], tensor) for name, tensor in head.state_dict().items())
