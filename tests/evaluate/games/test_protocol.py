"""The protocol's hash names everything that can move a score."""

import dataclasses

import pytest

from evaluate.games.protocol import Protocol


def test_every_field_changes_the_hash_and_the_name():
    other = {
        "step_px": 448,
        "deletion_substrate": "blur",
        "insertion_substrate": "black",
        "seed": 1,
        "target": "label",
        "patches": 14,
        "least_relevant": True,
        "points": 45,
    }
    assert set(other) == {field.name for field in dataclasses.fields(Protocol)}
    hashes = {Protocol().hash} | {Protocol(**{name: value}).hash for name, value in other.items()}
    assert len(hashes) == 1 + len(other)
    assert Protocol().name == "rise"
    assert Protocol(seed=1).name == "rise(seed=1)"


def test_the_frozen_protocol_keeps_its_hash():
    """A change here makes every stored score incomparable: it must be meant."""
    assert Protocol().hash == "bf8401cd"
    assert Protocol(step_px=896).hash == "0c312ef6"
    assert Protocol(target="label").hash == "249845a2"
    odd = Protocol(deletion_substrate="noise", insertion_substrate="black", step_px=50, seed=3)
    assert odd.hash == "1b83b919"


def test_fields_that_came_later_are_stored_only_where_they_are_set():
    assert not {"patches", "least_relevant", "points", "sampling"} & set(Protocol().fields())
    fields = Protocol(patches=14, least_relevant=True).fields()
    assert (fields["patches"], fields["least_relevant"]) == (14, True)
    assert fields["name"] == "rise(patches=14, least_relevant=True)"
    assert "patch index" in fields["order"]
    assert "pixel index" in Protocol(least_relevant=True).fields()["order"]
    assert "patches" not in Protocol(least_relevant=True).fields()
    assert {"points", "sampling"} <= set(Protocol(points=45).fields())


def test_games_come_in_two_or_four():
    assert Protocol().games == ("deletion", "insertion")
    protocol = Protocol(least_relevant=True, deletion_substrate="noise", insertion_substrate="black")
    assert protocol.games == ("deletion", "insertion", "deletion_least", "insertion_least")
    assert [protocol.baseline(game) for game in protocol.games] == ["noise", "black", "noise", "black"]


def test_patches_need_a_pixel_each():
    Protocol(patches=12).check_size((12, 18))
    with pytest.raises(ValueError, match=r"patches 13 does not fit.*12 x 18.*at most 12"):
        Protocol(patches=13).check_size((12, 18))


def test_the_step_is_the_width_of_the_input():
    assert Protocol().step((224, 320)) == 320
    assert Protocol(step_px=100).step((224, 320)) == 100


@pytest.mark.parametrize(
    "wrong", [{"step_px": 0}, {"seed": -1}, {"deletion_substrate": "green"}, {"patches": 1}, {"points": 2}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Protocol(**wrong)


def test_patches_and_pixels_per_step_exclude_each_other():
    with pytest.raises(ValueError, match="patches 14 and step_px 224 do not go together"):
        Protocol(patches=14, step_px=224)
