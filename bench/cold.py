"""`python -m bench.cold`: how long the first call of a process takes, with nothing compiled yet and with a kernel from the cache.

    python -m bench.cold                          the everyday losses and metrics on (32, 10) and (4096, 1000)
    python -m bench.cold cce "grad bce" -r 5      these, five processes each

From the call to its result: importing Numba, compiling one kernel, keeping it, computing; not `import lossfuncs`. Each time is one of a
process of its own, and other work on the machine adds to it: the least is what counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

CALLS = {
    "mse": "lossfuncs.mean_squared_error(t, p)",
    "mae": "lossfuncs.mean_absolute_error(t, p)",
    "huber": "lossfuncs.huber(t, p)",
    "bce": "lossfuncs.binary_crossentropy(t, p)",
    "bce logits": "lossfuncs.binary_crossentropy(t, p, from_logits=True)",
    "cce": "lossfuncs.categorical_crossentropy(t, p)",
    "cce logits": "lossfuncs.categorical_crossentropy(t, p, from_logits=True)",
    "scce logits": "lossfuncs.sparse_categorical_crossentropy(labels, p, from_logits=True)",
    "kl": "lossfuncs.kl_divergence(t, p)",
    "cosine": "lossfuncs.cosine_similarity(t, p)",
    "accuracy": "lossfuncs.metrics.categorical_accuracy(t, p)",
    "top-5": "lossfuncs.metrics.top_k_categorical_accuracy(t, p)",
    "grad mse": "lossfuncs.value_and_grad('mse', t, p)",
    "grad bce": "lossfuncs.value_and_grad('bce', t, p)",
    "grad scce": "lossfuncs.value_and_grad('sparse_categorical_crossentropy', labels, p, from_logits=True)",
}
PROGRAM = """
import time
import numpy as np
import lossfuncs
p, labels = np.full(({m}, {n}), 0.5, np.float32), np.zeros({m}, np.int64)
t = np.zeros_like(p)
t[:, 0] = 1
began = time.perf_counter()
{call}
print(time.perf_counter() - began)
"""
SIMPLEST = """
import time
import numpy
began = time.perf_counter()
import numba
imported = time.perf_counter()
numba.njit(lambda x: x).compile("float64(float64)")
print(imported - began, time.perf_counter() - imported)
"""


def seconds(program: str, **environment: str) -> list[float]:
    """What a program in a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__.splitlines()[0])
    parser.add_argument("calls", nargs="*", help=f"of {', '.join(CALLS)}; all by default")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="processes each (3)")
    parser.add_argument("-s", "--shapes", default="32x10,4096x1000", help="such as 32x10,4096x1000")
    options = parser.parse_args(arguments)
    unknown = set(options.calls) - set(CALLS)
    if unknown:
        parser.error(f"no call {', '.join(map(repr, sorted(unknown)))}; there are {', '.join(CALLS)}")
    floor = [seconds(SIMPLEST) for _ in range(options.rounds)]
    least = [min(each) for each in zip(*floor, strict=True)]
    print(f"Numba alone: {least[0]:.2f} s to import it, {least[1]:.2f} s to compile lambda x: x")
    print(f"{'first call, s':24s} compiled: least  median   from the cache: least  median")
    for shape in options.shapes.split(","):
        m, n = shape.split("x")
        for name in options.calls or CALLS:
            program = PROGRAM.format(m=m, n=n, call=CALLS[name])
            cold, warm = [], []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as directory:
                    for times in (cold, warm):
                        times += seconds(program, LOSSFUNCS_CACHE=directory)
            row = [f"{min(times):.2f}    {statistics.median(times):.2f}" for times in (cold, warm)]
            print(f"{name + ' ' + shape:24s} {row[0]:>22s} {row[1]:>29s}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
