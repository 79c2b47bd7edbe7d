"""What is measured: which function of the table, with which options, on arrays of which shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import losses, metrics
from ..call import REQUIRED, plan
from ..derivatives import value_and_grad
from ..dispatch import backend
from ..domains import draw
from ..problem import STRUCTURAL
from ..rows import FACTORS, bind, coshm1, exp_nonpositive, log_cosh, sigmoid, softplus
from ..table import LOSSES, METRICS, Entry
from . import machine

Array = NDArray[Any]

EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
DTYPES = tuple(EPSILON)
FRAMES = 32  # of a sequence
DISTINCT = 1 << 22  # elements that are drawn; larger arrays hold their rows again and again
MOST_PAIRS = 2048  # samples of a loss of pairs: the reference holds a matrix of all pairs

# The README's table: losses and metrics as people use them, at shapes of every regime. Elements, and what they are like:
WIDE = (4096, 1000)  # 4 million: a batch of ImageNet's classes; past most caches
ROWS = (1048576, 32)  # 34 million: many short rows
VOCABULARY = (1024, 32000)  # 33 million: a language model's logits
SHORT = (65536, 10)  # 0.7 million: ten classes; in the cache
COLUMN = (65536, 1)
TINY = (32, 10)  # what a call costs
TOTAL = (10_000_000,)

_LOGITS = {"from_logits": True}
_MEAN = {"reduction": "mean"}
STANDARD: tuple[tuple[str, dict[str, Any], bool, tuple[tuple[int, ...], ...]], ...] = (
    ("mean_squared_error", _MEAN, False, (TOTAL,)),
    ("mean_squared_error", {}, False, (TINY, COLUMN, SHORT, WIDE, ROWS)),
    ("mean_absolute_percentage_error", {}, False, (WIDE,)),
    ("huber", {}, False, (WIDE,)),
    ("log_cosh", {}, False, (WIDE,)),
    ("cosine_similarity", {}, False, (WIDE,)),
    ("binary_crossentropy", {}, False, (TINY, COLUMN, WIDE, ROWS)),
    ("binary_crossentropy", _LOGITS, False, (COLUMN, WIDE, ROWS)),
    ("categorical_crossentropy", {}, False, (SHORT, WIDE, VOCABULARY)),
    ("categorical_crossentropy", _LOGITS, False, (TINY, SHORT, WIDE, VOCABULARY)),
    ("sparse_categorical_crossentropy", _LOGITS, False, (TINY, SHORT, WIDE, VOCABULARY)),
    ("kl_divergence", {}, False, (WIDE,)),
    ("categorical_hinge", {}, False, (WIDE,)),
    ("categorical_accuracy", {}, False, (TINY, SHORT, WIDE)),
    ("sparse_categorical_accuracy", {}, False, (SHORT, WIDE)),
    ("sparse_top_k_categorical_accuracy", {}, False, (SHORT, WIDE)),
    ("mean_squared_error", {}, True, (SHORT, WIDE)),
    ("binary_crossentropy", _LOGITS, True, (SHORT, WIDE)),
    ("sparse_categorical_crossentropy", _LOGITS, True, (SHORT, WIDE)),
)
# With --quick: enough for every picture.
QUICK: tuple[tuple[str, dict[str, Any], bool, tuple[tuple[int, ...], ...]], ...] = (
    ("mean_squared_error", {}, False, (TINY, (64, 1000), WIDE)),
    ("binary_crossentropy", _LOGITS, False, (SHORT, WIDE)),
    ("sparse_categorical_crossentropy", _LOGITS, False, (TINY, SHORT, WIDE)),
    ("categorical_accuracy", {}, False, (WIDE,)),
    ("sparse_categorical_crossentropy", _LOGITS, True, (WIDE,)),
)


@dataclass(frozen=True)
class Workload:
    """One call to measure. With `gradient`, `value_and_grad` of the mean."""

    kind: str  # "loss" or "metric"
    function: str  # its name in the table
    shape: tuple[int, ...]  # of y_pred
    dtype: str = "float32"
    gradient: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of the call, reduction among them

    @property
    def entry(self) -> Entry:
        return next(entry for entry in (LOSSES if self.kind == "loss" else METRICS) if entry.name == self.function)

    @property
    def problem(self) -> str:
        """All but shape and dtype, as a person would say it, and as `formulas` has it."""
        options = dict(self.options)
        logits = " from logits" if options.pop("from_logits", False) is True else ""
        total = " total" if options.get("reduction") == "mean" and options.pop("reduction") else ""
        required = {name: value for name, value in _required(self.entry).items() if options.get(name) == value}
        rest = "".join(f" {name}={value}" for name, value in options.items() if name not in required)
        return f"{'value_and_grad ' if self.gradient else ''}{self.function}{logits}{total}{rest}"

    @property
    def formula(self) -> str | None:
        """The loss by which `formulas` knows it; None if an option changes what is computed."""
        options = {name: value for name, value in self.options.items() if name not in ("reduction", "from_logits")}
        if any(_defaults(self.entry)[name] != value for name, value in options.items()):
            return None
        return f"{self.function}{' from logits' if self.options.get('from_logits') is True else ''}"

    @property
    def name(self) -> str:
        """All but the dtype."""
        return f"{self.problem} {'x'.join(map(str, self.shape))}"

    @property
    def identity(self) -> str:
        """What tells it from others, across runs."""
        return f"{self.name} {self.dtype}"

    @property
    def rows(self) -> int:
        """Samples, of which a sequence is one."""
        return self.shape[0] if self.entry.targets == "sequence" else math.prod(self.shape[:-1])

    @property
    def functions(self) -> float | None:
        """Elementary functions (exp, log, ...) that an element needs; None where that depends on more than the row's length."""
        return elementary_functions(self)

    @property
    def distinct(self) -> int:
        """How many rows are drawn. An odd number of those that come again, so that an index which wraps at a power of two shows."""
        rows, *rest = self.shape
        independent = self.formula is not None and self.entry.targets not in ("label", "sequence")
        if not independent or not rest or self.options.get("reduction") not in (None, "mean"):
            return rows
        return min(rows, max(1, (DISTINCT // math.prod(rest) - 1) | 1))

    def draw(self) -> tuple[Array, Array]:
        """y_true and y_pred, the same in every run; probabilities stay away from 0 and 1, where clipping would decide."""
        seed = np.random.default_rng(20250101)
        y_true, y_pred = draw(self.entry, (self.distinct, *self.shape[1:]), seed, numpy_dtype(self.dtype), **self.options)
        if self.entry.predictions == "probability" and not self.options.get("from_logits"):
            margin = max(1e-3, 4 * EPSILON[self.dtype])
            y_pred = (margin + (1 - 2 * margin) * y_pred.astype(np.float64)).astype(y_pred.dtype)
        if self.distinct < self.shape[0]:
            y_true, y_pred = (np.resize(x, (self.shape[0], *x.shape[1:])) for x in (y_true, y_pred))
        return y_true, y_pred

    def reference(self, y_true: Array, y_pred: Array) -> tuple[Array, ...]:
        """The value, or value and gradient, of the same numbers by the NumPy reference in float64."""
        rows, distinct = self.shape[0], self.distinct
        t, p = (x[:distinct] if x.dtype.kind in "iu" else x[:distinct].astype(np.float64) for x in (y_true, y_pred))
        function = (losses if self.kind == "loss" else metrics).REGISTRY.function(self.function)
        options = {"reduction": "mean", **self.options} if self.gradient else self.options
        with backend("numpy"):
            if distinct == rows:
                found = value_and_grad(function, t, p, **options) if self.gradient else (function(t, p, **options),)
                return tuple(map(np.asarray, found))
            each = {**options, "reduction": None}
            values = np.resize(function(t, p, **each), rows)
            if not self.gradient:
                return (values if options.get("reduction") is None else np.asarray(values.mean()),)
            _, gradient = value_and_grad(function, t, p, **{**each, "reduction": "sum"})
            return np.asarray(values.mean()), np.resize(gradient / rows, self.shape)

    def describe(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self) | {"problem": self.problem, "identity": self.identity, "shape": list(self.shape)}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; ImportError where bfloat16 is wanted and not there."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 needs the package ml_dtypes, which is not installed") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def chosen(names: Iterable[tuple[str, dict[str, Any]]], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str], mode: str | None,
           quick: bool) -> list[Workload]:  # fmt: skip
    """The workloads of a run. Without names those of the README's table; ValueError for a name that is not known, or fits no shape.

    mode: "value", "grad", "both", or None for what the table has, and values of what is named.
    """
    found: list[Workload] = []
    names = list(names)
    if names:
        default = (TINY, SHORT, WIDE) if not quick else (SHORT, WIDE)
        for name, options in names:
            gradients = {"value": (False,), "grad": (True,), "both": (False, True), None: (False,)}[mode]
            found += (w for g in gradients for w in _of(name, options, g, shapes or default, dtypes))
            if mode == "grad" and not any(w.gradient for w in found):
                raise ValueError(f"{name} has no gradient")
    else:
        modes = {"value": (False,), "grad": (True,)}.get(mode or "both", (False, True))
        for name, options, gradient, own in QUICK if quick else STANDARD:
            if gradient in modes:
                found += _of(name, options, gradient, shapes or own, dtypes)
    return list({w.identity: w for w in found}.values())


def _of(name: str, options: dict[str, Any], gradient: bool, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Iterable[Workload]:
    kind, entry = _entry(name)
    unknown = [option for option in options if option not in (*_defaults(entry), "reduction")]
    if unknown:
        raise ValueError(f"{entry.name} has no option {unknown[0]!r}; it has {', '.join(_defaults(entry)) or 'none'}")
    options = {**_required(entry), **options}
    if gradient and not _differentiable(entry, options):
        return
    for dtype in dtypes:
        for shape in shapes:
            if entry.targets == "sequence" and len(shape) == 2:
                shape = (max(1, shape[0] // FRAMES), FRAMES, shape[1])
            elif entry.targets == "label":
                shape = (min(shape[0], MOST_PAIRS), *shape[1:])
            yield Workload(kind, entry.name, shape, dtype, gradient, options)


def _entry(name: str) -> tuple[str, Entry]:
    """By any name of any generation: the loss, or else the metric."""
    faults = []
    for registry in (losses.REGISTRY, metrics.REGISTRY):
        try:
            return registry.kind, vars(registry.function(name))["entry"]
        except ValueError as error:
            faults.append(str(error))
    told = (fault for fault in faults if not fault.endswith(f"identifier: {name!r}"))
    raise ValueError(next(told, f"there is no loss or metric {name!r}; `lossfuncs list` shows all"))


def _defaults(entry: Entry) -> dict[str, Any]:
    return vars(entry.function)["defaults"]  # type: ignore[no-any-return]


def _required(entry: Entry) -> dict[str, Any]:
    """Options without a default."""
    return {name: 0.5 for name, value in _defaults(entry).items() if value is REQUIRED}


def _differentiable(entry: Entry, options: dict[str, Any]) -> bool:
    if entry.rows is None or entry.targets == "label":
        return True
    rows, _ = plan(entry, 8, _maths_options(entry, options))
    return rows.slope is not None


def _maths_options(entry: Entry, options: dict[str, Any]) -> dict[str, Any]:
    options = {**_defaults(entry), **options}
    options.pop("reduction", None)
    if entry.labels01:
        options["converted"] = False
    return {name: value for name, value in options.items() if name not in STRUCTURAL}


def elementary_functions(workload: Workload) -> float | None:
    """How often the row maths asks for exp, log and their kin, by element: of the value, or with its gradient; targets are hard."""
    entry = workload.entry
    if entry.rows is None or entry.shape == "own":
        return None
    count = 0.0

    def counted(function: Callable[..., float], weight: int = 1) -> Callable[..., float]:
        def counting(*arguments: Any) -> float:
            nonlocal count
            count += weight
            return function(*arguments)

        return counting

    # what one call is made of: a sigmoid is one exponential, a softplus one and a log1p
    names = ("exp", "log", "log1p", "expm1", "tanh", "pow", "sqrt", "log2", "exp2")
    replaced: dict[Any, Any] = {getattr(math, name): counted(getattr(math, name)) for name in names if name != "sqrt"}
    replaced |= {exp_nonpositive: counted(exp_nonpositive), sigmoid: counted(sigmoid), softplus: counted(softplus, 2),
                 log_cosh: counted(log_cosh, 2), coshm1: counted(coshm1)}  # fmt: skip
    n = workload.shape[-1]
    rows, parameters = plan(entry, n, _maths_options(entry, workload.options))
    labelled = entry.targets == "index"
    rows = rows.suited(workload.dtype, labelled, n)
    totals = (0.5,) * sum(one.size for one in rows.passes)
    for one in rows.passes if workload.gradient else rows.passes[: rows.leading]:
        if one.op in ("sum", "logs", "max", "top", "lse"):
            e = () if one.exponent is None else (0.5,)
            bind(one.hard or one.terms, replaced, lambda f: f)(totals, 0.0, 0.5, *e, *parameters)
            count += len(e)
            count += {"lse": 1.0, "logs": 1.0 / min(n, FACTORS)}.get(one.op, 0.0)
        elif one.op == "dot" and not labelled:
            bind(one.terms, replaced, lambda f: f)(totals, 0.5, *parameters)
    if workload.gradient and rows.slope is not None:
        constants = bind(rows.around, {}, lambda f: f)(totals, float(n), *parameters) if rows.around else totals
        if rows.exponent_slope is None:
            bind(rows.slope, replaced, lambda f: f)(constants, 0.0, 0.5, *parameters)
        else:
            bind(rows.exponent_slope, replaced, lambda f: f)(constants, 0.0, 0.5, 0.5, *parameters)
    return count


def data(workload: Workload, warm: bool, cache: int) -> list[tuple[Array, Array]]:
    """Copies of the arrays to go through in turn.

    Past a quarter of the cache of so many bytes they together exceed it eight times, so that each comes from memory; smaller arrays, and
    all with `warm`, are one pair, which stays where the caches keep it. No more is taken than a sixteenth of the machine's memory.
    """
    y_true, y_pred = workload.draw()
    size = y_true.nbytes + y_pred.nbytes
    copies = 1
    if not warm and size > cache / 4:
        copies = max(1, min(math.ceil(8 * cache / size), int(machine.memory() / 16 / size)))
    return [(_aligned(y_true), _aligned(y_pred)) for _ in range(copies)]


def _aligned(array: Array) -> Array:
    """The same numbers at an address divisible by 64, where jax takes them without a copy."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


WORKLOADS = tuple(chosen([], [], ["float32"], None, quick=False))
