"""requirements/: locks hold what pyproject.toml asks for, whole and with hashes, and the notices name its licenses."""

import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project_paths import ROOT

LOCKS = ("dev", "image", "image-gpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SHORT = "run make lock, and make notices"


def lock(name: str) -> dict[str, str]:
    """Read the versions of a lock by canonical names; every line has to be a package with hashes, or a comment."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entry = r"([a-z0-9][a-z0-9._-]*)==([^\s;]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    rest = re.sub(entry, "", text)
    assert [line for line in rest.splitlines() if line and not line.lstrip().startswith("#")] == []
    assert not re.search(r"://|--index|--find-links|--extra", text)
    return {match[1]: match[2] for match in re.finditer(entry, text)}


def asked(name: str) -> list[Requirement]:
    extras = EXTRAS if name == "dev" else ["engines"]
    found = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    if name == "image-gpu":
        found = [line.replace("onnxruntime", "onnxruntime-gpu") for line in found]
    return [Requirement(line) for line in found]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_pyproject_asks_for(name: str) -> None:
    versions = lock(name)
    for requirement in asked(name):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements/{name}.txt: {SHORT}"
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}: {SHORT}"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="the lock is of Python 3.11 on Linux"
)
@pytest.mark.parametrize("name", ["dev", "image"])
def test_a_lock_is_whole(name: str) -> None:
    """What a locked package needs is locked: by the metadata of those that are installed here in the same version."""
    versions = lock(name)
    checked = 0
    for package, version in versions.items():
        try:
            distribution = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.version != version:
            continue
        checked += 1
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), (package, line)
    assert checked > 100


def test_make_installs_and_locks_every_extra() -> None:
    (extras,) = re.findall(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(extras.split(",")) == set(EXTRAS)


def test_images_hold_the_versions_that_are_tested() -> None:
    dev, image, gpu = (lock(name) for name in LOCKS)
    assert image.items() <= dev.items()
    assert gpu.items() - image.items() == {("onnxruntime-gpu", gpu["onnxruntime-gpu"])}
    assert image.items() - gpu.items() == {("onnxruntime", image["onnxruntime"])}


def test_bounds_leave_out_versions_with_known_holes() -> None:
    """Templates of `reference://` files ran code; a model read files outside its folder; templates left a sandbox."""
    unsafe = {"fsspec": "2026.4.0", "onnxruntime": "1.26.0", "jinja2": "3.1.5"}
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}
    assert [name for name, version in unsafe.items() if bounds[name].contains(version)] == []
    (gpu,) = [line for line in (ROOT / "requirements/gpu.in").read_text().splitlines() if not line.startswith("#")]
    assert Requirement(gpu).specifier == bounds["onnxruntime"]


def test_the_notices_name_what_the_image_installs() -> None:
    rows = re.findall(
        r"^\| (\S+) +\| (\S+) +\| (.+?) +\|$", (ROOT / "THIRD_PARTY_NOTICES.md").read_text(), re.MULTILINE
    )
    noted = {canonicalize_name(name): version for name, version, _ in rows if name != "Name"}
    assert noted == lock("image"), SHORT
    unknown = {canonicalize_name(name) for name, _, license_name in rows if license_name == "UNKNOWN"}
    assert unknown <= {"cuda-toolkit", "huey", "skops"}, "say in requirements/notices.md which license this is"
