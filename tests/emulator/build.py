"""Compiling kernels for the CPU: what was compiled once, of the same text by the same compiler, is kept, and shared by processes."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
KEPT = 3 * 24 * 3600  # seconds for which something unused stays

# Kernels read the same bytes as different types, which CUDA allows and C++ does not; products and sums are rounded apart, as lossfuncs.gpu
# has NVRTC do it; a local that is never written is to be noticed.
COMMON = ("-std=c++17", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-ftrivial-auto-var-init=pattern", "-Wno-unknown-pragmas",
          "-Wno-attributes")  # fmt: skip
KERNELS: dict[str, tuple[str, ...]] = {
    "": (),
    "ucontext": (),  # fibres as on CPUs other than x86-64
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1"),
    "thread": ("-fsanitize=thread", "-g1"),
}
RUNTIME = {"": (), "ucontext": ("-DEMULATOR_UCONTEXT",), "address": ("-fsanitize=address", "-g1"), "thread": ("-DEMULATOR_THREADS", "-g1")}
PRELOADED = {"address": ("asan", "ubsan"), "thread": ("tsan",)}  # libraries that must be there before everything else


class CompileError(Exception):
    """A kernel is not C++: what the compiler said."""


@functools.cache
def compiler() -> str:
    """The C++ compiler's path. RuntimeError if there is none."""
    if sys.platform != "linux":
        raise RuntimeError("the CUDA kernels are tested on the CPU by an emulator that needs Linux")
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise RuntimeError("the CUDA kernels are tested on the CPU by compiling them with a C++ compiler: install g++, or name one by CXX")


@functools.cache
def _compiler_identity() -> str:
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _cpu_flags() -> tuple[str, ...]:
    """Fused multiply-add, where a kernel asks for it, and conversions of float16, where this CPU has them."""
    info = Path("/proc/cpuinfo")
    has = set(info.read_text().split()) if platform.machine() == "x86_64" and info.exists() else set()
    return ("-march=x86-64-v3",) if {"avx2", "fma", "f16c", "bmi2"} <= has else ()


def preload(variant: str) -> str:
    """What LD_PRELOAD must be in a process that is to run that variant."""
    paths = []
    for name in PRELOADED.get(variant, ()):
        path = subprocess.run([compiler(), f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True).stdout.strip()
        if not os.path.isabs(path):
            raise RuntimeError(f"{compiler()} has no lib{name}.so: install the sanitizer libraries of your C++ compiler")
        paths.append(path)
    return " ".join(paths)


@functools.cache
def cache() -> Path:
    """The directory of what was compiled; old things are removed."""
    folder = Path(os.environ.get("EMULATOR_CACHE") or HERE.parent.parent / ".pytest_cache" / "emulator")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - KEPT:
                path.unlink()
        except OSError:  # another process was faster
            pass
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _compile(flags: tuple[str, ...], source: Path, result: Path) -> None:
    """Compile to `result`, which comes into being whole."""
    handle, unfinished = tempfile.mkstemp(dir=result.parent, prefix="unfinished")
    os.close(handle)
    done = subprocess.run([compiler(), *flags, str(source), "-o", unfinished], capture_output=True, text=True)
    if done.returncode:
        Path(unfinished).unlink(missing_ok=True)  # the compiler removes it, too
        raise CompileError(f"{source}:\n{done.stderr}")
    os.chmod(unfinished, 0o755)
    os.replace(unfinished, result)


def _made(result: Path, source: Path, text: str, flags: tuple[str, ...]) -> Path:
    """`result`, compiled of `text` unless it is there."""
    if result.exists():
        os.utime(result)
        return result
    with _locked(result.with_suffix(".lock")):
        if not result.exists():
            source.write_text(text)
            _compile(flags, source, result)
    return result


_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def _text_with_includes(text: str, folder: Path) -> str:
    """The text of all that `text` includes from the folder, and `text`."""
    found: dict[str, str] = {}

    def visit(text: str) -> None:
        for name in _INCLUDE.findall(text):
            path = folder / name
            if name not in found and path.exists():
                found[name] = path.read_text()
                visit(found[name])

    visit(text)
    return "\0".join((*found, *found.values(), text))


@functools.cache
def _headers() -> str:
    return "\0".join(path.read_text() for path in sorted(HERE.glob("*.h")))


def kernels(source: str, entries: tuple[str, ...], folder: Path, variant: str = "", defines: tuple[str, ...] = ()) -> Path:
    """The shared library of a program: CUDA C++ text with `extern "C" __global__` functions named `entries`.

    What the program includes is looked for in `folder`, and precompiled: kernels whose programs begin with the same includes share that.
    """
    flags = (*COMMON, *KERNELS[variant], *_cpu_flags(), "-O1", "-fvisibility=hidden", *(f"-D{define}" for define in defines))
    identity = "\0".join((_compiler_identity(), _headers(), *flags))
    text = source + "\n" + "".join(f"EMULATED_KERNEL({name})\n" for name in entries)
    library = cache() / f"{_hash(identity, _text_with_includes(text, folder))}.so"
    if library.exists():
        os.utime(library)
        return library
    includes = ['#include "cuda.h"', *(f'#include "{name}"' for name in _INCLUDE.findall(source))]
    prefix = "\n".join(includes) + "\n"
    header = cache() / f"{_hash(identity, _text_with_includes(prefix, folder))}.h"
    where = (f"-I{HERE}", f"-I{folder}")
    _made(header.with_suffix(".h.gch"), header, prefix, (*flags, *where, "-x", "c++-header"))
    return _made(library, library.with_suffix(".cpp"), text, (*flags, *where, "-include", str(header), "-shared", "-nostdlib", "-Wl,-O0"))


def runtime(variant: str = "") -> Path:
    """The shared library of the scheduler."""
    flags = (*COMMON, *RUNTIME[variant], "-O2", f"-I{HERE}", "-shared")
    source = HERE / "fibres.cpp"
    library = cache() / f"runtime-{_hash(_compiler_identity(), _headers(), source.read_text(), *flags)}.so"
    return _made(library, library.with_suffix(".cpp"), f'#include "{source}"\n', flags)
