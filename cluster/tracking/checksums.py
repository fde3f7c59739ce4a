"""Checksums of a registered model: code that whoever can write to its files has changed is not run.

`guarded` makes the file that MLflow runs first compare the code beside it with what was registered. It cannot guard
itself: `verify_model` of the registry compares all files before anything of them runs.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

GUARD = '''"""What MLflow runs to load this model: it compares the code beside it with what was registered."""

import contextlib
import hashlib
import importlib.util
import pathlib
import sys

SHA256 = {checksums}
code = pathlib.Path(__file__).parent / "code"
if code.exists():  # there is none while it is registered
    files = [path for path in code.rglob("*") if path.is_file()]
    found = {{path.relative_to(code).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    changed = sorted(name for name in {{*found, *SHA256}} if found.get(name) != SHA256.get(name))
    if changed:
        raise RuntimeError(f"{{code}} is not as it was registered: {{', '.join(changed[:5])}}; register it again")
    sys.dont_write_bytecode = True  # a compiled file would be other code, as this file's is
    compiled = pathlib.Path(importlib.util.cache_from_source(__file__))
    with contextlib.suppress(OSError):
        compiled.unlink()
        compiled.parent.rmdir()

{code}'''
ADDED = "registered_model_meta"  # by MLflow, to files that it fetches


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ADDED)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def digest(files: dict[str, str]) -> str:
    """Return one SHA-256 for the names and contents of files."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def guarded(code: str, packages: Sequence[Path]) -> str:
    """Return code for MLflow to run that first compares the packages beside it with these."""
    files = {f"{package.name}/{name}": sha for package in packages for name, sha in checksums(package).items()}
    return GUARD.format(checksums=json.dumps(files, indent=4), code=code)
