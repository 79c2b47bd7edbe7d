"""`python -m bench.gpu ...` is `lossfuncs bench --backend cupy --dtype float32,bfloat16 ...` at the GPU's sizes.

    python -m bench.gpu --json gpu.json        every workload of the README's table: hours, most of them torch.compile's
    python -m bench.gpu mse huber --quick      what is named, at three sizes

Rows have 7 to 128256 elements, arrays from so few that only the launch counts to so many that only memory can hold them. Names and
options are those of `lossfuncs bench`. First come the roofs of the GPU, and what a launch costs; beside the peers, CuPy computes NumPy's
formulas.
"""

from __future__ import annotations

import sys

from lossfuncs.cli import main as lossfuncs

LENGTHS = (7, 10, 1000, 32000, 50257, 128256)  # of a row
SIZES = tuple(1 << k for k in (16, 20, 23, 26, 28))  # elements
LEAST_ROWS = 4
# By a GPU's own clock hundredths of a second are enough.
ARGUMENTS = ("bench", "--backend", "cupy", "--vs", "torch,torch.compile,jax", "--dtype", "float32,bfloat16", "--mode", "both",
             "--min-time", "0.05")  # fmt: skip


def shapes(quick: bool) -> list[str]:
    """Every length at every size that holds a few such rows, as --shape takes them; with `quick` the first three sizes."""
    return [f"{size // n}x{n}" for size in SIZES[: 3 if quick else None] for n in LENGTHS if size >= LEAST_ROWS * n]


def main(arguments: list[str]) -> int:
    return lossfuncs([*ARGUMENTS, *arguments, "--shape", *shapes("--quick" in arguments)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
