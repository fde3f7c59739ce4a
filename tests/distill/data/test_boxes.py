"""Boxes from annotations: scaled to frames that are not square, and files that mean no good."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.boxes import CORNERS, MAX_BYTES, Boxes, read_boxes
from distill.data.image_set import ImageSet
from distill.data.objects import BoxFiles, BoxTable

IMAGENET = b"""<annotation>
	<folder>val</folder>
	<filename>ILSVRC2012_val_00000001</filename>
	<source><database>ILSVRC_2012</database></source>
	<size><width>500</width><height>375</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object><name>n01751748</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
		<bndbox><xmin>111</xmin><ymin>108</ymin><xmax>441</xmax><ymax>193</ymax></bndbox>
	</object>
</annotation>
"""


def test_an_annotation_as_imagenet_has_it() -> None:
    found = read_boxes(IMAGENET)
    assert found == Boxes(size=(375, 500), corners=((111, 108, 441, 193),))


def test_several_objects_and_parts_of_them() -> None:
    part = b"<part><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    other = b"<object><bndbox><xmin>0</xmin><ymin>1.5</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>" + part + b"</object>"
    found = read_boxes(IMAGENET.replace(b"</annotation>", other + b"</annotation>"))
    assert found.corners == ((111, 108, 441, 193), (0, 1.5, 5, 6))


def test_a_mask_marks_the_pixels_with_their_centre_inside() -> None:
    boxes = Boxes(size=(20, 40), corners=((10, 5, 20, 10), (30, 0, 40, 20)))
    mask = boxes.mask((8, 12))
    for y in range(8):
        for x in range(12):
            row, column = (y + 0.5) * 20 / 8, (x + 0.5) * 40 / 12
            inside = (10 <= column <= 20 and 5 <= row <= 10) or 30 <= column <= 40
            assert mask[y, x] == inside
    assert np.array_equal(Boxes(size=(4, 4), corners=((-9, -9, 99, 99),)).mask((3, 5)), np.ones((3, 5), dtype=bool))


def stored(upright: np.ndarray, turn: int) -> bytes:
    """Store an image so that EXIF turns it upright: what a camera held askew does."""
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    back |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    image, exif, buffer = Image.fromarray(upright), Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    image = image if turn == 1 else image.transpose(Image.Transpose[back[turn]])
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["files", "table"])
def test_a_box_turns_with_its_image(turn: int, kind: str, tmp_path: Path) -> None:
    upright = np.zeros((24, 40, 3), dtype=np.uint8)
    upright[3:10, 5:21] = 255
    data = stored(upright, turn)
    (tmp_path / "x.png").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:  # as it is stored, and as an annotator sees it
        pixels = np.asarray(image)
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in ((1, 2), (0, 2)))
    left, top, right, bottom = (*(int(found[0]) for found in (columns, rows)), int(columns[-1]) + 1, int(rows[-1]) + 1)
    objects = BoxTable(corners={"x.png": (left, top, right, bottom)})
    if kind == "files":
        text = f"<size><width>{pixels.shape[1]}</width><height>{pixels.shape[0]}</height></size><object><bndbox>"
        text += "".join(f"<{n}>{v}</{n}>" for n, v in zip(CORNERS, (left, top, right, bottom), strict=True))
        (tmp_path / "x.xml").write_text(f"<annotation>{text}</bndbox></object></annotation>")
        objects = BoxFiles(uri=str(tmp_path))
    images = ImageSet(
        name="x", root=str(tmp_path), image_ids=("x.png",), class_ids=(None,), class_names=(), objects=objects
    )
    assert np.array_equal(np.asarray(images.image("x.png")), upright)
    mask = images.mask("x.png", (24, 40))
    assert mask is not None
    assert np.array_equal(mask, upright[..., 0] > 0)


def test_a_box_that_was_drawn_on_the_upright_image_stays(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(stored(np.zeros((375, 500, 3), dtype=np.uint8), 6))
    (tmp_path / "x.xml").write_bytes(IMAGENET)
    images = ImageSet(name="x", root=str(tmp_path), image_ids=("x.png",), class_ids=(None,), class_names=())
    assert BoxFiles(uri=str(tmp_path)).find(images, "x.png") == read_boxes(IMAGENET)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_not_expanded(encoding: str) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation><size>&c;</size></annotation>'
    with pytest.raises(ValueError, match="document type"):
        read_boxes(bomb.encode(encoding))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not XML"),
        (b"<annotation>", "not XML"),
        (b"<annotation></annotation>", "height is None"),
        (IMAGENET.replace(b"441", b"wide"), "xmax is 'wide'"),
        (IMAGENET.replace(b"441", b"inf"), "not a finite number"),
        (IMAGENET.replace(b"375", b"0"), "500 x 0|0 pixels"),
        (IMAGENET.replace(b"object>", b"thing>"), "no box"),
        (IMAGENET.replace(b"annotation>", b"note>"), "height is None"),
        (b" " * (MAX_BYTES + 1), "allowed: 1000000"),
    ],
)
def test_broken_annotations_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_boxes(data)
