"""Losses and metrics over more data than should be in memory: folded batch by batch, with the result of one pass.

    lossfuncs.evaluate("labels.npy", "predictions.npy", loss="crossentropy", metrics=["accuracy"])

`Evaluation` is the fold itself: update with batches anywhere, merge, and ask for the result.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from . import losses, metrics, plain
from .bootstrap import BLOCK, ROWS, Cells, Draws, Scores, Sums, Twins, interval
from .bootstrap import Estimate as Estimate
from .call import REQUIRED, RowsCall, array, by_sample, class_number, complete, gpu_backend, plan, totals
from .dispatch import current_backend, prepare
from .files import Source, open_rows
from .metrics import metric
from .metrics.confusion import ThresholdMetric
from .metrics.regression import Moments
from .names import SPELLINGS, find
from .options import count, number, shown
from .problem import Array, Task
from .structures import each
from .table import STRUCTURAL

Function: TypeAlias = "str | Callable[..., Any] | tuple[str | Callable[..., Any], Mapping[str, Any]]"
Replicates: TypeAlias = Sums | Scores | Moments | Twins
Progress: TypeAlias = Callable[[int, "int | None"], None]

BATCH = 4 << 20  # bytes that are read at a time: they stay in a cache while one function after the other passes over them


def evaluate(
    y_true: Any,
    y_pred: Any = None,
    *,
    loss: Function | Iterable[Function] = (),
    metrics: Function | Iterable[Function] = (),
    sample_weight: Any = None,
    batch_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The mean of each loss and metric over all samples, whatever the batches.

    y_true, y_pred and sample_weight are arrays, memory maps, or paths of .npy, .npz, .csv or .parquet files ("file.npz:key",
    "file.csv:column"), with equally many rows; or collections of dask, folded where they lie; or y_true alone is an iterable of batches
    (y_true, y_pred) or (y_true, y_pred, sample_weight). One-dimensional data are one number a sample.

    loss and metrics: strings of any Keras generation, functions of lossfuncs, loss classes' instances (which stand for their functions
    and options), metric classes and instances, pairs (of a string, function or class, its options), or several of these. As in Keras'
    compile, "accuracy" and "crossentropy" mean the binary, categorical or sparse one, by the shapes; without any loss and metric, those
    that suit the first batch are chosen. options go to every function that knows them. The keys of the result are the strings as given;
    a metric of several thresholds or classes gives an array. With sample_weight the means are weighted: sum(weight * value) /
    sum(weight). dice and tversky are one number for all data, unless their axis says otherwise.

    bootstrap: how many replicates of a Poisson bootstrap to compute in the same pass; each result is then an `Estimate`: (value, low,
    high), the interval that holds this share (`confidence`) of the replicates. What is drawn depends on seed and on the samples' places
    in the data alone. A sample is a row: several values of one are drawn together.

    batch_size: rows at a time; by default 4 MB. progress(rows done, rows in all or None) is called after each batch. ValueError for
    rows that differ in number, labels out of range, no data, what the functions raise, and for a function whose value depends on
    which samples are together in a batch.
    """
    if hasattr(y_true, "__dask_graph__") or hasattr(y_pred, "__dask_graph__"):
        from .frameworks import dask

        return dask.evaluate(y_true, y_pred, loss=loss, metrics=metrics, sample_weight=sample_weight, batch_size=batch_size,
                             options=options, progress=progress, bootstrap=bootstrap, seed=seed, confidence=confidence)  # fmt: skip
    fold = Evaluation(loss, metrics, options, bootstrap, seed, confidence)
    for batch, total in batches(y_true, y_pred, sample_weight, batch_size):
        fold.update(*batch)
        if progress:
            progress(fold.rows, total)
    return fold.result()


def batches(
    y_true: Any, y_pred: Any = None, sample_weight: Any = None, batch_size: int | None = None, nested: bool = False
) -> Iterator[tuple[Any, int | None]]:
    """The batches (y_true, y_pred, sample_weight or None), each with the number of rows in all, where that is known.

    nested: arrays and files may stand in dicts, lists and tuples, and so do the batches then.
    """
    if y_pred is None:
        if sample_weight is not None or batch_size is not None:
            raise ValueError("y_pred is missing: sample_weight and batch_size go with arrays or files, not with an iterable of batches")
        if isinstance(y_true, (str, os.PathLike)) or not isinstance(y_true, Iterable):
            raise ValueError(f"y_pred is missing: y_true alone must be an iterable of batches, got {shown(y_true)}")
        for batch in y_true:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(f"a batch must be (y_true, y_pred) or (y_true, y_pred, sample_weight), got {type(batch).__name__}")
            yield batch, None
        return
    with contextlib.ExitStack() as opened:
        sources: list[Source] = []

        def open_one(data: Any, name: str) -> Source | None:
            if data is None:
                return None
            sources.append(open_rows(data, name))
            opened.callback(sources[-1].close)
            return sources[-1]

        named = (("y_true", y_true), ("y_pred", y_pred), ("sample_weight", sample_weight))
        present = [(name, data) for name, data in named if data is not None]
        places = [each(functools.partial(open_one, name=name), x) if nested else open_one(x, name) for name, x in present]
        first, *others = sources
        for other in others:
            if other.rows != first.rows:
                raise ValueError(f"{first.name} has {first.rows:,} rows, but {other.name} has {other.rows:,}")
        size = max(1, BATCH // sum(source.row_bytes for source in sources)) if batch_size is None else _positive(batch_size)
        for _ in range(0, first.rows, size):
            read = {source: source.read(size) for source in sources}
            if len({len(x) for x in read.values()}) > 1:
                raise ValueError(f"{first.name} and {sources[1].name} ended at different rows")
            yield [each(read.get, place) for place in places], first.rows


def _positive(batch_size: Any) -> int:
    try:
        size = operator.index(batch_size)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    return size


class Evaluation:
    """Losses and metrics folded over batches; see `evaluate`, whose arguments these are.

    first_row: where in all the data the first batch begins, for parts that are merged: a bootstrap draws each row by its place.
    """

    def __init__(self, loss: Any = (), metrics: Any = (), options: Mapping[str, Any] | None = None, bootstrap: int = 0, seed: int = 0,
                 confidence: float = 0.95, first_row: int = 0) -> None:  # fmt: skip
        self.rows = 0
        self.functions: dict[str, Accumulator | MetricFold] = {}
        self.bootstrap = count("bootstrap", bootstrap)
        self.seed, self.first_row = class_number("seed", seed), count("first_row", first_row)
        self.confidence = number("confidence", confidence, 0.0, 1.0)
        self.replicates: dict[str, Replicates] = {}
        self._seen: list[tuple[int, int]] = []  # which rows, where there is a bootstrap
        self._wanted = [("loss", *_pair(x)) for x in _several(loss)] + [("metric", *_pair(x)) for x in _several(metrics)]
        self._options = dict(options or {})
        for kind, function, _ in self._wanted:
            _find(kind, function, "")  # an unknown name should not wait for data

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch."""
        t, p = array("y_true", y_true), array("y_pred", y_pred)
        if p.ndim == 0 or t.ndim == 0 or len(t) != len(p):
            raise ValueError(f"y_true and y_pred must have equally many rows, got shapes {t.shape} and {p.shape}")
        if not len(p):
            return
        functions = self.functions or self._resolved(t, p)
        restores = [function.checkpoint() for function in functions.values()]
        batch = Evaluation()  # all but the functions
        batch.rows = len(p)
        try:
            _update_together(functions.values(), t, p, sample_weight)
            if self.bootstrap:
                first = self.first_row + self.rows
                batch._seen = [(first, first + len(p))]
                batch.replicates = self._resampled(functions, first, t, p, sample_weight)
            self.merge(batch)
        except BaseException as error:
            for restore in restores:
                restore()
            if isinstance(error, ValueError):  # a row of this batch is named: say which one of the data it is
                where = re.sub(r"^y_true\[(\d+)", lambda found: f"y_true[{self.rows + int(found[1])}", str(error))
                raise ValueError(where) from None
            raise
        self.functions = functions

    @np.errstate(all="ignore")
    def _resampled(self, functions: Mapping[str, Any], first: int, t: Array, p: Array, w: Any) -> dict[str, Replicates]:
        """What the batch brings to the replicates of each function."""
        found: dict[str, Replicates] = {}
        for label, fold in functions.items():
            if isinstance(fold, MetricFold) and isinstance(fold.metric, metrics.AUC) and fold.metric.exact:
                found[label] = Scores(label, fold, self.bootstrap, self.seed)
            elif isinstance(fold, MetricFold) and type(fold.metric) is metrics.R2Score:
                found[label] = Moments(label, fold, self.bootstrap)
            else:
                found[label] = (Sums if fold.is_sum else Twins)(label, fold, self.bootstrap)
        weights = None if w is None else array("sample_weight", w)
        rows = max(1, min(ROWS, BLOCK // self.bootstrap))
        for begin in range(0, len(p), rows):
            part = slice(begin, begin + rows)
            draws = Draws(self.seed, first + begin, len(p[part]), self.bootstrap)
            for replicates in found.values():
                one = weights if weights is None or weights.shape[:1] != p.shape[:1] else weights[part]
                replicates.add(draws, t[part], p[part], one)
        return found

    def merge(self, other: Evaluation) -> None:
        """Take in all that `other`, made with the same arguments, has seen."""
        seen = sorted(self._seen + other._seen)
        if any(end > begin for (_, end), (begin, _) in itertools.pairwise(seen)):
            raise ValueError("the other evaluation has rows of the same places as this one: give each part its first_row")
        self._seen = _joined(seen)
        if not self.functions:
            self.functions = _like(other.functions)
        elif other.functions and list(other.functions) != list(self.functions):
            raise ValueError(f"the other evaluation has {', '.join(other.functions)}, this one {', '.join(self.functions)}")
        for label, accumulator in other.functions.items():
            self.functions[label].merge(accumulator)  # type: ignore[arg-type]
        for label, replicates in other.replicates.items():
            if label in self.replicates:
                self.replicates[label].merge(replicates)  # type: ignore[arg-type]
            else:
                self.replicates[label] = copy.copy(replicates)
        self.rows += other.rows

    def result(self) -> dict[str, Any]:
        """The means, and the metrics' results, so far; with a bootstrap as `Estimate`s. ValueError if there were no rows."""
        if not self.rows:
            raise ValueError("there is nothing to evaluate: the data have no rows")
        found = {label: accumulator.result() for label, accumulator in self.functions.items()}
        for label, replicates in self.replicates.items():
            with np.errstate(all="ignore"):
                results = replicates.results()
            found[label] = interval(found[label], results, self.confidence)
        return found

    def _resolved(self, t: Array, p: Array) -> dict[str, Accumulator | MetricFold]:
        """What was asked for, or else suits, by name."""
        functions: dict[str, Accumulator | MetricFold] = {}
        wanted, common, family = self._wanted, self._options, family_of(t, p)
        if not wanted:
            wanted = [(kind, name, {o: v for o, v in options.items() if o not in common}) for kind, name, options in suited(t, p)]
        unused = set(common)
        for kind, function, own in wanted:
            found = _find(kind, function, family)
            known = _defaults(found)
            shared = {name: value for name, value in common.items() if name in known}
            unused -= shared.keys()
            label = _label(function, own)
            if label in functions:
                if functions[label].function is found:
                    continue  # a loss that is also a metric
                label = f"{label} ({kind})"
            functions[label] = (Accumulator if hasattr(found, "defaults") else MetricFold)(found, {**shared, **own})
        if unused:
            names = sorted({name for a in functions.values() for name in _defaults(a.function)})
            raise ValueError(f"option {', '.join(sorted(unused))} is known to none of {', '.join(functions)}; "
                             f"they know {', '.join(names) or 'no options'}")  # fmt: skip
        return functions


def _update_together(functions: Iterable[Accumulator | MetricFold], t: Array, p: Array, w: Any) -> None:
    """Update each; of a large batch the totals that they want are added up in one pass."""
    together = p.size >= metric.SHARED and current_backend() == "numba"
    ready = [(function, function.wanted_total(t, p, w) if together else None) for function in functions]
    calls = [(function, call) for function, call in ready if call is not None]
    for (function, call), total in zip(calls, totals([call for _, call in calls]), strict=True):
        function.take_total(call, total, t, p)
    for function, call in ready:
        if call is None:
            function.update(t, p, w)


def _like(functions: dict[str, Accumulator | MetricFold]) -> dict[str, Accumulator | MetricFold]:
    """The same functions, having seen nothing."""
    return {label: type(a)(a.function, a.options) for label, a in functions.items()}


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted spans, with those that touch as one."""
    found: list[tuple[int, int]] = []
    for begin, end in spans:
        if found and found[-1][1] == begin:
            begin = found.pop()[0]
        found.append((begin, end))
    return found


class Accumulator:
    """The weighted mean of one function over batches."""

    is_sum = True
    state_size = 2

    def __init__(self, function: Any, options: Mapping[str, Any]) -> None:
        self.function, self.options = function, dict(options)
        self.weight = _Sum()  # of the values, or their number
        self.totals: list[_Sum] = []  # of the values; or of the terms of the one row that all data are
        self.exponent = 0  # weight and totals are to be multiplied by 2^exponent
        self.elements = 0  # of that row

    @property
    def name(self) -> str:
        """The function's."""
        return str(self.function.__name__)

    @property
    def known(self) -> dict[str, Any]:
        """The function's options with their defaults."""
        return _defaults(self.function)

    @property
    def expects_probabilities(self) -> bool:
        """Whether logits would be taken for probabilities."""
        return self.function.entry.predictions in ("probability", "distribution") and not self.options.get("from_logits")

    def update(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> None:
        """Take in a batch of at least one row."""
        call, whole = self.prepared(y_true, y_pred, sample_weight)
        if whole:
            self._add_terms(call)
        else:
            if call.device is None:
                self.take_total(call, call.run(current_backend(), Task(True, call.weights)), y_true, y_pred)
            else:
                total, divisor = gpu_backend().total_and_divisor(call)
                self._add([total], 0.0 if math.isinf(divisor) else divisor)

    def wanted_total(self, y_true: Array, y_pred: Array, sample_weight: Any) -> Any:
        """The call whose total is all that `take_total` wants of a batch; None where it wants more."""
        call, whole = self.prepared(y_true, y_pred, sample_weight)
        return None if whole else call

    def take_total(self, call: Any, total: float, y_true: Array, y_pred: Array) -> None:
        """Take in the batch of a `wanted_total`."""
        self._add([total], call.counted(), call.exponent)

    def contributions(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> Array:
        """What each sample adds: the sums of weight * value and of the weights; or the terms and elements of the one row."""
        call, whole = self.prepared(y_true, y_pred, sample_weight)
        if not whole:
            return by_sample(call, current_backend())
        problem, samples = call.problem, len(y_pred)
        t, p = (x.reshape(samples, -1).astype(np.float64) for x in (call.t, call.p))
        with np.errstate(all="ignore"):
            terms = plain.totals(problem.rows, t, p, problem.parameters)
        return np.concatenate([*terms, np.full((samples, 1), float(p.shape[1]))], axis=1)

    def results(self, sums: Array) -> Array:
        """The result of each of these sums of `contributions`."""
        *totals, weight = sums.T
        if not self.elements:
            means: Array = np.divide(totals[0], weight, out=np.zeros(len(weight)), where=weight != 0)
            return means
        return np.asarray(self._of_one_row(totals, weight))

    def prepared(self, y_true: Array, y_pred: Array, sample_weight: Any) -> tuple[Any, bool]:
        """The call, and whether all data are one row."""
        t, p = y_true, y_pred
        if p.ndim == 1:
            t, p = (x[:, None] if x.ndim == 1 else x for x in (t, p))
        name, whole = self.function.__name__, self._one_row(p)
        if whole and sample_weight is not None:
            raise ValueError(f"{name} is one number for all data, so that sample_weight has nothing to weigh: "
                             "with an axis, as axis=-1, it is one for each sample")  # fmt: skip
        call = prepare(self.function, t, p, self.options, sample_weight, "mean" if sample_weight is None else "mean_with_sample_weight")
        if isinstance(call, RowsCall):
            if y_pred.ndim == 1 and not whole and not call.problem.rows.pointwise and self.function.entry.shape != "element":
                raise ValueError(f"{name} needs several numbers for each sample, but y_pred has one: its shape is {y_pred.shape}")
        elif name == "circle" and (self.options.get("ref_embeddings") is None or self.options.get("remove_diagonal", True)):
            raise ValueError("circle compares the samples of a batch with one another, so it has no value apart from the batches: "
                             "give it ref_embeddings and ref_labels, and remove_diagonal=False")  # fmt: skip
        return call, whole

    def checkpoint(self) -> Callable[[], None]:
        """A function that puts it back to what it is now."""
        kept = self.elements, self.exponent, copy.copy(self.weight), list(map(copy.copy, self.totals))

        def restore() -> None:
            self.elements, self.exponent, self.weight, self.totals = kept

        return restore

    def merge(self, other: Accumulator) -> None:
        """Take in all that `other`, of the same function, has seen."""
        self.elements += other.elements
        self._take(other.weight, other.totals, other.exponent)

    def result(self) -> float:
        """The mean so far; 0 where all weights are 0, or every class was ignored."""
        totals = [total.value for total in self.totals]
        if not self.elements:
            return totals[0] / self.weight.value if self.weight.value else 0.0
        return float(self._of_one_row([np.float64(x) for x in totals], np.float64(self.elements)))

    def _of_one_row(self, totals: list[Any], elements: Any) -> Any:
        maths = {name: value for name, value in complete(self.function, self.options).items() if name not in STRUCTURAL}
        rows, parameters = plan(self.function.entry, self.elements, maths)
        with np.errstate(all="ignore"):
            return plain.on_arrays(rows.value)(totals, elements, *parameters)

    def _one_row(self, p: Array) -> bool:
        """Whether the function's axis makes one row of all data."""
        defaults = self.function.defaults
        axis = self.options.get("axis", defaults["axis"]) if "axis" in defaults else -1
        if axis is None:
            return True
        named = axis if isinstance(axis, (tuple, list)) else (axis,)
        over = {int(a) % p.ndim for a in named if isinstance(a, numbers.Integral) and -p.ndim <= int(a) < p.ndim}
        if 0 in over and len(over) < p.ndim:
            raise ValueError(f"axis {axis} of {self.function.__name__} runs over the samples: leave out axis 0, or name all axes")
        return 0 in over

    def _add_terms(self, call: Any) -> None:
        """The totals of one row add up over its pieces, and its value is a formula of them."""
        problem = call.problem
        if [one.op for one in problem.rows.passes] != ["sum"]:
            raise ValueError(f"{self.function.__name__} cannot be computed over all axes in batches: leave out axis 0")
        arrays = (x if call.device is None else call.device.fetch(x) for x in (call.t, call.p))
        t, p = (x.reshape(1, -1).astype(np.float64) for x in arrays)
        with np.errstate(all="ignore"):
            self._add([float(x[0, 0]) for x in plain.totals(problem.rows, t, p, problem.parameters)], 1.0)
        self.elements += p.size

    def _add(self, totals: list[float], weight: float, exponent: int = 0) -> None:
        self._take(_Sum(weight), list(map(_Sum, totals)), exponent)

    def _take(self, weight: _Sum, totals: list[_Sum], exponent: int) -> None:
        if not any(one.value for one in (self.weight, *self.totals)):
            self.exponent = exponent
        elif not any(one.value for one in (weight, *totals)):
            exponent = self.exponent
        self.totals += [_Sum() for _ in totals[len(self.totals) :]]
        common = max(self.exponent, exponent)
        for mine, its in zip((self.weight, *self.totals), (weight, *totals), strict=False):
            mine.scale(self.exponent - common)
            mine.add(math.ldexp(its.high, exponent - common), math.ldexp(its.low, exponent - common))
        self.exponent = common


class MetricFold:
    """A metric class, or copies of an instance, folded over batches as `Accumulator` folds a function."""

    elements = 0

    def __init__(self, function: Any, options: Mapping[str, Any]) -> None:
        self.function, self.options = function, dict(options)
        complete(SimpleNamespace(defaults=self.known, __name__=self.name), self.options)
        if isinstance(function, type):
            self.metric = function(**self.options)
        else:
            self.metric = copy.deepcopy(function)
            self.metric.reset_state()

    @property
    def name(self) -> str:
        """The class's, or the instance's."""
        return _name(self.function)

    @property
    def known(self) -> dict[str, Any]:
        """The options of the class with their defaults."""
        return _defaults(self.function)

    @property
    def expects_probabilities(self) -> bool:
        """Whether logits would be taken for probabilities."""
        metric = self.metric
        if isinstance(metric, metrics.AUC):
            return not (metric.exact or metric.from_logits)
        if isinstance(metric, (metrics.FBetaScore, metrics.BinaryIoU)):
            return metric.threshold is not None
        return isinstance(metric, ThresholdMetric) and metric.top_k is None

    def update(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> None:
        """Take in a batch."""
        self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def wanted_total(self, y_true: Array, y_pred: Array, sample_weight: Any) -> Any:
        """As an accumulator's."""
        return self.metric.wanted_total(y_true, y_pred, sample_weight, None)

    def take_total(self, call: Any, total: float, y_true: Array, y_pred: Array) -> None:
        """Take in the batch of a `wanted_total`."""
        self.metric.take_total(call, total, y_true, y_pred)

    def contributions(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> Array | Cells:
        """What each sample adds to the metric's state."""
        found: Array | Cells = self.metric.contributions(y_true, y_pred, sample_weight)
        return found

    @property
    def state_size(self) -> int:
        """How many numbers the metric's state is."""
        return sum(math.prod(variable.shape) for variable in self.metric.variables)

    def results(self, sums: Array) -> Any:
        """The result of each of these sums of `contributions`."""
        return self.metric.results(sums)

    @property
    def is_sum(self) -> bool:
        """Whether the metric's state is a sum over the samples that it can tell apart."""
        return self._is_ours and self.metric.sums_over_samples

    def copy(self) -> Any:
        """The metric without what it has seen."""
        found = copy.deepcopy(self.metric)
        found.reset_state()
        return found

    @property
    def _is_ours(self) -> bool:
        """Whether it is known what the metric gathers, and where; a class of the user's may do as it likes."""
        return type(self.metric).__module__.startswith(metrics.__name__)

    def checkpoint(self) -> Callable[[], None]:
        """As an accumulator's."""
        if self._is_ours:
            return self.metric.checkpoint()  # type: ignore[no-any-return]
        return functools.partial(setattr, self, "metric", copy.deepcopy(self.metric))

    def merge(self, other: MetricFold) -> None:
        """Take in all that `other`, of the same metric, has seen."""
        self.metric.merge_state(other.metric)

    def result(self) -> Any:
        """The metric's result: a float, or an array."""
        found = self.metric.result()
        return float(found) if np.ndim(found) == 0 else found


class _Sum:
    """A sum and what rounding has taken from it: right to the last bit or two however many are added."""

    def __init__(self, high: float = 0.0, low: float = 0.0) -> None:
        self.high, self.low = high, low

    @property
    def value(self) -> float:
        return self.high + self.low

    def scale(self, exponent: int) -> None:
        """Multiply by 2^exponent, exponent <= 0."""
        if exponent:
            self.high, self.low = math.ldexp(self.high, exponent), math.ldexp(self.low, exponent)

    def add(self, x: float, rest: float = 0.0) -> None:
        """Add x + rest."""
        total = self.high + x
        if math.isfinite(total):
            large, small = (self.high, x) if abs(self.high) >= abs(x) else (x, self.high)
            self.low += (large - total) + small + rest
        self.high = total


def suited(t: Array, p: Array) -> list[tuple[str, str, dict[str, Any]]]:
    """What to compute of such data if nothing is asked for: (loss or metric, name, options), by shapes and by values."""
    family = family_of(t, p)
    if not family:
        return [("metric", "accuracy", {})]
    logits: dict[str, Any] = {} if probabilities(p) else {"from_logits": True}
    if family == "sparse_categorical_" or family == "categorical_" and one_hot(t):
        k = 5 if p.shape[-1] > 10 else 3
        best = [("metric", f"{family.replace('categorical_', 'top_k_categorical_')}accuracy", {"k": k})] if p.shape[-1] > k else []
        return [("loss", f"{family}crossentropy", logits), ("metric", "accuracy", {}), *best]
    if ((t == 0) | (t == 1)).all():
        return [("loss", "binary_crossentropy", logits), ("metric", "binary_accuracy", {"threshold": 0.0} if logits else {})]
    return [("loss", "mean_squared_error", {}), ("metric", "mean_absolute_error", {})]


def family_of(t: Array, p: Array) -> str:
    """What Keras' compile puts before "accuracy" and "crossentropy", by the shapes; nothing where y_pred holds class numbers."""
    if p.ndim == 1 or p.shape[-1] == 1:
        whole = p.dtype.kind in "biu" or bool((p == np.floor(p)).all() and (p > 1).any())
        return "" if whole and t.size == p.size else "binary_"
    if t.ndim < p.ndim or t.shape[-1] == 1:
        return "sparse_categorical_"
    return "categorical_"


def probabilities(p: Array) -> bool:
    """Whether these may be probabilities: within [0, 1], but for what half precision rounds."""
    return not ((p < -1e-3) | (p > 1 + 1e-3)).any()


def one_hot(t: Array) -> bool:
    """Whether each row has one 1, and 0 else."""
    return bool(((t == 0) | (t == 1)).all() and (t.sum(axis=-1) == 1).all())


def _several(functions: Any) -> list[Any]:
    one = isinstance(functions, str) or callable(functions)
    if isinstance(functions, tuple) and len(functions) == 2 and isinstance(functions[1], Mapping):
        one = True
    return [functions] if one else list(functions or ())


def _pair(function: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(function, losses.LossFunctionWrapper):  # what its defaults say need not be in its label
        defaults: Any = getattr(function.fn, "defaults", {})
        return function.fn, {name: x for name, x in function.options.items() if not np.array_equal(x, defaults.get(name))}
    return (function[0], dict(function[1])) if isinstance(function, tuple) else (function, {})


def _find(kind: str, function: Any, family: str) -> Any:
    if isinstance(function, str):
        lowered = function.lower()
        if kind == "metric" and lowered in ("accuracy", "acc"):
            function = f"{family}accuracy"
        elif lowered in ("crossentropy", "ce"):
            function = f"{family or 'binary_'}crossentropy"
        other = "metric" if kind == "loss" else "loss"
        if function not in SPELLINGS[kind] and function in SPELLINGS[other]:
            raise ValueError(f"{function!r} is a {other}, not a {kind}")
        registry: Any = losses.REGISTRY if kind == "loss" else metrics.REGISTRY
        of_data = kind == "metric" and find(kind, function) not in registry.functions
        function = registry.find(function) if of_data else registry.function(function)
    if kind == "metric" and _is_metric(function):
        of_values = isinstance(function, (metrics.Mean, metrics.Sum)) and not isinstance(function, metrics.MeanMetricWrapper)
        if of_values or function in (metrics.Metric, metrics.Mean, metrics.Sum, metrics.MeanMetricWrapper):
            raise ValueError(f"{_name(function)} is not a metric of labels and predictions")
        return function
    if not hasattr(function, "defaults"):
        raise TypeError(f"a {kind} must be a string or a function of lossfuncs, got {function!r}")
    return function


def _is_metric(x: Any) -> bool:
    return isinstance(x, metrics.Metric) or isinstance(x, type) and issubclass(x, metrics.Metric)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", None) or function.name)


def _defaults(function: Any) -> dict[str, Any]:
    """The options of a function or metric class with their defaults; an instance has its options already."""
    if not isinstance(function, type):
        return getattr(function, "defaults", {})
    parameters = inspect.signature(function).parameters.values()
    return {p.name: REQUIRED if p.default is p.empty else p.default for p in parameters
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("name", "dtype")}  # fmt: skip


def _label(function: Any, options: Mapping[str, Any]) -> str:
    name = function if isinstance(function, str) else _name(function)
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" if options else name
