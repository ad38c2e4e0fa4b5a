"""What an installation puts on the machine: our packages and console scripts, and nothing else."""

from __future__ import annotations

import importlib.metadata
from pathlib import PurePosixPath

import pytest

PACKAGES = {"curve_py", "metaserver", "chunkserver", "csi_driver", "node_agent"}
SCRIPTS = {"curve", "curve-metaserver", "curve-chunkserver", "curve-csi", "curve-agent"}


@pytest.fixture(scope="module")
def files() -> list[PurePosixPath]:
    recorded = importlib.metadata.files("curve")
    assert recorded
    return [PurePosixPath(path) for path in recorded]


def test_only_our_packages_are_installed(files: list[PurePosixPath]) -> None:
    tops = {path.parts[0] for path in files if path.parts[0] != ".."}
    assert {top for top in tops if not top.endswith(".dist-info")} <= PACKAGES
    assert {path.name for path in files if path.parts[0] == ".."} == SCRIPTS


def test_sources_of_the_extension_are_not_installed(files: list[PurePosixPath]) -> None:
    assert not [path for path in files if path.suffix in {".pyx", ".cc", ".h", ".cpp"}]
    assert not [path for path in files if path.name == "CMakeLists.txt"]


def test_types_are_published(files: list[PurePosixPath]) -> None:
    assert PurePosixPath("curve_py/py.typed") in files


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_console_scripts_load(script: str) -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=script)
    assert callable(entry.load())
