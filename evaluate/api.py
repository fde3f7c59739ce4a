"""Python API for notebooks: both games of maps in memory, without Ray and without files.

from evaluate.api import play_maps

scores = play_maps(maps, "onnx:model.onnx")     # pandas: image_id, method, game, auc, curve
scores.groupby("game")["auc"].mean()
"""

from typing import TYPE_CHECKING

import torch

from distill.data.decode import resize
from distill.perturb.curves import Perturbation, area_over, changed_fractions, play
from distill.teachers.base import Teacher
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays
from explain.api import Maps, open_teacher

if TYPE_CHECKING:
    import pandas as pd

BATCH_FRAMES = 64
"""Where the teacher does not say how many it takes at once."""


def play_maps(maps: Maps, teacher: str | Teacher, *, protocol: Protocol | None = None) -> "pd.DataFrame":
    """Play insertion and deletion with maps on the black box, as `python -m evaluate games` does.

    Args:
        maps: of `explain.api.explain_images`; an image with an error is left out.
        teacher: the black box, open or as `KIND:WHERE`.
        protocol: RISE's by default.

    Returns:
        One row per image and game: image_id, method, game, target, auc, curve (array), tied_share.

    Raises:
        ValueError: a map's target is no class of the teacher, or the protocol leaves points out, which only jobs do.
    """
    import pandas as pd

    protocol, box = protocol or Protocol(), open_teacher(teacher)
    if protocol.points is not None:
        raise ValueError(f"points {protocol.points} is for `python -m evaluate games`; leave it out here")
    protocol.check_size(box.input_size)
    rows, plays = [], []
    for k in range(len(maps)):
        if maps.errors[k] is not None:
            continue
        made, tied_share = _plays(maps, k, box, protocol)
        same = {"image_id": maps.image_ids[k], "method": maps.method, "target": int(maps.target[k])}
        rows += [{**same, "game": game, "tied_share": tied_share} for game in protocol.games]
        plays += made
    curves = play(box.forward, plays, batch_size=box.batch_size or BATCH_FRAMES)
    for row, game, curve in zip(rows, plays, curves, strict=True):
        row |= {"auc": area_over(curve, changed_fractions(game.steps, game.num_steps)), "curve": curve}
    return pd.DataFrame(rows, columns=["image_id", "method", "game", "target", "auc", "curve", "tied_share"])


def _plays(maps: Maps, k: int, box: Teacher, protocol: Protocol) -> tuple[list[Perturbation], float]:
    target = int(maps.target[k])
    if not 0 <= target < box.num_classes:
        raise ValueError(
            f"target {target} of {maps.image_ids[k]} is no class of the teacher: 0 to {box.num_classes - 1}"
        )
    image = box.normalize(resize(maps.photographs[k], box.input_size)[None])[0]
    saliency = torch.from_numpy(maps.saliency[k]).to(image.device)
    return make_plays(
        image, saliency, target=target, protocol=protocol, image_id=maps.image_ids[k], mean=box.mean, std=box.std
    )
