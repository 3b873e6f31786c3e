"""Imports point one way: utils -> nets -> engine -> yolo.py -> doors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("utils", "nets", "engine", "yolo")
HEAVY = {"tensorflow", "keras"}
# What doors are made of: their frame and their two kinds of command line.
HINGES = {"door.py", "arguments.py", "command_line.py"}
FORBIDDEN_NAMES = {"misc.py", "helpers.py", "common.py", "utils.py"}


def sources() -> list[Path]:
    doors = [path for path in ROOT.glob("*.py") if path.name != "yolo.py"]
    return [*doors, ROOT / "yolo.py", *(p for room in ROOMS[:3] for p in sorted((ROOT / room).rglob("*.py")))]


def room_of(path: Path) -> str:
    if path.name == "__main__.py":  # what python -m runs
        return "door"
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py") if first.removesuffix(".py") in ROOMS else "door"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    rank = [*ROOMS, "door"].index(room_of(path))
    doors = {door.stem for door in ROOT.glob("*.py")} - {"yolo"}
    names = imported(path)
    allowed = set(ROOMS[: rank + 1])
    assert not {name for name in names & set(ROOMS) if name not in allowed}
    assert not names & doors, "a door is imported by nobody"
    if room_of(path) == "utils":
        assert not names & HEAVY


@pytest.mark.parametrize("path", [p for p in sources() if room_of(p) != "door"], ids=lambda p: str(p.relative_to(ROOT)))
def test_only_doors_print_parse_or_exit(path: Path) -> None:
    if path.name in HINGES:
        return
    tree = ast.parse(path.read_text("utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"print", "exit", "quit"}
    assert "argparse" not in imported(path)


def test_sizes_and_names() -> None:
    for path in sources():
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= (120 if room_of(path) == "door" else 310), f"{path}: {lines} lines"
        assert path.name not in FORBIDDEN_NAMES, path


def test_init_files_define_nothing_but_registries() -> None:
    found = [path for room in ROOMS[:3] for path in (ROOT / room).rglob("__init__.py")]
    assert len(found) >= 4
    for path in found:
        assert path.parent.name == "backbones" or not path.read_text("utf-8").strip(), path
