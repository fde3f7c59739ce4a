"""Render the demo's photographs: a textured object on clutter, with the object's exact mask.

A class is a texture on one of four shapes, in a hue of its own. The clutter has the same shapes in one pale color and
blobs with textures of no class, so that a model must look at the object itself, which is seldom in the center.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

CLASSES = {
    "checked_square": ("square", "checks"),
    "dotted_disc": ("disc", "dots"),
    "ringed_star": ("star", "rings"),
    "rippled_triangle": ("triangle", "ripples"),
    "spoked_disc": ("disc", "spokes"),
    "spotted_star": ("star", "spot"),
    "striped_triangle": ("triangle", "stripes"),
    "windowed_square": ("square", "windows"),
}
"""Class -> (shape, texture), in sorted order."""

SIZE_SHARE = (0.25, 0.50)
"""Diameter of an object over the image's side."""

DISTRACTOR_SHARE = (0.12, 0.25)
"""Diameter of a distractor over the image's side: below every object's."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One rendered image with what is known about it."""

    image: np.ndarray
    """uint8 (H, W, 3)"""
    background: np.ndarray
    """The same image without its object: uint8 (H, W, 3)."""
    mask: np.ndarray
    """bool (H, W): True on every pixel that the object touches."""


def render(class_name: str, generator: np.random.Generator, *, side_px: int = 128) -> Scene:
    """Render one image of a class; everything random comes from `generator`.

    Raises:
        ValueError: if the class is unknown.
    """
    if class_name not in CLASSES:
        raise ValueError(f"class {class_name!r} is unknown; allowed: {', '.join(CLASSES)}")
    clutter, placing, camera = generator.spawn(3)
    background = _clutter(clutter, side_px)
    shape, texture = CLASSES[class_name]
    hue = list(CLASSES).index(class_name) / len(CLASSES)
    image, alpha = _draw(background, placing, shape, texture, SIZE_SHARE, hue=hue)
    gain, noise = camera.uniform(0.8, 1.15), camera.normal(0, 0.025, (side_px, side_px, 1))

    def expose(pixels: np.ndarray) -> np.ndarray:
        return (np.clip(pixels * gain + noise, 0, 1) * 255 + 0.5).astype(np.uint8)

    return Scene(image=expose(image), background=expose(background), mask=alpha > 0)


def _clutter(generator: np.random.Generator, side_px: int) -> np.ndarray:
    """Paint colored noise of several scales, then distractors: (H, W, 3) in [0, 1]."""
    pixels = np.full((side_px, side_px, 3), generator.uniform(0.3, 0.7, 3))
    for cells, strength in ((3, 0.20), (9, 0.12), (27, 0.10)):
        noise = generator.uniform(-1, 1, (cells, cells, 3)) * (0.4 + 0.6 * generator.random())
        pixels += strength * _enlarge(noise, side_px)
    pixels = np.clip(pixels, 0, 1)
    shapes = list(SHAPES)
    for _ in range(generator.integers(3, 6)):
        pixels, _ = _draw(pixels, generator, generator.choice(shapes), "flat", DISTRACTOR_SHARE)
    for _ in range(generator.integers(1, 4)):
        pixels, _ = _draw(pixels, generator, "blob", generator.choice(["grain", "fade"]), DISTRACTOR_SHARE)
    return pixels


def _enlarge(noise: np.ndarray, side_px: int) -> np.ndarray:
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize((side_px, side_px), Image.Resampling.BICUBIC)
        for channel in np.moveaxis(noise, -1, 0)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _draw(
    pixels: np.ndarray,
    generator: np.random.Generator,
    shape: str,
    texture: str,
    share: tuple[float, float],
    *,
    hue: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a shape at a random place, turned at random, wholly inside: (H, W, 3) and its opacity (H, W).

    Its colors are of that hue, or pale ones of any hue.
    """
    side_px = len(pixels)
    radius_px = generator.uniform(*share) * side_px / 2
    center = generator.uniform(radius_px, side_px - 1 - radius_px, 2)
    turn = generator.uniform(0, 2 * np.pi)
    top, left = np.maximum(np.floor(center - radius_px - 1), 0).astype(int)
    bottom, right = np.ceil(center + radius_px + 2).astype(int)
    box = (slice(top, bottom), slice(left, right))  # nothing is drawn outside, and most pixels are
    y, x = np.ogrid[top : min(bottom, side_px), left : min(right, side_px)]
    y, x = (y - center[0]) / radius_px, (x - center[1]) / radius_px
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    outline = (_blob(generator) if shape == "blob" else SHAPES[shape])(np.arctan2(v, u))
    alpha = np.clip(0.5 + (outline - np.hypot(u, v)) * radius_px, 0, 1)[..., None]
    painted, opacity = pixels.copy(), np.zeros((side_px, side_px))
    painted[box] = pixels[box] * (1 - alpha) + _paint(generator, texture, u, v, hue) * alpha
    opacity[box] = alpha[..., 0]
    return painted, opacity


def _paint(generator: np.random.Generator, texture: str, u: np.ndarray, v: np.ndarray, hue: float | None) -> np.ndarray:
    """Color an object whose radius is 1 with about three periods of a texture in two colors: (H, W, 3)."""
    first, second = _two_colors(generator, hue)
    scale = 2 * np.pi / generator.uniform(0.55, 0.75)
    phase = generator.uniform(0, 2 * np.pi, 2)
    if texture == "flat":
        return np.broadcast_to(first, (*u.shape, 3))
    mix = 0.5 + 0.5 * np.tanh(3 * TEXTURES[texture](u * scale, v * scale, phase))
    return first + (second - first) * mix[..., None]


def _two_colors(generator: np.random.Generator, hue: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Choose a dark and a bright color of about that hue, in either order; without one, two pale ones."""
    saturation = generator.uniform(0, 0.3) if hue is None else generator.uniform(0.65, 0.95)
    hue = generator.random() if hue is None else hue + generator.uniform(-0.03, 0.03)
    dark = generator.uniform(0.25, 0.4)
    values = generator.permutation([dark, dark + generator.uniform(0.4, 0.55)])
    first, second = (np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) for value in values)
    return first, second


def _polygon(corners: int) -> Callable[[np.ndarray], np.ndarray]:
    sector = 2 * np.pi / corners
    return lambda angle: np.cos(sector / 2) / np.cos(np.mod(angle, sector) - sector / 2)


def _star(angle: np.ndarray) -> np.ndarray:
    """Five points: the radius falls from 1 at a point to 0.4 between two points."""
    return 0.4 + 0.6 * np.abs(np.mod(angle * 5 / (2 * np.pi), 1) * 2 - 1)


def _blob(generator: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Make a soft random outline, unlike every class's."""
    phases = generator.uniform(0, 2 * np.pi, 2)
    return lambda angle: 0.75 + 0.15 * np.sin(2 * angle + phases[0]) + 0.1 * np.sin(3 * angle + phases[1])


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "disc": np.ones_like,
    "square": _polygon(4),
    "triangle": _polygon(3),
    "star": _star,
}
"""Shape -> radius of its outline, at most 1, at each angle."""

TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda u, v, phase: np.sin(u + phase[0]),
    "checks": lambda u, v, phase: 3 * np.sin(u / 1.5 + phase[0]) * np.sin(v / 1.5 + phase[1]),
    "dots": lambda u, v, phase: np.cos(u + phase[0]) + np.cos(v + phase[1]) - 0.7,
    "rings": lambda u, v, phase: np.sin(np.hypot(u, v) + phase[0]),
    "ripples": lambda u, v, phase: np.sin(u / 1.5 + 1.5 * np.sin(v / 1.5 + phase[0])),
    "spokes": lambda u, v, phase: 2 * np.sin(4 * np.arctan2(v, u) + phase[0]),
    "spot": lambda u, v, phase: 4 - np.hypot(u, v),
    "windows": lambda u, v, phase: 1.5 * np.minimum(np.abs(u), np.abs(v)) - 1.5,
    "grain": lambda u, v, phase: np.sin(5 * u + phase[0]) * np.sin(7 * v + 3 * u + phase[1]),
    "fade": lambda u, v, phase: u / 10,
}
"""Texture -> its wave, about -1 ... 1, at places in radians of the texture's period; the last two are clutter's."""
