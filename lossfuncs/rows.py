"""The contract: a loss is a few totals over its row, then a formula.

The maths of every loss and metric is written once, in plain scalar Python, as a `Rows`:

    passes                 what is gathered over the row, in order; each pass sees the totals of those before it
    value(s, n, *a)        the row's value, from all totals s and the row's length n
    around(s, n, *a)       what the derivative needs of the row, worked out once a row: a tuple c
    slope(c, t, p, *a)     derivative of the row's value by one p
    curve(c, t, p, *a)     second derivative by that same p (the diagonal), where it exists

`t, p` are one target and one prediction, `a` the loss's own parameters (delta, ...). The functions know no thread, block, chunk
or dtype; they are called with Python floats in tests, with arrays by the NumPy schedule (`plain.py`), and compiled into the
Numba schedules (`cpu.py`). For this they are free of branches: `where(condition, x, y)` evaluates both sides, and the names of
`math`, `max`, `min` and `abs` mean the schedule's own IEEE functions (log(0) is -inf, max keeps NaN).

The passes:

    Sum(f, k)       totals of f(s, t, p, *a) -> k numbers
    Max(f, k)       likewise their maxima; NaN stays
    Top(f, k)       likewise, but NaN is passed over: for less, where a later pass meets it anyway
    Logs(f)         the total of x + log1p(e), (x, e) = f(s, t, p, *a), 0 <= e <= 2^24: the factors 1 + e are multiplied, so that
                    FACTORS elements share a logarithm. Two totals: this, and 0, where the product was
    LogSumExp(f)    of x = f(s, t, p, *a): two totals, the maximum m and the sum r of exp(x - m) over the others, so that the
                    logarithm is m + log1p(r) and confident rows keep their digits. If `by_label`, m may be the prediction at the
                    label instead, or at the row's only target that is not 0, where it is at most 600 below the maximum, and r
                    the sum over all the others
    Dot(f, k)       sums of t * f(s, p, *a), for losses that are linear in the target: a row with a label instead of a
                    one-hot vector only evaluates f there. t = 0 brings 0, whatever f is
    Label()         the label: the target itself when it is an index, the first largest target otherwise
    Pick(f, i)      f(s, p, *a) at the label, total i
    Larger(x)       how many predictions are larger than total x, or NaN; at least 1 if total x is NaN
    Earlier(i, x, g) how many predictions before the label, total i, equal total x; where total g is not 0, it need not be counted
    again           what `joint` puts in the place of totals that stand elsewhere already

A Sum may be `careful`: where its totals say that terms of both signs have cancelled, that row alone is gathered once more, exactly.
Of a pass with an `exponent`, whose exponential e <= 1 its terms and the slope take, schedules work out many e at once.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Scalar = Callable[..., Any]
FACTORS = 16  # how many 1 + e <= 2^24 of `Logs` share a logarithm, or one more: the product of two lanes' 17, 2^816, does not overflow


def where(condition: Any, x: Any, y: Any) -> Any:
    """x if condition else y, with both evaluated: a select, not a branch."""
    return x if condition else y


def product(x: float, y: float) -> float:
    """x y of numbers whose product is exact, as any two of float32 and below: schedules may add it without rounding it first."""
    return x * y


def exp_nonpositive(x: float) -> float:
    """exp(x) for x <= 709, for a little less than exp(x)."""
    return math.exp(x)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def softplus(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def log_cosh(x: float) -> float:
    """log(cosh(x)) = |x| - log 2 + log1p(exp(-2|x|)), as log1p(expm1(-|x|)^2 / (2 exp(-|x|))) where that would cancel."""
    e = math.exp(-abs(x))
    return math.log1p(math.expm1(-abs(x)) ** 2 / (2 * e)) if abs(x) < 1 else abs(x) - math.log(2) + math.log1p(e * e)


def coshm1(x: float) -> float:
    """cosh(x) - 1 for |x| <= 10."""
    return 2.0 * math.sinh(0.5 * x) ** 2


def log_of_sum(x: float, lost: float) -> float:
    """log(x + lost) of a sum x and what its rounding lost, which of 1 - q is 0 for q of float32 and below, 2^-29 and more."""
    return math.log(x) + lost / x


def rel_entr(a: float, b: float) -> float:
    """a log(a / b) for finite normal numbers a, b > 0.

    By log1p, because terms of both signs cancel in rows that are nearly equal: near 1, the error of log(a / b) is one of the rounding
    of a / b, that of log1p next to 0 is the same small share of every term.
    """
    return a * math.copysign(math.log1p(abs(a - b) / min(a, b)), a - b)


class Careful(NamedTuple):
    """Where doubt(s, *a), total `which` becomes settle(x, *a), with x the sums of terms(s, t, p, *a) -> `size` numbers, in parts.

    Each sum is three numbers of x that add up to it, see `exact.py`: only what is below 2^-150 of the largest sum on the way may be lost.
    Where settle gives NaN, because something overflowed, the total stays.
    """

    which: int
    doubt: Scalar
    terms: Scalar
    size: int
    settle: Scalar


class Pass(NamedTuple):
    """One gathering over the row: the operation, and what each element brings."""

    op: str
    size: int  # how many totals it gives
    terms: Scalar
    label: int = 0  # for Pick and Earlier, which total is the label; for again, which is the same
    own: int = 0  # for Larger and Earlier, which total is the label's own prediction
    larger: int = 0  # for Earlier, which total says how many are larger
    hard: Scalar | None = None
    sparse: bool = False  # t = 0 brings 0: most of a one-hot row need not be looked at
    careful: Careful | None = None
    by_label: bool = False  # of LogSumExp: m may be the prediction at the label
    exponent: Scalar | None = None  # of dense targets: terms(s, t, p, e, *a) takes e = exp(exponent((), t, p, *a)) <= 1


class _Totals:
    """Stands for the totals before a pass, to see whether it asks for one."""

    asked = False

    def __getitem__(self, which: int | slice) -> Any:
        self.asked |= not isinstance(which, slice)
        return self if isinstance(which, slice) else 0.5


def looks_back(one: Pass) -> bool:
    """Whether the pass needs the totals of those before it. Its maths is free of branches, so one call shows it."""
    if one.op not in ("sum", "logs", "max", "top", "dot", "lse", "label"):
        return True
    code, totals = one.terms.__code__, _Totals()
    ones = 16 if code.co_flags & inspect.CO_VARARGS else code.co_argcount - 1
    try:
        one.terms(totals, *[0.5] * ones)
    except (ArithmeticError, TypeError, ValueError):
        return True
    return totals.asked


class _Unread:
    """Stands for a target, to see whether it is looked at: there is nothing that can be done with it."""

    __eq__ = __ne__ = __bool__ = None  # type: ignore[assignment]


def looks_at_target(one: Pass) -> bool:
    """Whether the pass, one of functions of both, needs the targets."""
    code, unread = one.terms.__code__, _Unread()
    ones = 16 if code.co_flags & inspect.CO_VARARGS else code.co_argcount - 2
    try:
        found = one.terms(_Totals(), unread, *[0.5] * ones)
    except (ArithmeticError, TypeError, ValueError):
        return True
    return any(x is unread for x in (found if isinstance(found, tuple) else (found,)))


def Sum(terms: Scalar, count: int = 1, hard: Scalar | None = None, careful: Careful | None = None) -> Pass:
    """Totals of terms(s, t, p, *a). `hard` gives the same numbers, to the last bit, for less where t is 0 or 1."""
    return Pass("sum", count, terms, hard=hard, careful=careful)


def Logs(terms: Scalar, hard: Scalar | None = None, *, sparse: bool = False, exponent: Scalar | None = None) -> Pass:
    """The total of x + log1p(e), (x, e) = terms(s, t, p, *a), and 0. `hard` as for `Sum`; `sparse` if t = 0 brings 0, whatever p."""
    return Pass("logs", 2, terms, hard=hard, sparse=sparse, exponent=exponent)


def Max(terms: Scalar, count: int = 1) -> Pass:
    """Maxima of terms(s, t, p, *a); NaN stays."""
    return Pass("max", count, terms)


def Top(terms: Scalar, count: int = 1) -> Pass:
    """Maxima of terms(s, t, p, *a); NaN is passed over."""
    return Pass("top", count, terms)


def LogSumExp(terms: Scalar, by_label: bool = False) -> Pass:
    """(m, r) with log sum exp = m + log1p(r). `by_label` is for terms that give p itself, and formulas to which m need not be the maximum.

    A `curve` never meets another m: (1 - e) + r, with e = exp(p - m) a part of r, would cancel.
    """
    return Pass("lse", 2, terms, by_label=by_label)


def Dot(terms: Scalar, count: int = 1) -> Pass:
    """Sums of t * terms(s, p, *a)."""
    return Pass("dot", count, terms, sparse=True)


def Label() -> Pass:
    """The row's label as a number."""
    return Pass("label", 1, target)


def Pick(terms: Scalar, label: int) -> Pass:
    """terms(s, p, *a) at the label, which is total `label`."""
    return Pass("pick", 1, terms, label)


def Larger(own: int) -> Pass:
    """How many predictions are larger than total `own`, or NaN."""
    return Pass("larger", 1, prediction, own=own)


def Earlier(label: int, own: int, larger: int) -> Pass:
    """How many predictions before the label, total `label`, equal total `own`; only counted where total `larger` is 0."""
    return Pass("earlier", 1, prediction, label, own, larger)


def prediction(s: Any, p: float, *a: float) -> float:
    """For a Pick: the prediction itself."""
    return p


def target(s: Any, t: float, p: float, *a: float) -> float:
    """The target itself."""
    return t


class Rows(NamedTuple):
    """The maths of one loss or metric; see the module's text."""

    name: str
    passes: tuple[Pass, ...]
    value: Scalar
    around: Scalar | None = None
    slope: Scalar | None = None
    curve: Scalar | None = None
    # softmax_slope(c, t, e, *a): the slope once more, for a schedule that has kept e = exp(x - m) of the LogSumExp pass.
    softmax_slope: Scalar | None = None
    # exponent_slope(c, t, p, e, *a): likewise, with the e of the only pass's exponent.
    exponent_slope: Scalar | None = None
    # The same for data of float32 and below, whose squares and products neither over- nor underflow a float64, and whose values need
    # not be right to its last bit. Not for labels.
    narrow: Rows | None = None
    # How many of the passes the value needs; the derivative needs all. None: all.
    leading: int | None = None
    # A pointwise loss: slope and curve need nothing of the other elements, and rows may be cut anywhere.
    pointwise: bool = False
    # Of `joint`: the values beside the first.
    more: tuple[Scalar, ...] = ()
    # The same maths in kernels/, as a C++ type of the computing type T; "": that of the rows' name. None: to be translated.
    cuda: str | None = ""
    written: str = ""  # what the user wrote for it in C++

    def suited(self, dtype: str, labelled: bool, n: int) -> Rows:
        """These or the narrow ones, for rows of n elements. A single element of a pointwise loss has nothing to share a logarithm with."""
        return self if self.narrow is None or dtype == "float64" or labelled or n == 1 and self.pointwise else self.narrow


def mean_of(
    value: Scalar,
    slope: Scalar | None = None,
    curve: Scalar | None = None,
    *,
    hard: Scalar | None = None,
    logs: tuple[Scalar, ...] = (),
    exponent: tuple[Scalar, ...] = (),
) -> Rows:
    """The mean over the row of value(t, p, *a), its derivative slope(t, p, *a) and second derivative curve(t, p, *a).

    hard(t, p, *a) gives the same value, to the last bit, for less where t is 0 or 1. Of data of float32 and below the values are gathered
    by `Logs` of the one or two functions `logs` of t, p, *a; with an exponent(t, p, *a), they take its exponential e before *a, and
    so does the slope that may be given beside it.
    """

    def mean(s: Any, n: float, *a: float) -> Any:
        return s[0] / n

    def around(s: Any, n: float, *a: float) -> Any:
        return (1.0 / n,)

    one = Sum(_as_terms(value), 1, None if hard is None else _as_terms(hard))
    parts, given = [_as_terms(f) for f in logs], [_as_terms(f) for f in exponent[:1]]
    name = value.__name__
    rows = Rows(name, (one,), mean, around, _scaled(slope), _scaled(curve), pointwise=True, cuda=f"Mean<{name}<T>>")
    if not parts:
        return rows
    gathered = Logs(parts[0], *parts[1:], exponent=given[0] if given else None)
    return rows._replace(narrow=rows._replace(passes=(gathered,), exponent_slope=_scaled(exponent[1]) if exponent[1:] else None))


def sum_of(value: Scalar, slope: Scalar | None = None, curve: Scalar | None = None) -> Rows:
    """As `mean_of`, for the sum over the row."""

    def total(s: Any, n: float, *a: float) -> Any:
        return s[0]

    def around(s: Any, n: float, *a: float) -> Any:
        return (1.0,)

    return mean_of(value, slope, curve)._replace(value=total, around=around, cuda=f"Total<{value.__name__}<T>>")


@functools.lru_cache(maxsize=256)
def joint(members: tuple[tuple[Rows, int], ...]) -> Rows:
    """Several losses of the same rows in one: each, given with the number of its parameters, has its own totals and parameters."""
    passes: list[Pass] = []
    values: list[Scalar] = []
    known: dict[Any, int] = {}  # where the totals stand that several may have in common
    slot = at = 0
    for rows, parameters in members:
        first, places = slot, {}
        for one in rows.passes[: rows.leading]:
            new = _moved(one, first, at, at + parameters)
            places[slot - first] = slot
            if one.terms in (prediction, target):
                if one.op != "label":
                    new = new._replace(label=places[one.label], own=places[one.own], larger=places[one.larger])
                places[slot - first] = known.setdefault(new, slot)
                if known[new] != slot:
                    new = Pass("again", one.size, prediction, known[new])
            passes.append(new)
            slot += one.size
        values.append(_value_of_part(rows.value, first, slot, at, at + parameters))
        at += parameters
    narrow = tuple((rows.narrow or rows, parameters) for rows, parameters in members)
    name = "+".join(rows.name for rows, _ in members)
    return Rows(name, tuple(passes), values[0], more=tuple(values[1:]), narrow=joint(narrow) if narrow != members else None)


def _moved(one: Pass, first: int, begin: int, end: int) -> Pass:
    """The pass of a member whose totals start at `first`, and whose parameters are a[begin:end]."""

    def moved(terms: Scalar) -> Scalar:
        if terms in (prediction, target):
            return terms
        if one.op in ("dot", "pick"):

            def of_prediction(s: Any, p: float, *a: float) -> Any:
                return terms(s[first:], p, *a[begin:end])

            return of_prediction

        if one.exponent is not None:

            def of_exponential(s: Any, t: float, p: float, e: float, *a: float) -> Any:
                return terms((), t, p, e, *a[begin:end])

            return of_exponential

        def of_both(s: Any, t: float, p: float, *a: float) -> Any:
            return terms(s[first:], t, p, *a[begin:end])

        return of_both

    hard, careful = None if one.hard is None else moved(one.hard), one.careful
    if careful is not None:
        doubt, settle = careful.doubt, careful.settle

        def doubt_of_part(s: Any, *a: float) -> Any:
            return doubt(s[first:], *a[begin:end])

        def settle_of_part(x: Any, *a: float) -> Any:
            return settle(x, *a[begin:end])

        careful = Careful(careful.which + first, doubt_of_part, moved(careful.terms), careful.size, settle_of_part)
    exponent = one.exponent
    if exponent is not None:

        def exponent_of_part(s: Any, t: float, p: float, *a: float) -> Any:
            return exponent(s, t, p, *a[begin:end])

        one = one._replace(exponent=exponent_of_part)
    return one._replace(terms=moved(one.terms), label=one.label + first if one.op == "pick" else 0, hard=hard, careful=careful)


def _value_of_part(value: Scalar, first: int, last: int, begin: int, end: int) -> Scalar:
    def value_of_part(s: Any, n: float, *a: float) -> Any:
        return value(s[first:last], n, *a[begin:end])

    return value_of_part


def _as_terms(value: Scalar) -> Scalar:
    def terms(s: Any, t: float, p: float, *a: float) -> Any:
        return value(t, p, *a)

    return terms


def _scaled(f: Scalar | None) -> Scalar | None:
    if f is None:
        return None

    def scaled(c: Any, t: float, p: float, *a: float) -> Any:
        return c[0] * f(t, p, *a)

    return scaled


def bind(function: Scalar, replace: Mapping[Any, Any], wrap: Callable[[Scalar], Any]) -> Any:
    """`function` with every object it names that is a key of `replace` exchanged, and `wrap` around it and its helpers.

    This is how one scalar function serves every schedule: `math.log` becomes numpy's, or an instruction sequence. Helper
    functions it calls, as globals or closure variables, are bound the same way; modules become a copy with their functions
    exchanged.
    """
    done: dict[int, Any] = {}

    def exchanged(x: Any) -> Any:
        try:
            if x in replace:
                return replace[x]
        except TypeError:  # not hashable, so not a key
            return x
        if isinstance(x, types.FunctionType):
            return bound(x)
        if isinstance(x, types.ModuleType) and any(getattr(x, name) in replace for name in _public_functions(x)):
            copy = types.ModuleType(x.__name__)
            vars(copy).update({name: exchanged(getattr(x, name)) for name in _public_functions(x)})
            vars(copy).update({name: value for name, value in vars(x).items() if isinstance(value, float)})
            return copy
        return x

    def bound(f: types.FunctionType) -> Any:
        if id(f) not in done:
            done[id(f)] = f  # a recursive function meets itself
            names = _names(f.__code__)
            scope = {name: exchanged(f.__globals__[name]) for name in names if name in f.__globals__}
            for name in names - scope.keys():
                if getattr(builtins, name, None) in replace:
                    scope[name] = replace[getattr(builtins, name)]
            scope["__builtins__"] = builtins
            cells = tuple(types.CellType(exchanged(cell.cell_contents)) for cell in f.__closure__ or ())
            copy = types.FunctionType(f.__code__, scope, f.__name__, f.__defaults__, cells)
            copy.__module__, copy.__qualname__ = f.__module__, f.__qualname__
            done[id(f)] = wrap(copy)
        return done[id(f)]

    if not isinstance(function, types.FunctionType):
        raise TypeError(f"expected a plain Python function, got {type(function).__name__}")
    return bound(function)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*inner)


def _public_functions(module: types.ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if not name.startswith("_") and callable(value)]
