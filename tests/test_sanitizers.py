"""The CUDA kernels under the compiler's sanitizers, and that these see what is planted for them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import planted
import pytest
import sanitized

pytestmark = pytest.mark.sanitize

HERE = Path(__file__).parent


@pytest.mark.parametrize("variant, name", [(variant, name) for name, bug in planted.BUGS.items() for variant in bug.seen if variant])
def test_a_planted_bug_is_seen(variant: str, name: str) -> None:
    assert planted.BUGS[name].seen[variant] in sanitized.run(variant, str(HERE / "planted.py"), name)


@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("name", planted.SOUND)
def test_where_nothing_is_wrong_nothing_is_seen(variant: str, name: str) -> None:
    assert sanitized.run(variant, str(HERE / "planted.py"), name) == "right\n\n\nexit 0"


PARTS = {"address": 6, "thread": 12}  # the latter is slow, so of its parts only the first six are run: every second kernel


@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("variant", PARTS)
def test_the_kernels_are_sound(variant: str, part: int) -> None:
    said = sanitized.run(variant, str(HERE / "sweep.py"), str(part), str(PARTS[variant]))
    assert "kernels were right" in said and said.endswith("exit 0"), said


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("variant", ["address", "thread"])
def test_the_kernels_that_are_no_rows_are_sound(variant: str, part: int) -> None:
    said = sanitized.run(variant, str(HERE / "own_sweep.py"), str(part), "2")
    assert "kernels were right" in said and said.endswith("exit 0"), said


# Where the code waits for other threads, by file and number of the place there. One of them keeps atomics in order, which race with
# nothing, between blocks, which the emulator runs one after the other: that it is missing can be seen on a GPU alone. Another lets a tile
# go out before the next comes in; the two lie alike, as blocks step by a multiple of 8 rows, so that each thread waits for itself alone.
_SOURCES = sanitized.ROOT / "kernels"
_WAITS = re.compile(r"__(?:syncthreads|syncwarp|threadfence)\(\);")
_UNSEEN = re.compile(r"(SHARED\(int, last, 1\);|send<BLOCK, E>\(tile_h, a.curve, first, here, a.n\);)\s*$")


def places(file: str) -> list[tuple[str, int, str]]:
    text = (_SOURCES / file).read_text()
    found = enumerate(_WAITS.finditer(text))
    return [(file, i, place[0]) for i, place in found if not _UNSEEN.search(text[: place.start()])]


PLACES = places("schedule.cuh")


@pytest.mark.parametrize("file, number, call", PLACES, ids=[f"{file} {number} {call}" for file, number, call in PLACES])
def test_without_any_one_of_its_barriers_and_fences_a_kernel_is_wrong(file: str, number: int, call: str, tmp_path: Path) -> None:
    for folder in ("kernels", "lossfuncs"):
        shutil.copytree(sanitized.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "kernels" / file
    text = source.read_text()
    place = list(_WAITS.finditer(text))[number]
    source.write_text(text[: place.start()] + ";" + text[place.end() :])
    said = sanitized.run("thread", str(HERE / "sweep.py"), "0", "0", folder=tmp_path)
    assert "data race" in said, said


def test_with_all_of_them_they_are_right_under_every_schedule() -> None:
    assert "kernels were right" in sanitized.run("", str(HERE / "sweep.py"), "0", "0")
