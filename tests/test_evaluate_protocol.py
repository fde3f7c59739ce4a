"""The protocol's hash names everything that can move a score."""

import dataclasses

import pytest

from evaluate.protocol import Protocol


def test_every_field_changes_the_hash_and_the_name():
    other = {
        "step_px": 448,
        "deletion_substrate": "blur",
        "insertion_substrate": "black",
        "seed": 1,
        "target": "label",
    }
    assert set(other) == {field.name for field in dataclasses.fields(Protocol)}
    hashes = {Protocol().hash} | {Protocol(**{name: value}).hash for name, value in other.items()}
    assert len(hashes) == 1 + len(other)
    assert Protocol().name == "rise"
    assert Protocol(seed=1).name == "rise(seed=1)"


def test_the_frozen_protocol_keeps_its_hash():
    """A change here makes every stored score incomparable: it must be meant."""
    assert Protocol().hash == "bf8401cd"


def test_the_step_is_the_width_of_the_input():
    assert Protocol().step((224, 320)) == 320
    assert Protocol(step_px=100).step((224, 320)) == 100


@pytest.mark.parametrize("wrong", [{"step_px": 0}, {"seed": -1}, {"deletion_substrate": "green"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Protocol(**wrong)
