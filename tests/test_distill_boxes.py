"""Boxes from annotations: scaled to frames that are not square, and files that mean no good."""

import numpy as np
import pytest

from distill.images.boxes import MAX_BYTES, Boxes, read_boxes

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
