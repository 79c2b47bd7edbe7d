"""A user's own loss: plain scalar Python, compiled, threaded and differentiated like the built-in ones."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import names, plain
from .call import REQUIRED, RowsCall, complete
from .dispatch import public
from .options import number
from .problem import Array
from .rows import Scalar, mean_of
from .serialization import REGISTRIES
from .table import Entry


def pointwise(value: Scalar, slope: Scalar | None = None, curve: Scalar | None = None, *, name: str | None = None,
              cuda: str | None = None) -> Callable[..., Any]:  # fmt: skip
    """A loss from scalar functions of one target and one prediction: the mean over the last axis of value(t, p, *parameters).

    value, slope (its derivative by p) and curve (its second derivative by p) are plain Python functions of floats t, p and the same
    further parameters, whose defaults are value's: arithmetic, comparisons, conditionals, `math` functions, max, min, abs, and other
    such functions. In a kernel log(0) is -inf, 1 / 0 is inf, max keeps NaN, and NaN is what a function gives that raises. Names of theirs
    that are given another value after the first call keep the one they had. The result is called like any loss, as

        loss(y_true, y_pred, <parameters>, *, sample_weight=None, reduction=None)

    Without slope it has no gradient; `check(loss, ...)` compares slope and curve with differences. The gradient takes the functions
    at their word. ValueError when the functions' parameters differ, TypeError for what is not a plain function.

        quantile = lossfuncs.pointwise(lambda t, p, tau=0.5: max(tau * (t - p), (tau - 1) * (t - p)), name="quantile")
        quantile(y_true, y_pred, tau=0.9, reduction="mean")

    On a GPU the functions are translated to CUDA C++, which computes float32 and half types in float. What cannot be translated, as a
    loop, is a ValueError there that names it. With `cuda` their CUDA text is given instead: the functions value, slope and curve as members
    of a struct over the computing type T, whose fields are the parameters. ValueError at the first call, with the compiler's first line,
    for text that does not compile.

        quantile = lossfuncs.pointwise(..., cuda='''
            __device__ T value(T t, T p) const { return maximum(tau * (t - p), (tau - T(1)) * (t - p)); }
        ''')
    """
    parameters = _parameters("value", value)
    for which, function in (("slope", slope), ("curve", curve)):
        if function is not None and list(_parameters(which, function)) != list(parameters):
            raise ValueError(f"{which} must take the parameters of value, {list(parameters)}, got {list(_parameters(which, function))}")
    title = name or value.__name__
    rows = mean_of(value, slope, curve)._replace(name=title, cuda=None)
    if cuda is not None:
        rows = rows._replace(cuda="Mean<of_user<T>>", written=_written(cuda, list(parameters), slope, curve))

    def reference(y_true: Any, y_pred: Any, **options: float) -> Any:
        return np.mean(plain.element_by_element(value)(y_true, y_pred, *(number(k, options[k]) for k in parameters)), axis=-1)

    defaults = [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in parameters.items()]
    arrays = [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in ("y_true", "y_pred")]
    options = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=None) for k in ("sample_weight", "reduction")]
    reference.__name__ = reference.__qualname__ = title
    reference.__doc__ = value.__doc__ or f"The mean over the last axis of {title}(t, p)."
    reference.__signature__ = inspect.Signature([*arrays, *defaults, *options])  # type: ignore[attr-defined]
    loss = public(reference)

    def rows_of(n: int, **given: Any) -> Any:
        return rows, tuple(number(k, given[k]) for k in parameters)

    loss.entry = Entry(title, "", loss, rows_of, "real", "real", "last")  # type: ignore[attr-defined]
    loss.scalars = (value, slope, curve)  # type: ignore[attr-defined]
    return loss


def _written(cuda: str, parameters: list[str], slope: Scalar | None, curve: Scalar | None) -> str:
    """The struct around the user's CUDA text. ValueError where it lacks a function."""
    if not isinstance(cuda, str):
        raise TypeError(f"cuda must be CUDA C++ text, got {type(cuda).__name__}")
    for name, needed in (("value", True), ("slope", slope is not None), ("curve", curve is not None)):
        if needed and not re.search(rf"\b{name}\s*\(", cuda):
            raise ValueError(f"cuda must define T {name}(T t, T p) const, as there is a Python function {name}")
    fields = f"T {', '.join(parameters)};" if parameters else ""
    return f"template <class T> struct of_user {{\n{fields}\n#line 1 \"cuda\"\n{cuda}\n}};\n"


def _parameters(which: str, function: Scalar) -> dict[str, Any]:
    if not inspect.isfunction(function):
        raise TypeError(f"{which} must be a plain Python function of (t, p, ...), got {type(function).__name__}")
    for is_kind in (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        if is_kind(function):
            raise TypeError(f"{which} must be a plain Python function of (t, p, ...), got a {is_kind.__name__[2:-8]} function")
    found = list(inspect.signature(function).parameters.values())
    if len(found) < 2 or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in found):
        raise ValueError(f"{which} must take (t, p, <parameters>), got {inspect.signature(function)}")
    return {p.name: REQUIRED if p.default is p.empty else p.default for p in found[2:]}


def register(loss: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """Let `losses.get`, `value_and_grad` and the command line find a pointwise loss by its name. ValueError for a name in use."""
    if not hasattr(loss, "defaults"):
        raise TypeError(f"loss must be a function made by lossfuncs.pointwise, got {type(loss).__name__}")
    title, registered = name or loss.__name__, REGISTRIES["loss"].registered
    if title in names.SPELLINGS["loss"] or registered.get(title, loss) is not loss:
        raise ValueError(f"the name {title!r} is in use already")
    registered[title] = loss
    return loss


def check(
    loss: Callable[..., Any] | None = None, y_true: Any = None, y_pred: Any = None, *, rtol: float = 1e-4, **parameters: float
) -> None:
    """Compare slope and curve of a pointwise loss with central differences at these points; ValueError names the worst one.

    Points where the two one-sided differences disagree, as at a kink, are left out.

    Without arguments: ValueError if, since this was last asked, a call on the current GPU met a label out of range. Those calls do not
    wait for the GPU, so that they cannot tell; the row's value and gradient are NaN. This does wait.
    """
    if loss is None:
        if "lossfuncs.gpu" in sys.modules:
            sys.modules["lossfuncs.gpu"].check_labels()
        return
    if not hasattr(loss, "scalars"):
        raise TypeError(f"loss must be a function made by lossfuncs.pointwise, got {loss!r}")
    call = RowsCall(loss, loss.entry, complete(loss, parameters), y_true, y_pred, None)  # type: ignore[attr-defined]
    t, p = (np.asarray(x, np.float64).reshape(-1) for x in (call.t, call.p))
    h = 6e-6 * np.maximum(np.abs(p), 1.0)  # the cube root of the rounding error: central differences are good to its square
    value, slope, curve = loss.scalars  # type: ignore[attr-defined]
    for which, derivative, of in (("slope", slope, value), ("curve", curve, slope)):
        if derivative is None or of is None:
            continue
        before, here, after = (_at(of, t, x, call.problem.parameters) for x in (p - h, p, p + h))
        given, difference = _at(derivative, t, p, call.problem.parameters), (after - before) / (2.0 * h)
        smooth = np.abs((after - here) - (here - before)) < 1e-2 * (np.abs(after - before) + 1e-8)
        wrong = smooth & ~(np.abs(difference - given) <= rtol * np.maximum(np.abs(difference), 1e-3))
        if wrong.any():
            i = int(np.argmax(wrong))
            where = f"at t = {t[i]:g}, p = {p[i]:g}"
            raise ValueError(f"{which} of {loss.__name__} is {given[i]:g} {where}, but differences give {difference[i]:g}")


def _at(function: Scalar, t: Array, p: Array, parameters: tuple[float, ...]) -> Array:
    with np.errstate(all="ignore"):
        found: Array = plain.element_by_element(function)(t, p, *parameters)
    return found
