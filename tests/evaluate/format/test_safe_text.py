"""How text from outside is shown: paths, passwords, characters that hide or turn text."""

from pathlib import Path

import pytest

from cluster.errors import visible
from evaluate.format.safe_text import readable


def test_shown_paths_hide_passwords_and_this_machine() -> None:
    assert readable(f"onnx:{Path.cwd()}/models/m.onnx") == "onnx:models/m.onnx"
    assert readable("s3://key:secret@bucket/run") == "s3://bucket/run"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name_1.png", "plain name_1.png"),
        ("Fluß 木 ✓ \u0645\u0631\u062d\u0628\u0627", "Fluß 木 ✓ \u0645\u0631\u062d\u0628\u0627"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("esc\x1b[2Jbell\x07", r"esc\x1b[2Jbell\x07"),
        ("\ud83d alone", r"\ud83d alone"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("line\nbreak", "line\nbreak"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_hidden_characters_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    shown.encode()
