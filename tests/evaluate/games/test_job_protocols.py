"""The games' job by other protocols, without Ray: a limit, whole patches, fewer points."""

from types import SimpleNamespace

import box_teacher
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from played_maps import CONSTANT, TEACHER, check, frame, make_saliency, make_worker

from cluster.storage import Folder
from distill.teachers import load_teacher
from evaluate.games.protocol import ALL_GAMES, LEAST_GAMES, Protocol
from evaluate.games.schema import read_scores
from evaluate.map_sets import map_items, open_played_images

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_limit_and_another_protocol_without_ray(place):
    protocol = Protocol(step_px=50, deletion_substrate="noise", insertion_substrate="black")
    sources = check(place.maps)
    images = open_played_images(str(place.data), sources[0], 2)
    found = make_worker(place, protocol)(list(map_items(sources, images))).to_pandas()
    assert found["image_id"].tolist() == ["00.png"] * 2 + ["01.png"] * 2 + ["00.png"] * 2 + ["01.png"] * 2
    assert (found["teacher_queries"] == 6).all()  # 216 pixels in steps of 50, and the start
    assert set(found["protocol_hash"]) == {protocol.hash} != {Protocol().hash}
    ends = found.set_index(["method", "image_id", "game"])["curve"]
    for method, image_id, game in ends.index:
        whole = ends[(method, image_id, game)][0 if game == "deletion" else -1]
        probs = box_teacher.make()(frame(place.data, image_id)[None])[0]
        assert whole == pytest.approx(probs.max(), abs=1e-6)  # the whole image, at the end where it belongs


def test_whole_patches_in_both_orders_without_ray(place):
    """Four rows a map; 5 patches divide neither side of 12 x 18; the ends are the same frames in both orders."""
    protocol = Protocol(patches=5, least_relevant=True)
    sources = check(place.maps[:1])
    images = open_played_images(str(place.data), sources[0], 8)
    found = make_worker(place, protocol)(list(map_items(sources, images))).to_pandas()
    assert found["game"].tolist() == list(ALL_GAMES) * 8
    failed = found[found["error"].notna()]
    assert len(failed) == 2 * 4  # the broken image and the map that is not finite
    scored = found[found["error"].isna()]
    assert (scored["teacher_queries"] == 26).all()
    assert set(scored.loc[scored["image_id"] == f"{CONSTANT:02d}.png", "tied_share"]) == {1}
    for _, rows in scored.groupby("image_id"):
        curves = rows.set_index("game")["curve"]
        for game, least in LEAST_GAMES.items():
            assert curves[game][[0, -1]] == pytest.approx(curves[least][[0, -1]], abs=1e-6)
            assert np.abs(curves[game] - curves[least]).max() > 1e-3
        assert curves["deletion"][0] == pytest.approx(curves["insertion"][-1], abs=1e-6)
    row = scored.iloc[0]
    assert (row["image_id"], row["game"]) == ("00.png", "deletion")
    assert row["auc"] == pytest.approx(plain_patch_auc(place, 0, 5, int(row["target"])), abs=1e-4)


def test_fewer_points_say_by_how_much_they_may_be_off(place):
    protocol, steps = Protocol(points=6, step_px=9), 24
    sources = check(place.maps[:1])
    images = open_played_images(str(place.data), sources[0], 8)
    items = list(map_items(sources, images))
    exact = make_worker(place, Protocol(step_px=9))(items).to_pandas()
    table = make_worker(place, protocol)(items)
    found = table.to_pandas()
    assert "auc_bound" not in exact
    assert found["error"].tolist() == exact["error"].tolist()
    assert found["auc_bound"].isna().equals(found["error"].notna())
    for (_, row), (_, whole) in zip(
        found.dropna(subset="auc").iterrows(), exact.dropna(subset="auc").iterrows(), strict=True
    ):
        assert row["teacher_queries"] == 6
        assert len(row["curve"]) == len(whole["curve"]) == steps + 1
        assert row["curve"][[0, -1]] == pytest.approx(whole["curve"][[0, -1]], abs=1e-6)
        assert np.isclose(row["curve"], whole["curve"], atol=1e-6).sum() >= 6
        assert row["auc"] == pytest.approx(np.trapezoid(row["curve"], dx=1 / steps), abs=1e-6)
        assert 0 < row["auc_bound"] < 0.5
    folder = Folder(str(place.root / "fewer"))
    folder.claim({"schema_version": "1", "protocol": protocol.fields(), "protocol_hash": protocol.hash}, what="scores")
    pq.write_table(table, place.root / "fewer" / "part-00000.parquet")
    assert read_scores(folder).column_names == table.column_names


def plain_patch_auc(place: SimpleNamespace, k: int, patches: int, target: int) -> float:
    """Delete whole patches of one image of the first method, frame by frame through the uint8 interface."""
    height, width = box_teacher.SIZE
    teacher = load_teacher(TEACHER)
    shown = teacher.normalize(frame(place.data, f"{k:02d}.png")[None])[0].clone()
    saliency = torch.from_numpy(make_saliency("first", k)).double()
    values = torch.nn.functional.interpolate(saliency[None, None], (height, width), mode="bilinear")
    means = torch.nn.functional.adaptive_avg_pool2d(values, patches)[0, 0]
    scores, changed = [], [0]
    for index in [-1, *torch.argsort(means.flatten(), descending=True).tolist()]:
        if index >= 0:
            i, j = divmod(index, patches)
            rows = slice(i * height // patches, (i + 1) * height // patches)
            columns = slice(j * width // patches, (j + 1) * width // patches)
            shown[:, rows, columns] = 0
            changed.append(changed[-1] + shown[0, rows, columns].numel())
        pixels = (shown * torch.tensor(teacher.std)[:, None, None] + torch.tensor(teacher.mean)[:, None, None]) * 255
        levels = pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        scores.append(box_teacher.make()(levels[None])[0, target])
    assert changed[-1] == height * width
    return float(np.trapezoid(scores, np.array(changed) / changed[-1]))
