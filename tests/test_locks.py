"""``make lock``, with a resolver that needs no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

RESOLVER = """#!/bin/sh
# Writes what bounds it, and what it found where it writes; cannot resolve what $UNSOLVABLE names.
while [ $# -gt 1 ]; do
  case $1 in -c) bounds=$2 ;; *.txt) wanted=$1 ;; -o) target=$2 ;; esac
  shift
done
target=${target:-$1}
[ "$wanted" = "$UNSOLVABLE.txt" ] && exit 7
[ -f "$wanted" ] || exit 8
cat "$target" "$bounds" > "$target.new"
echo "new $wanted" >> "$target.new"
mv "$target.new" "$target"
"""

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for wishes in ROOT.glob("requirements*.txt"):
        shutil.copy(wishes, tmp_path)
        (tmp_path / f"{wishes.stem}.lock").write_text(f"old {wishes.name}\n")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("python", "#!/bin/sh\n"), ("uv", RESOLVER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "installed-dev").touch()
    return tmp_path


def make_lock(checkout: Path, unsolvable: str) -> int:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    given = {**variables, "UNSOLVABLE": unsolvable}
    return subprocess.run(["make", "lock"], cwd=checkout, env=given, check=False, capture_output=True).returncode


def locks(checkout: Path) -> dict[str, list[str]]:
    return {lock.name: lock.read_text().splitlines() for lock in checkout.glob("requirements*.lock")}


@needs_make
def test_the_first_lock_starts_anew_and_bounds_the_others_which_start_from_themselves(checkout: Path) -> None:
    assert make_lock(checkout, "nothing") == 0
    first = "new requirements.txt"
    expected = {
        f"{wishes.stem}.lock": [f"old {wishes.name}", first, f"new {wishes.name}"]
        for wishes in ROOT.glob("requirements-*.txt")
    }
    assert locks(checkout) == {"requirements.lock": [first], **expected}
    assert not (checkout / ".locks").exists()


@needs_make
@pytest.mark.parametrize("unsolvable", ["requirements", "requirements-ray"])
def test_what_cannot_be_resolved_leaves_every_lock_as_it_was(checkout: Path, unsolvable: str) -> None:
    before = locks(checkout)
    assert len(before) == 5
    assert make_lock(checkout, unsolvable) != 0
    assert locks(checkout) == before
    assert make_lock(checkout, "nothing") == 0  # what the failure left is no hindrance
