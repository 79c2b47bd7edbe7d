"""How far elementary functions, losses and means are from the exact values, next to NumPy and torch.

    python -m bench.accuracy                      everything below, some minutes
    python -m bench.accuracy --sections functions   `lossfuncs.vectormath`: every 64th block of float32, float64 against mpmath
    python -m bench.accuracy --sections losses      every loss and its derivative on rows that are hard to compute
    python -m bench.accuracy --sections means       the mean of 10^8 squared errors; --mean 1000000000 for 10^9
    python -m bench.accuracy --exhaustive         all 2^32 float32 inputs of each function
    python -m bench.accuracy --derive             fit the polynomials of vectormath again, and show how far its coefficients are from exact

The exit status is 1 if a bound is broken:
    functions   0.51 ULP of float32 for SINGLE, 1 ULP of float64 for DOUBLE, no wrong special value
    losses      1 ULP of float32 for 99.99 % of the rows and 2 for all, 4 ULP of its row's largest slope for a derivative; where a sum
                of terms of both signs may cancel, 2^-34 or 2^-47 of the terms beside
    means       1e-15
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .functions import UNARY, double_precision, single_precision
from .losses import losses
from .means import means
from .polynomials import derive


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.accuracy", description="How far lossfuncs is from the exact values.")
    sections = ("functions", "losses", "means")
    parser.add_argument("--sections", nargs="+", choices=sections, default=sections, metavar="NAME", help=f"of {', '.join(sections)}")
    parser.add_argument("--exhaustive", action="store_true", help="functions: all 2^32 float32 inputs instead of one block in 64")
    parser.add_argument("--points", type=int, default=20_000, help="functions: float64 points each (default: 20000)")
    parser.add_argument("--only", nargs="+", choices=[*UNARY, "pow"], default=[*UNARY, "pow"], metavar="NAME", help="which functions")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="functions: threads or processes at once")
    parser.add_argument("--derive", action="store_true", help="fit the polynomials again instead")
    parser.add_argument("--rows", type=int, default=100_000, help="losses: rows each (default: 100000)")
    parser.add_argument("--mean", type=int, default=100_000_000, help="means: how many numbers (default: 100000000)")
    options = parser.parse_args(arguments)
    if min(options.points, options.rows, options.mean) < 1:
        parser.error("--points, --rows and --mean must be at least 1")
    if options.derive:
        derive()
        return 0
    good = True
    if "functions" in options.sections:
        good &= single_precision(options.only, 1 if options.exhaustive else 64, options.workers)
        good &= double_precision(options.only, options.points, options.workers)
    if "losses" in options.sections:
        good &= losses(options.rows)
    if "means" in options.sections:
        good &= means(options.mean)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(_main())
