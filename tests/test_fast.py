"""What half types are computed with on a GPU: over all 65536 numbers of a half type, whichever way the instructions err."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, ulp
from emulator import DEVICE, compile

from lossfuncs.gpu import SOURCES

Array = np.ndarray[Any, Any]

# In CUDA, of the fast_float x; the same in float64; the domain; and how many bits are right, of what is not below 2^-126.
FUNCTIONS = {
    "exp(x)": (np.exp, lambda x: np.abs(x) <= 16, 19),
    "exp(x) // far": (np.exp, lambda x: np.abs(x) > 16, 16.8),  # the argument is rounded
    "expm1(x)": (np.expm1, lambda x: np.abs(x) <= 16, 18),
    "log(x)": (np.log, lambda x: (np.abs(x) >= 2.0**-126) | (x == 0), 18),
    "log1p(x)": (np.log1p, lambda x: x == x, 18),
    "log_above_half(x)": (np.log1p, lambda x: (x >= -0.5) & (x <= 0), 19),
    "tanh(x)": (np.tanh, lambda x: x == x, 19),
    "logs_of_cosh(x)": (lambda x: np.logaddexp(x, -x) - np.log(2.0), lambda x: np.abs(x) >= 1, 18),
    "logs_of_cosh(x) // near": (lambda x: np.log1p(2.0 * np.sinh(x / 2.0) ** 2), lambda x: np.abs(x) <= 1, 17.5),
    "sqrt(x)": (np.sqrt, lambda x: (np.abs(x) >= 2.0**-126) | (x == 0), 22),
    "pow(x, F(0.5))": (np.sqrt, lambda x: x >= 2.0**-126, 16),
    "pow(x, F(2.5))": (lambda x: x**2.5, lambda x: (x >= 2.0**-20) & (x <= 2.0**20), 15.5),
    "quotient(F(3), x)": (lambda x: 3.0 / x, lambda x: (np.abs(x) >= 2.0**-126) & (np.abs(x) < 2.0**126), 22),
    "F(3) / x": (lambda x: 3.0 / x, lambda x: (np.abs(x) >= 2.0**-120) & (np.abs(x) < 2.0**126) | (x == 0), 21),
    "x / x": (lambda x: x / x, lambda x: np.abs(x) <= 2.0**126, 21),
    "Sigmoids<F>(x).x": (lambda x: 1.0 / (1.0 + np.exp(-x)), lambda x: np.abs(x) <= 16, 19),
    "Sigmoids<F>(x).y": (lambda x: 1.0 / (1.0 + np.exp(x)), lambda x: np.abs(x) <= 16, 19),
    "binary_entropy<F>::cost(F(0), x)": (lambda x: -np.log1p(-np.clip(x, 1e-7, 1.0 - 1e-7)), lambda x: x == x, 18),
    "binary_entropy<F>::cost(F(1), x)": (lambda x: -np.log(np.clip(x, 1e-7, 1.0 - 1e-7)), lambda x: x == x, 18),
    "binary_entropy_from_logits<F>::cost(F(0), x)": (lambda x: np.logaddexp(0.0, x), lambda x: np.abs(x) <= 16, 17.5),
    "binary_entropy_from_logits<F>::cost(F(1), x)": (lambda x: np.logaddexp(0.0, -x), lambda x: np.abs(x) <= 16, 17.5),
    "relative_entropy<F>::cost(F(0.25), clipped(x))": (lambda x: 0.25 * np.log(0.25 / np.clip(x, 1e-7, 1.0)), lambda x: x == x, 17),
    "poisson_deviation<F>::shifted_log(x)": (lambda x: np.log(x + 1e-7), lambda x: (x >= 0) | (x < -1e-6), 17.5),
    "poisson_deviation<F>().slope(F(3), x)": (lambda x: (x - 3.0 + 1e-7) / (x + 1e-7), lambda x: (x >= 0) & (x <= 2.0**100), 20),
}
NAMES = list(FUNCTIONS)


def program(kind: str) -> str:
    lines = [f"        a.out[{i} * 65536 + k] = ((F)({name.partition(' //')[0]})).x;" for i, name in enumerate(NAMES)]
    text = "\n".join(lines)
    return f"""#include "losses.cuh"
namespace lossfuncs {{
typedef fast_float F;
DEVICE F clipped(F x) {{ return relative_entropy<F>::clipped(x); }}
struct Table {{ float* out; }};
DEVICE void tabulate(const Table& a) {{
    for (int k = threadIdx.x; k < 65536; k += 32) {{
        const F x(widen({kind}{{(unsigned short)k}}));
{text}
    }}
}}
}}
extern "C" __global__ void table_of_{kind}(const lossfuncs::Table a) {{ lossfuncs::tabulate(a); }}
"""


@pytest.fixture(scope="module", params=[1, -1, 0], ids=["too large", "too small", "either way"])
def tables(request: pytest.FixtureRequest) -> dict[str, Array]:
    """By half type: the results of each function for each number."""
    found = {}
    for kind in ("bfloat16", "float16"):
        name = f"table_of_{kind}"
        kernel = compile(program(kind), [name], SOURCES, [f"ERROR_OF_INSTRUCTIONS={request.param}"])[name]
        out = DEVICE.empty((len(NAMES), 65536), np.float32)
        kernel.launch((1,), (32,), 0, struct.pack("<Q", DEVICE.address(out)))
        found[kind] = DEVICE.fetch(out)
    return found


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_right_for_every_half_number(name: str, kind: str, tables: dict[str, Array]) -> None:
    exact, inside, digits = FUNCTIONS[name]
    dtype = DTYPES[kind]
    with np.errstate(all="ignore"):
        x = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float64)
        got, wanted = tables[kind][NAMES.index(name)].astype(np.float64), exact(x)
        wanted = np.where(np.abs(wanted) < 2.0**128, wanted, wanted * np.inf)  # float's range
        asked = inside(x) | np.isnan(x)
        right = np.where(np.isfinite(wanted), np.abs(got - wanted) <= 2.0**-digits * np.abs(wanted) + 2.0**-126, same(got, wanted))
        assert right[asked].all(), failure(x, got, wanted, asked & ~right)
        rounded, best = got.astype(dtype), wanted.astype(dtype)
        far = np.abs(rounded.astype(np.float64) - best.astype(np.float64))
        near = (far <= np.maximum(ulp(wanted, dtype), 2.0**-126)) | same(rounded, best)
        assert near[asked].all(), failure(x, got, wanted, asked & ~near)


def same(x: Array, y: Array) -> Array:
    return (x == y) | (np.isnan(x) & np.isnan(y))


def failure(x: Array, got: Array, wanted: Array, where: Array) -> str:
    with np.errstate(all="ignore"):
        error = np.where(where, np.nan_to_num(np.abs(got - wanted) / np.abs(wanted), nan=np.inf), -1.0)
        i = int(np.argmax(error))
        return f"{where.sum()} are not, worst {x[i]!r}: {got[i]!r}, expected {wanted[i]!r}, off by 2^{np.log2(error[i]):.2f}"
