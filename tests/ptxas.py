"""What a GPU would be given: kernels compiled by NVRTC without one, their registers and spills, and the instructions of their loops."""

from __future__ import annotations

import functools
import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from lossfuncs.gpu import SOURCES

# An H200, whose 132 processors at 1.98 GHz issue to 128 lanes and have 16 special-function units, and whose memory copies 4.3e12 bytes a
# second (measured; 4.8e12 by its data sheet): what it can do in the time in which 16 bytes come or go.
INSTRUCTIONS = 132 * 128 * 1.98e9 / 4.3e12 * 16
SPECIAL = 132 * 16 * 1.98e9 / 4.3e12 * 16
DOUBLES = 132 * 64 * 1.98e9 / 4.3e12 * 16


class Loop(NamedTuple):
    """Instructions of an innermost loop; `vectors` are loads and stores of 16 bytes of global memory, `scalars` of fewer."""

    instructions: int
    vectors: int
    loads: int  # of the vectors
    scalars: int
    special: int  # MUFU: ex2, lg2, rcp, sqrt
    doubles: int
    calls: int

    @property
    def issue(self) -> float:
        """Share of the instructions that an H200 issues while its memory moves this loop's vectors."""
        return self.instructions / (INSTRUCTIONS * self.vectors)

    @property
    def mufu(self) -> float:
        """The same of special-function operations."""
        return self.special / (SPECIAL * self.vectors)

    @property
    def fp64(self) -> float:
        return self.doubles / (DOUBLES * self.vectors)


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
        """The loops that stream: the innermost ones with 16-byte accesses."""
        return tuple(loop for loop in self.loops if loop.vectors)


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
        options = [f"-arch=sm_{architecture}", "-std=c++17", f"-I{SOURCES}", "--ptxas-options=-v", "--ptxas-options=--warn-on-spills"]
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
        ranges = []
        for end, instruction in enumerate(instructions):
            jump = re.search(r"\bBRA\S*\s.*?`\((\.L_x_\d+)\)", instruction)
            if jump and labels.get(jump[1], end + 1) <= end:
                ranges.append((labels[jump[1]], end))
        innermost = [(b, e) for b, e in ranges if not any(b <= b2 and e2 <= e and (b, e) != (b2, e2) for b2, e2 in ranges)]
        found[section.partition(",")[0].strip()] = tuple(_loop(instructions[begin : end + 1]) for begin, end in innermost)
    return found


def _loop(body: list[str]) -> Loop:
    def count(pattern: str) -> int:
        return sum(re.search(pattern, instruction) is not None for instruction in body)

    loads = count(r"\bLDG\S*\.128")
    vectors = loads + count(r"\bSTG\S*\.128")
    return Loop(len(body) - count(r"\bNOP\b"), vectors, loads, count(r"\b(LDG|STG)") - vectors, count(r"\bMUFU"),
                count(r"\b(DADD|DFMA|DMUL|DSETP|DMNMX)\b|\bF2F\.F64|\bF2F\.F32\.F64"), count(r"\bCALL"))  # fmt: skip
