"""Paths that tests share: the project's root, the folder of test helpers, and the real data beside the project."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
SHARED_DATA = ROOT / ".." / "shared" / "data"
"""Real images; tests that need them are skipped where they are missing."""
