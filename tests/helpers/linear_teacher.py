"""A linear classifier of 20 x 30 pixels, and its probabilities re-derived slowly."""

import numpy as np
import torch

SIZE = (20, 30)  # height, width: not square, so that swapping them shows
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
NUM_CLASSES = 5


class TinyNet(torch.nn.Module):
    """Classes that depend on where in the image something is, with batch norm in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.linear = torch.nn.Linear(3 * SIZE[0] * SIZE[1], NUM_CLASSES)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(self.linear.weight.shape, generator=generator) * 0.05)
            self.linear.bias.zero_()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(pixels).flatten(1))


def some_images(count: int = 19) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def slow_probabilities(images: np.ndarray) -> np.ndarray:
    """Re-derive what a teacher around TinyNet must say, one image, one channel and one exponential at a time."""
    rows = []
    for image in images:
        pixels = torch.zeros(3, *SIZE)
        for channel in range(3):
            plane = image[:, :, channel].astype(np.float64)
            pixels[channel] = torch.from_numpy((plane / 255 - MEAN[channel]) / STD[channel])
        with torch.no_grad():
            logits = TinyNet().eval()(pixels[None])[0].double().numpy()
        powers = np.exp(logits)
        rows.append(powers / powers.sum())
    return np.array(rows)
