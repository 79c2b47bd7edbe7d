"""The compiled handlers that XLA calls for small arrays: a kernel's chunk of rows behind a call frame, without Python.

`xla.py` says where things are in a call frame. The attributes, in the order of their names: `a`, the numbers of `Small`; `m` and `n`, what
the errors for a label out of range and for another dtype say, ended by 0.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

from .. import cache
from ..cpu import CUT, _chunk, _kind, cut
from ..lanes import intrinsic, pointer, put, scratch
from ..problem import NO_CLASS, Array
from ..schedules import Kernel, laid_across
from .xla import INVALID_ARGUMENT, VERSION

_WORD = ir.IntType(64)


def _memory(element: Any) -> Any:
    """An intrinsic that gives the memory at an address as elements of a type."""

    @intrinsic
    def memory(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(types.CPointer(element)))

        return types.CPointer(element)(types.int64), emit

    return memory


_words, _halves, _doubles = _memory(types.int64), _memory(types.int32), _memory(types.float64)


@intrinsic
def _call(typing: Any, function: Any, argument: Any) -> Any:
    """What the C function at an address gives for one word."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_WORD, [_WORD]).as_pointer()
        return builder.call(builder.inttoptr(args[0], kind), [args[1]])

    return types.int64(types.int64, types.int64), emit


def _answer_metadata(extension: int) -> bool:
    e = _words(extension)
    if e[1] & 0xFFFFFFFF != 1:
        return False
    x = _halves(e[3])
    put(x, 6, VERSION[0])
    put(x, 7, VERSION[1])
    put(x, 8, 0)
    return True


def _error(api: int, message: int) -> int:
    x = np.empty(4, np.int64)
    x[0], x[1], x[2], x[3] = 32, 0, message, INVALID_ARGUMENT
    return _call(_words(api)[6], x.ctypes.data)


def _first_parameters(count: int) -> Any:
    """A function that gives the loss's parameters among the numbers of a `Small` as a tuple."""
    return {
        0: lambda x: (),
        1: lambda x: (x[6],),
        2: lambda x: (x[6], x[7]),
        3: lambda x: (x[6], x[7], x[8]),
        4: lambda x: (x[6], x[7], x[8], x[9]),
        5: lambda x: (x[6], x[7], x[8], x[9], x[10]),
    }[count]


class Small(NamedTuple):
    """A handler, and the attributes that it is to be called with."""

    address: int
    attributes: dict[str, Array]


# The numbers: rows, elements of a row, divisor of the total, elements of a row as it was given, XLA's dtypes of targets and predictions,
# and from here on the loss's parameters.
_KINDS = {"float16": 10, "bfloat16": 16, "float32": 11, "float64": 12}
_LABELS = {"int32": (4, types.int32), "int64": (5, types.int64)}


def small(call: Any, labels: np.dtype[Any], order: int) -> Small | None:
    """The handler of a call without weights, on flat arrays of one chunk; None where there is none, or for more."""
    problem, reduced = call.problem, call.reduction is not None
    m, n, parameters = problem.m, problem.n, problem.parameters
    kind = _kind(problem)
    direct = call.order is None and not call.depends_on_data and problem.ignore == NO_CLASS and call.y_pred.size == problem.p.size
    if not direct or call.dtype != problem.dtype or kind != call.y_pred.dtype.name or not 0 < m <= _chunk(max(n, 1)) or not n:
        return None
    if len(parameters) > 5 or (problem.labelled and labels.name not in _LABELS) or (not problem.labelled and labels != call.y_pred.dtype):
        return None
    of = n
    if reduced and problem.rows.pointwise and not problem.labelled:
        if m * n > CUT:
            return None
        m, n, _ = cut(problem.rows, m * n)
    t_code, p_code = _LABELS[labels.name][0] if problem.labelled else _KINDS[kind], _KINDS[kind]
    numbers = np.array([m, n, call.divisor() if reduced else 1.0, of, t_code, p_code, *parameters], np.float64)
    message = f"y_true holds a label that is none of y_pred's classes, 0 to {n - 1}"
    rows = problem.rows.suited(kind, problem.labelled, n)
    address = _handler(rows, kind, labels.name if problem.labelled else "", not laid_across(rows, n), reduced, order, len(parameters))
    wrong = f"y_true and y_pred must be {labels.name} and {kind}, as they were when the call was compiled"
    texts = {name: np.frombuffer(text.encode() + b"\0", np.uint8) for name, text in (("m", message), ("n", wrong))}
    return Small(address, {"a": numbers, **texts})


@functools.cache
def _handler(rows: Any, kind: str, labels: str, long: bool, total: bool, order: int, parameters: int) -> int:
    """The C function that XLA calls."""
    kernel = Kernel(rows, kind, bool(labels), long, total, order, parameters)
    compute, first_parameters, element = kernel.rows(), _first_parameters(parameters), _memory(kernel.element.type)
    targets = _labels(_LABELS[labels][1]) if labels else _elements(kernel.element.type)
    scalar = _memory(types.float64 if kind == "float64" else types.float32)
    one, weight = types.float64 if kind == "float64" else types.float32, scratch(1, types.float64)

    def run(t: Any, p: Any, results: Any, out: Any, n: int, m: int, of: float, scale: float, a: Any) -> int:
        g, w = element(_words(results[1])[3]) if order else p, weight()
        put(w, 0, 1.0)
        return compute(pointer(t), p, w, out, g, g, n, 0, of, m, m, 0, 1, 0, 1, 0, NO_CLASS, scale, a)

    def to_value(t: Any, p: Any, results: Any, n: int, m: int, of: float, divisor: float, a: Any) -> int:
        out = np.empty(1)
        bad = run(t, p, results, pointer(out), n, m, of, 1.0 / divisor, a)
        put(scalar(_words(results[0])[3]), 0, one(out[0] / divisor))
        return bad

    def to_values(t: Any, p: Any, results: Any, n: int, m: int, of: float, divisor: float, a: Any) -> int:
        return run(t, p, results, element(_words(results[0])[3]), n, m, of, 1.0, a)

    finish = to_value if total else to_values

    def handler(frame: int) -> int:
        f = _words(frame)
        if f[1] != 0 and _answer_metadata(f[1]):
            return 0
        arguments, results, attributes = _words(f[9]), _words(f[14]), _words(f[20])
        t, p = _words(arguments[0]), _words(arguments[1])
        x = _doubles(_words(attributes[0])[2])
        m, n = int(x[0]), int(x[1])
        if t[2] & 0xFFFFFFFF != int(x[4]) or p[2] & 0xFFFFFFFF != int(x[5]):
            return _error(f[2], _words(attributes[2])[2])
        bad = finish(targets(t[3], m), element(p[3]), results, n, m, x[3], x[2], first_parameters(x))
        return _error(f[2], _words(attributes[1])[2]) if bad >= 0 else 0

    return cache.address(handler, types.int64(types.int64))


def _elements(element: Any) -> Any:
    """A function (address, rows) that gives memory as elements."""
    memory = _memory(element)

    def elements(address: int, rows: int) -> Any:
        return memory(address)

    return elements


def _labels(element: Any) -> Any:
    """A function (address, rows) that gives class numbers in memory as int64."""
    memory = _memory(element)

    def labels(address: int, rows: int) -> Any:
        given, found = memory(address), np.empty(rows, np.int64)
        for i in range(rows):
            found[i] = given[i]
        return found

    return labels
