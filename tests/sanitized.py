"""Running something in a process of its own with one of the compiler's sanitizers in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emulator import build

ROOT = Path(__file__).parent.parent
# Python and NumPy leak by the sanitizer's standards; what they do among themselves is no concern of ours.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1 ignore_noninstrumented_modules=1",
}


def run(variant: str, *command: str, folder: Path | None = None, timeout: float = 600) -> str:
    """All that `python COMMAND` says, and at the end how it exited; with the kernels of another folder, if given."""
    own = {"EMULATOR_VARIANT": variant, "LD_PRELOAD": build.preload(variant), "PYTHONPATH": str(folder or ROOT)}
    environment = {**os.environ, **OPTIONS, **own}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=ROOT, timeout=timeout)
    return f"{done.stdout}\n{done.stderr}\nexit {done.returncode}"
