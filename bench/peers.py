"""`python -m bench.peers ...` is `lossfuncs bench --backend numba --vs torch,torch.compile,jax,sklearn ...`: the README's table.

Against NumPy, torch, torch.compile, jax.jit and scikit-learn, those of them that are installed. Its options are those of
`lossfuncs bench`; `python -m bench.peers --list` names the workloads.
"""

from __future__ import annotations

import sys

from lossfuncs.benchmark import workloads
from lossfuncs.cli import main as lossfuncs

ARGUMENTS = ("bench", "--backend", "numba", "--vs", "torch,torch.compile,jax,sklearn")


def main(arguments: list[str]) -> int:
    if arguments == ["--list"]:
        print(*(workload.name for workload in workloads.WORKLOADS), sep="\n")
        return 0
    return lossfuncs([*ARGUMENTS, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
