"""What a GPU would be given: kernels compiled by NVRTC without one, their registers and spills, and the instructions of their loops."""

from __future__ import annotations

import functools
import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from lossfuncs.gpu import OPTIONS, SOURCES

# An H200, whose 132 processors at 1.98 GHz issue to 128 lanes and have 16 special-function units, and whose memory copies 4.3e12 bytes a
# second (measured; 4.8e12 by its data sheet): what it can do in the time in which 16 bytes come or go.
INSTRUCTIONS = 132 * 128 * 1.98e9 / 4.3e12 * 16
SPECIAL = 132 * 16 * 1.98e9 / 4.3e12 * 16
DOUBLES = 132 * 64 * 1.98e9 / 4.3e12 * 16


class Loop(NamedTuple):
    """Instructions of an innermost loop, once around: by the way that loads and stores most vectors, and of those the shortest.

    Rare cases, a new maximum or the slow way of a division, lie beside it.
    """

    instructions: int
    vectors: int  # loads and stores of 16 bytes of global memory
    loads: int  # of these, the loads
    scalars: int  # loads and stores of fewer bytes
    on_chip: int  # bytes read from shared memory
    special: int  # of the special-function units: ex2, lg2, rcp, sqrt (MUFU), and conversions from and to double
    doubles: int  # double-precision arithmetic
    local: int  # loads and stores of registers that found no room

    def share(self, count: int, rate: float) -> float:
        """The share of the time in which the memory moves this loop's bytes that `count` operations take; `rate` are done in that of 16.

        What is read from shared memory had to come from global memory before.
        """
        return count / (rate * (16 * self.vectors or self.on_chip) / 16)

    @property
    def issue(self) -> float:
        return self.share(self.instructions, INSTRUCTIONS)

    @property
    def special_functions(self) -> float:
        return self.share(self.special, SPECIAL)

    @property
    def fp64(self) -> float:
        return self.share(self.doubles, DOUBLES)


class Report(NamedTuple):
    """One compiled kernel."""

    name: str
    registers: int
    spilled: int  # bytes, stored and loaded
    stack: int  # bytes
    shared: int  # bytes of static shared memory
    loops: tuple[Loop, ...]

    @property
    def hot(self) -> tuple[Loop, ...]:
        """The loops that stream, from global memory or from what was brought on chip; not those for what remains."""
        most = max((loop.loads for loop in self.loops), default=0)
        chip = max((loop.on_chip for loop in self.loops if not loop.vectors), default=0)
        found = [loop for loop in self.loops if (loop.loads == most if loop.vectors else loop.on_chip == chip > 0)]
        return tuple(dict.fromkeys(found))


def architectures() -> tuple[int, ...]:
    """What this NVRTC can compile for, as 90 for sm_90."""
    return tuple(_nvrtc().getSupportedArchs())


@functools.cache
def _nvrtc() -> Any:
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except Exception as error:
        raise RuntimeError(f"the NVRTC gate needs CuPy and NVRTC, no GPU: pip install '.[nvrtc]' ({error})") from None
    return nvrtc


@functools.cache
def _disassembler() -> Path:
    found = next(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvdisasm"), None)
    if found is None:
        raise RuntimeError("the NVRTC gate needs nvdisasm: pip install '.[nvrtc]'")
    return found


def compiled(kernels: list[Any], architecture: int, loops: bool = False) -> list[Report]:
    """Reports on kernels (name, text), compiled as one program; with their loops, which takes as long again."""
    nvrtc = _nvrtc()
    program = nvrtc.createProgram("\n".join(kernel.text for kernel in kernels), "kernels.cu", [], [])
    try:
        options = [f"-arch=sm_{architecture}", *OPTIONS, f"-I{SOURCES}", "--ptxas-options=-v", "--ptxas-options=--warn-on-spills"]
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            raise ValueError(f"sm_{architecture}: {nvrtc.getProgramLog(program)}") from None
        log, binary = nvrtc.getProgramLog(program), nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)
    found = _loops(binary) if loops else {}
    reports = []
    for part in log.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        stack, stores, loads = map(int, _match(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part))
        shared = re.search(r"(\d+) bytes smem", part)
        (registers,) = map(int, _match(r"Used (\d+) registers", part))
        reports.append(Report(name, registers, stores + loads, stack, int(shared[1]) if shared else 0, found.get(name, ())))
    if {report.name for report in reports} != {kernel.name for kernel in kernels}:
        raise ValueError(f"ptxas did not tell of every kernel: {log}")
    return reports


def _match(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"ptxas' report has changed: no {pattern!r} in {text!r}")
    return found.groups()


def _loops(binary: bytes) -> dict[str, tuple[Loop, ...]]:
    """The innermost loops of each kernel, by nvdisasm."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary + b"\0")  # CuPy's getCUBIN drops the last byte, which is 0
        file.flush()
        text = subprocess.run([str(_disassembler()), "-c", file.name], capture_output=True, text=True, check=True).stdout
    found = {}
    for section in re.split(r"\n\s*\.section\s+\.text\.", text)[1:]:
        labels: dict[str, int] = {}
        instructions: list[str] = []
        for line in section.splitlines():
            if label := re.match(r"\s*(\.L_x_\d+):", line):
                labels[label[1]] = len(instructions)
            elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
                instructions.append(instruction[1].strip())
        jumps = {at: labels[jump[1]] for at, text in enumerate(instructions) if (jump := re.search(r"\bBRA\S*\s.*?`\((\.L_x_\d+)\)", text))}
        loops = [(to, at) for at, to in jumps.items() if to <= at]
        innermost = [(b, e) for b, e in loops if not any(b <= b2 and e2 <= e and (b, e) != (b2, e2) for b2, e2 in loops)]
        found[section.partition(",")[0].strip()] = tuple(_loop(instructions, jumps, begin, end) for begin, end in innermost)
    return found


_COUNTED = (
    r"\bLDG?\.\S*128\b",
    r"\b(LDG?|STG?)\.(?!\S*128\b)",
    r"\bMUFU|\b(F2F|F2I|I2F)\S*64",
    r"\b(DADD|DFMA|DMUL|DSETP|DMNMX)\b",
    r"\b(LDL|STL)\b",
)


def _on_chip(text: str) -> int:
    if not re.search(r"\bLDS\b", text):
        return 0
    sizes = {r"\.128": 16, r"\.64": 8, "16": 2, "8": 1}
    return next((size for mark, size in sizes.items() if re.search(rf"LDS\S*{mark}\b", text)), 4)


def _loop(instructions: list[str], jumps: dict[int, int], begin: int, end: int) -> Loop:
    """The way from begin to end, by dynamic programming from the end."""
    best: dict[int, tuple[int, ...]] = {}  # by instruction: minus the vectors and bytes on chip, the instructions and the rest, to the end
    for at in range(end, begin - 1, -1):
        text = instructions[at]
        following = [jumps[at]] if at in jumps else []
        if at not in jumps or text.startswith("@"):
            following.append(at + 1)
        ways = [best[to] for to in following if at < to <= end and to in best] if at < end else [(0,) * 8]
        if not ways or (re.search(r"\b(EXIT|RET)\b", text) and not text.startswith("@")):
            continue
        vectors = int(re.search(r"\b(LDG?|STG?)\.\S*128\b", text) is not None)
        own = (-vectors, -_on_chip(text), int("NOP" not in text), *(int(re.search(pattern, text) is not None) for pattern in _COUNTED))
        best[at] = min(tuple(x + y for x, y in zip(way, own, strict=True)) for way in ways)
    vectors, on_chip, count, loads, scalars, special, doubles, local = best[begin]
    return Loop(count, -vectors, loads, scalars, -on_chip, special, doubles, local)
