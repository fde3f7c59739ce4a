"""The paper's tables and figures from our scores: against its text, plain means, pandas, and LaTeX taken apart."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import SKILLS, World, make_world
from PIL import Image
from report_pages import report_of

from cluster.storage import Folder
from evaluate.__main__ import main
from evaluate.config import PaperConfig
from evaluate.format.table import latex_text
from evaluate.games.protocol import Protocol
from evaluate.paper.formats import comma_separated, latex, lay_out, markdown
from evaluate.paper.order import order_sentences
from evaluate.paper.published import METHODS, PRINTED, rows_beside
from evaluate.paper.scores import read_data_sets
from evaluate.paper.tables import make_tables
from evaluate.paper.write import write_paper

# As the paper prints them; deletion, then insertion: Grad-CAM, LIME, RISE, the paper's.
PAPERS_TEXT = """
ImageNet .1253 .1217 .1077 .1236 .6785 .6940 .7335 .6055
CUB-200-2011 .0805 .1287 .0588 .0627 .6982 .6531 .7461 .6415
Stanford Cars .0796 .1345 .0658 .0698 .7197 .6447 .7720 .6785
Aircraft variant .0740 .1508 .0569 .0628 .6742 .5647 .7248 .6168
Aircraft family .1049 .1935 .0762 .0878 .7480 .6532 .8026 .7261
Aircraft manufacturer .1735 .3009 .1388 .1627 .8011 .7091 .8475 .7798
"""
HOSTILE = "a_b&c%d$e#f{g}~h^i\\j|k<l"


def as_data_set(world: World, name: str) -> World:
    """Give a world's scores another data set's name and state the student's fingerprint."""
    folder = Folder(world.scores)
    folder.write_json("_config.json", folder.config() | {"data_name": name})
    run = Folder(str(world.run))
    run.write_json("student.json", run.read_json("student.json") | {"fingerprint": "student0"})
    for file in ("similarity-aaaa.json", "similarity-bbbb.json"):
        run.write_json(file, run.read_json(file) | {"data_name": name, "data": str(world.data)})
    return world


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> World:
    skills = {"random": 0.05, "rise": 0.8, **SKILLS}
    return as_data_set(make_world(tmp_path_factory.mktemp("cars"), skills=skills, num_errors=2), "cars")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> World:
    skills = {"mal_grad_cam": 0.7, "lime": 0.4}
    return as_data_set(make_world(tmp_path_factory.mktemp("other"), skills=skills, num_images=6), HOSTILE)


def tables(*worlds: World, beside: tuple[str, ...] = ()) -> Any:
    config = PaperConfig(scores=tuple(world.scores for world in worlds), out="paper")
    return make_tables(read_data_sets(config.scores), config, rows_beside(beside))


def test_the_printed_numbers_are_the_papers():
    found = [[printed.title, *printed.deletion, *printed.insertion] for printed in PRINTED]
    lines = [re.split(r" (?=\.)", line) for line in PAPERS_TEXT.strip().splitlines()]
    assert found == [[title, *map(float, numbers)] for title, *numbers in lines]
    assert PRINTED[0].sims == (0.807, 0.701, 0.633, 0.574, 0.534)
    for printed in PRINTED:  # as the paper concedes, RISE wins both games everywhere
        for table, best in (("deletion", min), ("insertion", max)):
            numbers = printed.numbers(table)
            assert best(numbers, key=lambda method: numbers[method]) == "rise"


def test_cells_are_plain_means_of_the_stored_scores(cars: World):
    rows: Any = pd.concat(pd.read_parquet(path) for path in Path(cars.scores).glob("*.parquet"))
    for table in tables(cars)[1:]:
        game = "deletion" if table.number == 2 else "insertion"
        (line,) = [line for line in table.lines if line.data_set == "cars"]
        wanted = rows[rows["game"] == game].groupby("method")["auc"].mean().to_dict()
        assert set(line.cells) == set(wanted)
        for method, cell in line.cells.items():
            assert cell.value.mean == pytest.approx(wanted[method])
            assert cell.value.low < cell.value.mean < cell.value.high
            assert cell.value.num == 22
        assert line.num_images == 22
        assert line.printed == PRINTED[2].numbers(game)


def test_every_row_of_the_paper_stands_in_its_order_and_is_empty_where_nothing_was_measured(cars: World):
    for table in tables(cars)[1:]:
        names = [line.data_set for line in table.lines]
        assert names == [printed.title if printed.name != "cars" else "cars" for printed in PRINTED]
        heads, rows = lay_out(table).headings, lay_out(table).rows
        assert [head for head, part in heads if part] == list(METHODS.values())
        for name, row in zip(names, rows, strict=True):
            ours = {
                head: text for (head, part), text in zip(heads, row, strict=True) if not part and head != "data set"
            }
            printed = [text for (_, part), text in zip(heads, row, strict=True) if part]
            assert all(printed)
            assert {head for head, text in ours.items() if not text} == (set(ours) if name != "cars" else {"LIME"})


def test_the_order_of_methods_is_compared_in_words(cars: World):
    (data_set,) = read_data_sets([cars.scores])
    rows: Any = pd.concat(pd.read_parquet(path) for path in Path(cars.scores).glob("*.parquet"))
    means = rows.groupby(["game", "method"])["auc"].mean()
    first, second = order_sentences(data_set, PRINTED[2])
    assert first == (
        "Deletion, beside the paper's Stanford Cars: best first, the paper has RISE 0.0658, MAL-Grad-CAM 0.0698, "
        f"Grad-CAM 0.0796; here it is RISE {means['deletion', 'rise']:.4f}, MAL-Grad-CAM "
        f"{means['deletion', 'mal_grad_cam']:.4f}, Grad-CAM {means['deletion', 'grad_cam']:.4f}. Of 3 pairs 3 stand in "
        "the paper's order, 3 of them clearly (the 95 % interval of the paired difference leaves zero out)."
    )
    # In insertion the paper has RISE .7720, Grad-CAM .7197, MAL-Grad-CAM .6785.
    assert "Of 3 pairs 2 stand in the paper's order, 2 of them clearly" in second
    assert second.endswith("zero out); MAL-Grad-CAM is clearly ahead of Grad-CAM.")
    assert f"cars. {first}" in markdown(tables(cars)[1])
    assert not any("beside the paper's" in note for note in tables(cars)[0].notes)


def test_a_single_method_of_the_papers_has_no_order(tmp_path: Path):
    world = as_data_set(make_world(tmp_path, skills={"lime": 0.5, "random": 0.1}, num_images=4), "cub")
    for text in order_sentences(read_data_sets([world.scores])[0], PRINTED[1]):
        assert text.endswith("only LIME has a score here, so there is no order to compare.")


def test_a_report_compares_with_the_row_of_its_name_or_the_one_that_is_named(cars: World, tmp_path: Path):
    assert "beside the paper's Stanford Cars" in report_of(cars.scores).conclusions[-1]
    other = report_of(cars.scores, beside="imagenet")
    assert "beside the paper's ImageNet" in other.conclusions[-1]
    with pytest.raises(ValueError, match="beside 'flowers' is no data set of the paper's; these are: imagenet, cub"):
        report_of(cars.scores, beside="flowers")
    unknown = as_data_set(make_world(tmp_path, num_images=4), "flowers")
    assert not any("beside the paper's" in line for line in report_of(unknown.scores).conclusions)


def test_other_methods_follow_the_papers_and_controls_come_last(cars: World):
    table = tables(cars)[1]
    assert list(table.columns) == [*METHODS, "ml_grad_cam", "matt", "random", "centre_gaussian"]
    assert table.columns["random"] == "random (control)"
    text = markdown(table)
    row = next(line for line in text.splitlines() if line.startswith("| cars"))
    cells = dict(zip(text.splitlines()[2].split(" | "), row.split(" | "), strict=True))
    assert "†" in cells["MAL-Grad-CAM"]
    assert "†" not in cells["RISE"]
    assert "n = " not in row
    assert Protocol().hash in text
    assert "Stanford Cars" in text


def test_several_settings_of_a_papers_method_have_columns_of_their_own(tmp_path: Path):
    world = as_data_set(make_world(tmp_path, skills={"rise": 0.6, "mal_grad_cam": 0.5}, num_images=6), "cub")
    folder = Folder(world.scores)
    config = folder.config()
    other = config["maps"][0] | {"config_hash": "beef", "config": config["maps"][0]["config"] | {"options": {"p": 0.1}}}
    folder.write_json("_config.json", config | {"maps": [*config["maps"], other]})
    part = pq.read_table(Path(world.scores) / "part-00000.parquet")
    other_hash = pa.array(["beef"] * part.num_rows)
    fewer = part.set_column(part.schema.get_field_index("config_hash"), "config_hash", other_hash).slice(0, 8)
    pq.write_table(fewer, Path(world.scores) / "part-00009.parquet")
    table = tables(world)[1]
    assert list(table.columns) == [*METHODS, "rise (p=0.1)"]
    assert str(lay_out(table).rows[1][-1]).endswith("(n = 4)")
    assert any("RISE of cub is rise (p=None)" in note for note in table.notes)


def test_data_sets_without_a_row_in_the_paper_come_last_or_stand_where_they_are_put(cars: World, hostile: World):
    lines = tables(hostile, cars)[2].lines
    assert lines[-1].data_set == HOSTILE
    assert not lines[-1].printed
    lines = tables(hostile, cars, beside=(f"{HOSTILE}=cars",))[2].lines
    assert [line.data_set for line in lines[2:4]] == [HOSTILE, "cars"]
    assert lines[2].printed == lines[3].printed
    with pytest.raises(ValueError, match="beside 'cars_40=car' is not understood; give NAME=ROW"):
        rows_beside(["cars_40=car"])


def test_latex_says_what_markdown_says(cars: World, hostile: World):
    for table in tables(cars, hostile):
        text = latex(table)
        body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
        found = [[plain(cell) for cell in re.split(r"(?<!\\)&", row)] for row in body.split("\\\\\n") if row]
        heads, rows = lay_out(table).headings, lay_out(table).rows
        assert found == rows
        assert {len(row) for row in found} == {len(heads)}
        assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
        for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\caption{", "\\label{"):
            assert text.count(rule) == 1
    assert latex_text("50 %") == "50 \\%"


def plain(cell: str) -> str:
    """Undo LaTeX escapes."""
    names = {"textbackslash ": "\\", "textasciitilde ": "~", "textasciicircum ": "^", "textdagger{}": "†"}
    pattern = r"\\(textbackslash |textasciitilde |textasciicircum |textdagger\{\}|[&%$#_{}])"
    return re.sub(pattern, lambda m: names.get(m[1], m[1]), cell).strip()


def test_csv_has_every_number(cars: World, hostile: World):
    for table in tables(cars, hostile):
        frame: Any = pd.read_csv(io.StringIO(comma_separated(table))).set_index("data_set")
        for line in table.lines:
            row = frame.loc[line.data_set]
            row = row if isinstance(row, pd.Series) else row[row["view"] == line.view].iloc[0]
            for key in table.columns:
                cell = line.cells.get(key)
                wanted = [cell.value.mean, cell.value.low, cell.value.high, cell.value.num] if cell else [np.nan] * 4
                got = [row[f"{key}{part}"] for part in ("", "_low", "_high", "_num_images")]
                np.testing.assert_allclose(np.array(got, dtype=float), wanted, rtol=1e-5)
                if key in line.printed:
                    assert row[f"{key}_paper"] == line.printed[key]


def test_sims_are_the_students_own_beside_the_papers_view_only(cars: World):
    table = tables(cars, beside=())[0]
    line = next(line for line in table.lines if line.data_set == "cars")
    assert line.view == "centre_crop, split val"
    assert (line.cells["sim1"].value.mean, line.num_images) == (pytest.approx(0.8), 400)
    assert "sim5" not in line.cells
    assert any("another state of the student" in note for note in table.notes)
    placed = tables(cars, beside=("cars=imagenet",))[0]
    line = placed.lines[0]
    assert (line.data_set, line.printed["sim1"]) == ("cars", 0.807)
    assert lay_out(placed).rows[0][-2:] == ["", "0.534"]

    run = Folder(str(cars.run))
    kept = run.read_json("similarity-bbbb.json")
    run.write_json("similarity-bbbb.json", kept | {"student_fingerprint": "student0"})
    resized = next(line for line in tables(cars, beside=("cars=imagenet",))[0].lines if "resize" in line.view)
    run.write_json("similarity-bbbb.json", kept)
    assert not resized.printed
    sims = run.read_json("similarity-aaaa.json")
    run.write_json("similarity-aaaa.json", sims | {"view": "resize"})
    lines = tables(cars, beside=("cars=imagenet",))[0].lines
    run.write_json("similarity-aaaa.json", sims)
    assert [(line.data_set, len(line.cells), len(line.printed)) for line in lines] == [
        ("ImageNet", 0, 5),
        ("cars", 4, 0),
    ]


def test_what_cannot_share_a_table_is_refused(tmp_path: Path, cars: World, hostile: World):
    black = make_world(tmp_path / "black", num_images=4, protocol=Protocol(deletion_substrate="black"))
    with pytest.raises(ValueError, match="made under 2 protocols"):
        read_data_sets([cars.scores, black.scores])
    twin = as_data_set(make_world(tmp_path / "twin", num_images=4), "cars")
    with pytest.raises(ValueError, match="two data sets are named cars"):
        read_data_sets([cars.scores, twin.scores])
    more = Path(shutil.copytree(cars.scores, tmp_path / "more"))
    Folder(str(more)).write_json("_config.json", Folder(cars.scores).config() | {"data_fingerprint": "first 100"})
    with pytest.raises(ValueError, match="came twice"):
        read_data_sets([cars.scores, str(more)])
    for file in more.glob("*.parquet"):  # scores of other images
        rows = pd.read_parquet(file).assign(image_id=lambda frame: "more/" + frame["image_id"])
        pq.write_table(pa.Table.from_pandas(rows, schema=pq.read_schema(file), preserve_index=False), file)
    with pytest.raises(ValueError, match="cars are of 2 choices of images"):
        read_data_sets([cars.scores, str(more)])
    Folder(str(more)).delete("_manifest.json")
    with pytest.raises(ValueError, match="are not complete; run the same"):
        read_data_sets([str(more)])
    with pytest.raises(ValueError, match="no scores given"):
        read_data_sets([])
    config = PaperConfig(scores=(hostile.scores,), out="paper", student=(str(tmp_path),))
    with pytest.raises(ValueError, match="holds no student"):
        make_tables(read_data_sets(config.scores), config, {})


def test_the_command_writes_tables_and_figures(tmp_path: Path, cars: World, hostile: World, capsys: Any):
    out = tmp_path / "paper"
    assert main(["tables", "--scores", cars.scores, hostile.scores, "--out", str(out), "--num-images", "3"]) == 0
    named = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert named == {path.name for path in out.iterdir()}
    assert {f"table{n}{ending}" for n in (1, 2, 3) for ending in (".md", ".csv", ".tex")} < named
    assert {"figure5-cars.png", "figure6-cars.png"} < named
    assert main(["tables", "--scores", cars.scores, "--out", str(out), "--num-images", "0"]) == 2


def test_figures_show_inputs_unless_told_otherwise(tmp_path: Path, cars: World):
    """Without photographs a figure is the same whatever the images are."""
    pictures: dict[str, bytes] = {}
    images = {path: path.read_bytes() for path in (cars.data / "val").rglob("*.png")}
    try:
        for name, photographs, gray in (("a", True, False), ("b", False, False), ("c", True, True), ("d", False, True)):
            if gray:
                for path in images:
                    Image.new("RGB", (96, 96), (90, 90, 90)).save(path)
            out = str(tmp_path / name)
            write_paper(PaperConfig(scores=(cars.scores,), out=out, photographs=photographs, num_images=2))
            for path, data in images.items():
                path.write_bytes(data)
            pictures[name] = (tmp_path / name / "figure6-cars.png").read_bytes()
    finally:
        for path, data in images.items():
            path.write_bytes(data)
    assert pictures["a"] != pictures["c"]
    assert pictures["b"] == pictures["d"]
    widths = {name: Image.open(io.BytesIO(data)).width for name, data in pictures.items()}
    assert widths["a"] > widths["b"]


def test_a_figure_leaves_a_missing_method_empty(tmp_path: Path, hostile: World):
    written = write_paper(PaperConfig(scores=(hostile.scores,), out=str(tmp_path), num_images=1))
    (five,) = [path for path in written if "figure5" in path]
    pixels = np.asarray(Image.open(five).convert("RGB"))
    quarters = np.array_split(pixels[60:], 4, axis=1)  # input, ML-Grad-CAM, MATT, MAL-Grad-CAM, below the titles
    assert [bool((quarter[:, 30:-30] < 250).any()) for quarter in quarters] == [True, False, False, True]


def test_a_data_set_whose_images_all_failed_has_empty_cells_and_no_figures(tmp_path: Path):
    world = make_world(tmp_path / "world", skills={"mal_grad_cam": 0.7}, num_images=4, num_errors=4)
    written = write_paper(PaperConfig(scores=(as_data_set(world, "cub").scores,), out=str(tmp_path / "out")))
    assert written[-1] == "no figures of cub: mal_grad_cam has no score"
    (line,) = [line for line in tables(world)[1].lines if line.data_set == "cub"]
    assert (line.num_images, dict(line.cells)) == (0, {})
