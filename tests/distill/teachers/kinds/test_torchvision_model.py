"""torchvision's classifiers, with their own weights and transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.teachers import load_teacher


def test_torchvision_uses_the_weights_own_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    model = torchvision.models.squeezenet1_1(weights=None).eval()
    monkeypatch.setattr("distill.teachers.kinds.torchvision_model._load_state", lambda _: model.state_dict())
    teacher = load_teacher("torchvision:squeezenet1_1")
    assert (teacher.input_size, teacher.num_classes) == ((224, 224), 1000)
    assert teacher.class_names is not None
    assert teacher.class_names[:2] == ("tench", "goldfish")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    transforms = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms(resize_size=224)
    with torch.no_grad():
        expected = model(transforms(torch.from_numpy(image).permute(0, 3, 1, 2))).softmax(1).numpy()
    np.testing.assert_allclose(teacher.probabilities(image), expected, atol=1e-6)


def test_torchvision_says_what_it_has() -> None:
    with pytest.raises(ValueError, match=r"no classifier 'resnet51'; it has: .*resnet50"):
        load_teacher("torchvision:resnet51")
    with pytest.raises(ValueError, match="no weights 'V9'; it has: IMAGENET1K_V1, IMAGENET1K_V2"):
        load_teacher("torchvision:resnet50/V9")


def test_weights_that_cannot_be_downloaded_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"no network.*Put that file into .*checkpoints.*or use another teacher"):
        load_teacher("torchvision:squeezenet1_1")


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def test_a_planted_weights_file_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    marker, folder = tmp_path / "marker", tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save({"model": Evil(marker)}, folder / url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="cannot be had"):
        load_teacher("torchvision:squeezenet1_1")
    assert not marker.exists()
