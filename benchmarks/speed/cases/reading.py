"""Reading and decoding: what jobs and training do with a file, against torch's DataLoader with its best decoder."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from benchmarks.speed.cases.training import small_recipe
from benchmarks.speed.ratio import Row, Times, interleaved, speed_row, timed
from benchmarks.speed.world import World
from cluster.device import one_thread
from distill.data import ImageSet
from distill.data.frames import read_frame
from distill.data.root import Root
from distill.training.views import Views, collate

LOADER_BATCH = 32


def measure(world: World) -> list[Row]:
    """Time the whole image of the jobs, and the crops of training."""
    images = world.images("train", world.number(640, 4))
    with one_thread():  # as in each process of a DataLoader
        return [time_frames(world, images), time_views(world, images)]


def time_frames(world: World, images: ImageSet) -> Row:
    """Time whole images at the black box's size."""
    size, num = world.teacher.input_size, len(images.image_ids)
    works: dict[str, tuple[Callable[[], object], int]] = {
        name: (partial(_drain, Decoded(images, partial(decoder, size=size))), num) for name, decoder in DECODERS.items()
    }
    works["ours"] = (lambda: [read_frame(images, image_id, size) for image_id in images.image_ids], num)
    times = interleaved(works, rounds=world.rounds(5))
    best = min(DECODERS, key=lambda name: min(one.wall_s for one in times[name]))
    return speed_row(
        times["ours"],
        times[best],
        key="read",
        what=f"reading {num} images at {size[0]} x {size[1]} px as jobs do, on one thread",
        against=f"torch's DataLoader, {best}, the fastest of {len(DECODERS)} decoders",
        at_least=1.0,
        note=_profile(images, times["ours"], times["Pillow"]),
    )


def time_views(world: World, images: ImageSet) -> Row:
    """Time training's crops at both networks' sizes."""
    recipe, size, num = small_recipe(world), world.teacher.input_size, len(images.image_ids)
    views = Indexed(Views(images, [None] * num, recipe, size), num)
    crop = v2.RandomResizedCrop(size, scale=(recipe.crop_min_scale, 1.0), antialias=True)
    plain = {name: Cropped(images, decoder, crop, recipe.input_size) for name, decoder in WHOLE.items()}
    works = {name: (partial(_drain, one), num) for name, one in plain.items()}
    works["ours"] = (partial(_drain, views), num)
    times = interleaved(works, rounds=world.rounds(3))
    best = min(plain, key=lambda name: min(one.wall_s for one in times[name]))
    return speed_row(
        times["ours"],
        times[best],
        key="read",
        what=f"reading {num} images as training does, two crops each, on one thread",
        against=f"torch's DataLoader, {best}, a random crop scaled twice",
        at_least=1.0,
        note=_profile(images, times["ours"], times["Pillow"]),
    )


def _profile(images: ImageSet, ours: list[Times], loader: list[Times]) -> str:
    """Say what of our time is decoding, and what the peer reaches with our decoder."""
    ids = images.image_ids
    decoding_s = min(timed(lambda: [images.image(image_id) for image_id in ids]).wall_s for _ in range(3))
    share = decoding_s / min(one.wall_s for one in ours)
    rate = max(one.items / one.wall_s for one in loader)
    return (
        f"profile: {share:.0%} is reading the file and decoding it by Pillow, which takes rare and damaged files too; "
        f"with Pillow the peer reads {rate:,.0f}/s"
    )


def _drain(dataset: Dataset) -> None:
    """Read everything once, batch by batch, in this process: no start of others is in it."""
    for _ in DataLoader(dataset, LOADER_BATCH, collate_fn=_collated):
        pass


def _collated(rows: list) -> object:
    return collate(rows) if isinstance(rows[0], dict) else torch.utils.data.default_collate(rows)


def by_pillow(data: bytes) -> Image.Image:
    """Decode with Pillow."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def by_draft(data: bytes, *, size: tuple[int, int]) -> Tensor:
    """Decode with Pillow, a JPEG at half or less where it is twice as large, and resize."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (size[1], size[0]))
    return torch.from_numpy(np.array(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)))


def by_torchvision(data: bytes) -> Tensor:
    """Decode with torchvision's own decoder."""
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def whole_by_pillow(data: bytes, *, size: tuple[int, int]) -> Tensor:
    """Decode and resize with Pillow."""
    return torch.from_numpy(np.array(by_pillow(data).resize((size[1], size[0]), Image.Resampling.BILINEAR)))


def whole_by_torchvision(data: bytes, *, size: tuple[int, int]) -> Tensor:
    """Decode and resize with torchvision."""
    return v2.functional.resize(by_torchvision(data), list(size), antialias=True)


WHOLE: dict[str, Callable] = {"Pillow": by_pillow, "torchvision's decoder": by_torchvision}
DECODERS: dict[str, Callable] = {
    "Pillow": whole_by_pillow,
    "Pillow with DCT scaling": by_draft,
    "torchvision's decoder": whole_by_torchvision,
}


class Decoded(Dataset):
    """Whole images, decoded and resized."""

    def __init__(self, images: ImageSet, decode: Callable[[bytes], Tensor]) -> None:
        self.images, self.decode = images, decode

    def __len__(self) -> int:
        return len(self.images.image_ids)

    def __getitem__(self, number: int) -> Tensor:
        return self.decode(Root(self.images.root).read(self.images.image_ids[number]))


class Cropped(Decoded):
    """Random crops at two sizes."""

    def __init__(self, images: ImageSet, decode: Callable, crop: Callable, small: tuple[int, int]) -> None:
        super().__init__(images, decode)
        self.crop, self.small = crop, small

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        large = (
            v2.functional.pil_to_tensor(cropped)
            if isinstance(cropped := self.crop(super().__getitem__(number)), Image.Image)
            else cropped
        )
        return large, v2.functional.resize(large, list(self.small), antialias=True)


class Indexed(Dataset):
    """Training views of an epoch by a plain number."""

    def __init__(self, views: Views, num: int) -> None:
        self.views, self.num = views, num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, number: int) -> dict:
        return self.views[number, 0]
