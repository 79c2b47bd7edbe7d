"""Keras' `compile`: losses and metrics for one output or several, named and resolved as Keras does, gathered over batches.

    model = lossfuncs.compile(loss={"box": "huber", "kind": "ce"}, loss_weights={"box": 1.0, "kind": 0.5}, metrics={"kind": ["acc"]})
    model.evaluate({"box": boxes, "kind": kinds}, {"box": predicted_boxes, "kind": predicted_kinds})
    # {"loss": ..., "box_loss": ..., "kind_loss": ..., "kind_acc": ...}

What "accuracy" means, and for which output, only the first batch tells: until then nothing is built but what was asked for is checked.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from . import losses, metrics
from .call import Call, is_float
from .evaluate import Accumulator, Progress, batches
from .losses import Loss, LossFunctionWrapper
from .metrics import Mean, MeanMetricWrapper, Metric, Sum
from .names import SPELLINGS, find
from .options import number, shown
from .serialization import identity, snake_case
from .structures import Path, is_nested, leaves, with_leaves

Batch: TypeAlias = tuple[Any, Any, Any, Any]  # y_true, y_pred, sample_weight, mask of one output

RULES = ("keras-3", "keras-2.2.4")
BY_SHAPE = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy", "ce": "crossentropy"}


def compile(
    loss: Any = None,
    metrics: Any = None,
    weighted_metrics: Any = None,
    loss_weights: Any = None,
    sample_weight_mode: Any = None,
    output_names: Sequence[str] | None = None,
    rules: str = "keras-3",
) -> Compiled:
    """What `keras.Model.compile` makes of losses and metrics, for predictions that are there already.

    The outputs are y_pred: one array, or a dict, list or tuple of arrays, nested at will. They are called output_names, in their order;
    or else by the keys that lead to them, and output_1, output_2, ... in a list. A plain dict is in the order of its sorted keys, as in
    Keras, unless output_names says otherwise.

    loss: a string, function, class, instance or configuration, as `losses.get` takes it, for all outputs; a list with one for each
    output; a dict by the outputs' names; or the structure of y_pred. None switches an output off. The total, "loss", is the sum of
    loss_weights (a number, or shaped as loss) times the losses; of several losses each is there too, unweighted, as "<output>_loss".

    metrics, weighted_metrics: for one output a list of what `metrics.get` takes, and of losses and functions of your own, of which the
    mean is taken. For several outputs a list with an entry (a metric, a list of them, None) for each, a dict by their names, or the
    structure of y_pred. Only weighted_metrics and losses see sample weights. Instances are copied.

    "accuracy" and "acc", "crossentropy" and "ce" mean the function that suits the output. rules says how:

    - "keras-3": binary, where y_pred's last axis has one element; sparse, where y_true has fewer axes or an axis of one element at the
      end; or else categorical. The strings may be in any case. A metric is named by its string as typed, or by its own name; a second of
      one name gets _1, a weighted one "weighted_" first.
    - "keras-2.2.4": binary, where the last axis has one element or the loss is binary_crossentropy; sparse, where the loss is; or else
      categorical. Metrics are named acc, ce, or by their functions, with "weighted_" for weighted ones, and a list of metrics is for
      every output. Weighted means are over the values whose weight is not 0.

    Of one-dimensional predictions each number is a sample; "accuracy" is binary there, or equality where they are integers.

    sample_weight_mode: "temporal" wants weights (samples, steps), None weights of any shape that fits, under "keras-2.2.4" only
    (samples,); one for all outputs, or one for each, as with loss.

    ValueError for what is not understood, at once where the outputs do not matter, else with the first batch.
    """
    return Compiled(loss, metrics, weighted_metrics, loss_weights, sample_weight_mode, output_names, rules)


class Compiled:
    """Losses and metrics over batches; see `compile`, which makes it.

    The results are those of all samples in one batch, whatever the batches, and whatever was merged; but for losses of your own and circle
    that compare the samples of a batch with one another.
    """

    def __init__(
        self, loss: Any, metrics: Any, weighted_metrics: Any, loss_weights: Any, sample_weight_mode: Any, output_names: Any, rules: str
    ) -> None:
        if rules not in RULES:
            raise ValueError(f"rules must be one of {', '.join(map(repr, RULES))}, got {shown(rules)}")
        for argument, x in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if x is not None and not isinstance(x, (list, tuple, dict)):
                raise ValueError(f"{argument} must be a list, tuple or dict, got {shown(x)}")
        if output_names is not None and (
            not isinstance(output_names, (list, tuple))
            or not all(isinstance(name, str) for name in output_names)
            or len(set(output_names)) < len(output_names)
        ):
            raise ValueError(f"output_names must be a list of different strings, got {shown(output_names)}")
        self.rules, self.output_names = rules, output_names
        self.rows = 0
        self._old = rules == "keras-2.2.4"
        self._loss = _each(_Loss, loss)
        self._metrics, self._weighted = _each(_Metric, metrics), _each(_Metric, weighted_metrics)
        self._weights = _each(lambda x: number("loss_weights", x), loss_weights)
        self._modes = _each(_mode, sample_weight_mode)
        self._outputs: list[_Output] = []
        self._named: list[tuple[str, Metric]] = []
        self._state = _State(())

    def __repr__(self) -> str:
        return f"<Compiled {', '.join(self.metrics_names)}: {self.rows} rows>" if self._outputs else "<Compiled: no rows yet>"

    @property
    def metrics(self) -> list[Metric]:
        """The metric objects, in the order of their results; none before the first batch."""
        return [metric for _, metric in self._named]

    @property
    def metrics_names(self) -> list[str]:
        """The keys of the result; none before the first batch."""
        losses = [label for label, _, _ in self._losses(self._outputs)]
        each = losses if self._tells_each_loss(self._outputs) else []
        return ["loss"] * bool(losses) + each + [label for label, _ in self._named]

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch. A bad one raises, and leaves nothing behind in the state of losses and metrics.

        y_true: shaped as y_pred, by the outputs' names, or a list in their order; what no loss or metric asks for may be missing.
        sample_weight, mask: one array for all outputs, or for each as y_true. See `losses.Loss` for their shapes and the default mask.
        ValueError for data that do not fit the outputs, and what losses and metrics raise.
        """
        outputs, batches = self._resolved(y_true, y_pred, sample_weight, mask)
        restore = self._state.checkpoint()
        try:
            for output, batch in zip(outputs, batches, strict=True):
                with self._naming(output):
                    output.update(*batch, self._old)
        except BaseException:
            restore()
            if not self.rows:  # what the batch made is not known to `restore`
                self.reset()
            raise
        self._keep(outputs)
        self.rows += np.shape(batches[0][1])[0]

    def value_and_grad(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> tuple[float, Any]:
        """The total loss of a batch and its gradient by y_pred, in y_pred's structure; it does not count in `result`.

        Of an output without a loss the gradient is 0. NotImplementedError for a loss of your own without a value_and_grad.
        """
        outputs, batches = self._resolved(y_true, y_pred, sample_weight, mask)
        total, gradients = 0.0, {}
        for output, (t, p, w, kept) in zip(outputs, batches, strict=True):
            with self._naming(output):
                output.check_weights(w, self._old)
                value, gradients[output.path] = output.value_and_grad(t, p, w, kept)
                total += output.weight * value
        self._keep(outputs)
        return total, with_leaves(y_pred, gradients)

    def _resolved(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> tuple[list[_Output], list[Batch]]:
        """The outputs, which the first batch tells, and the arrays of each."""
        outputs = self._outputs or self._describe([path for path, _ in leaves(y_pred)])
        batches = self._of_outputs(outputs, y_true, y_pred, sample_weight, mask)
        if not self._outputs:
            for output, (t, p, _, _) in zip(outputs, batches, strict=True):
                if output.asked:
                    output.build(_family(t, p, output.loss, self._old), self._old)
        return outputs, batches

    def _keep(self, outputs: list[_Output]) -> None:
        """After a batch that was good."""
        if not self._outputs:
            self._outputs, self._named = outputs, self._labelled(outputs)
        if not self.rows:  # some variables are made with the first data
            self._state = _State(fold.metric for output in outputs for fold in output.folds)

    @contextlib.contextmanager
    def _naming(self, output: _Output) -> Iterator[None]:
        """Say which output an error is about, where there are several."""
        try:
            yield
        except (TypeError, ValueError) as error:
            if (self.output_names or output.path) and type(error) in (TypeError, ValueError):
                raise type(error)(f"output {output.name!r}: {error}") from None
            raise

    def _of_outputs(self, outputs: list[_Output], y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> list[Batch]:
        """The arrays of each output."""
        if len(outputs) == 1 and not outputs[0].path and type(y_true) is type(y_pred) is np.ndarray and sample_weight is mask is None:
            return [(y_true, y_pred, None, None)]
        arrived = dict(leaves(y_pred))
        if arrived.keys() != {output.path for output in outputs}:
            raise ValueError(f"y_pred must have the outputs of the batches before it, {_names(outputs)}")
        targets = _split("y_true", self._of_those_with_a_loss(y_true, outputs), outputs, is_nested)
        for output, t in zip(outputs, targets, strict=True):
            if t is None and output.asked:
                raise ValueError(f"y_true has nothing for output {output.name!r}")
        weights, masks = (
            _split(name, x, outputs, is_nested) if is_nested(x) else [x] * len(outputs)
            for name, x in (("sample_weight", sample_weight), ("mask", mask))
        )
        return list(zip(targets, [arrived[output.path] for output in outputs], weights, masks, strict=True))

    def result(self) -> dict[str, Any]:
        """The losses and metrics so far, under Keras' names: the total loss, the outputs' losses, metrics, weighted metrics.

        ValueError before the first batch.
        """
        if not self._outputs:
            raise ValueError("there is no result before the first batch")
        found: dict[str, Any] = {}
        values = {label: (weight, float(fold.metric.result())) for label, weight, fold in self._losses(self._outputs)}
        if values:
            found["loss"] = sum(weight * value for weight, value in values.values())
            if self._tells_each_loss(self._outputs):
                found |= {label: value for label, (_, value) in values.items()}
        for label, metric in self._named:
            value = metric.result()
            found[label] = value if isinstance(value, dict) or np.ndim(value) else float(value)
        return found

    def reset(self) -> None:
        """Forget all batches, but not what the first one told of the outputs."""
        self.rows = 0
        for output in self._outputs:
            for fold in output.folds:
                fold.metric.reset_state()

    def merge(self, others: Compiled | Iterable[Compiled]) -> None:
        """Take in all that the others, compiled with the same arguments, have seen. ValueError if they differ in outputs or metrics."""
        others = list(others) if isinstance(others, Iterable) else [others]
        for other in others:
            if not isinstance(other, Compiled) or other.rules != self.rules:
                raise ValueError(f"others must be compiled with the arguments of this one, got {shown(other)}")
        others = [other for other in others if other._outputs]
        if others and not self._outputs:
            self._outputs, self._named, self._state = copy.deepcopy((others[0]._outputs, others[0]._named, others[0]._state))
            self.reset()
        for other in others:
            if other._identity() != self._identity():
                raise ValueError(f"others must have the outputs, losses and metrics of this one, {shown(self)}, got {shown(other)}")
        for other in others:
            for mine, its in zip(self._outputs, other._outputs, strict=True):
                for fold, same in zip(mine.folds, its.folds, strict=True):
                    fold.metric.merge_state([same.metric])
            self.rows += other.rows

    def evaluate(
        self, y_true: Any, y_pred: Any = None, sample_weight: Any = None, *, batch_size: int | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """`result` of these data, and of nothing that was seen before.

        y_true, y_pred and sample_weight are what `update` takes, of arrays, memory maps or paths of files as `lossfuncs.evaluate` has
        them; or y_true alone is an iterable of batches (y_true, y_pred) or (y_true, y_pred, sample_weight). batch_size: rows at a time,
        by default 4 MB. progress(rows done, rows in all or None) is called after each batch. ValueError where there are no rows.
        """
        self.reset()
        for batch, total in batches(y_true, y_pred, sample_weight, batch_size, nested=True):
            try:
                self.update(*batch)
            except ValueError as error:  # a row of this batch is named: say which one of the data it is
                raise ValueError(re.sub(r"y_true\[(\d+)", lambda at: f"y_true[{self.rows + int(at[1])}", str(error), count=1)) from None
            if progress:
                progress(self.rows, total)
        if not self.rows:
            raise ValueError("there is nothing to evaluate: the data have no rows")
        return self.result()

    def _identity(self) -> list[Any]:
        return [(output.path, [(type(fold.metric), fold.metric._identity()) for fold in output.folds]) for output in self._outputs]

    def _describe(self, paths: list[Path]) -> list[_Output]:
        """The outputs of a first batch: their names, and what is asked of each."""
        if not paths:
            raise ValueError("y_pred holds no arrays")
        names = self.output_names
        flat = all(len(path) <= 1 for path in paths)
        keyed = flat and bool(paths[0]) and not isinstance(paths[0][0], int)
        if names is not None:
            if len(names) != len(paths):
                raise ValueError(f"output_names has {len(names)} names, but y_pred has {len(paths)} outputs")
            if keyed and {path[0] for path in paths} == set(names):
                paths = [(name,) for name in names]
        outputs = []
        for i, path in enumerate(paths):
            name = str(path[0]) if keyed else names[i] if names else f"output_{i + 1}" if flat else "/".join(map(str, path))
            last = path[-1] if path and not isinstance(path[-1], int) else name
            loss_name = "/".join(map(str, (*path[:-1], last))) if names else name
            outputs.append(_Output(path, name, loss_name, bool(keyed or names)))
        wanted = _split("loss", self._loss, outputs, _is_spec, each=True)
        weights = _split("loss_weights", self._weights, outputs, _is_spec, each=True)
        modes = _split("sample_weight_mode", self._modes, outputs, _is_spec, each=True)
        complete = isinstance(self._loss, dict) and flat and not keyed and not self._old and len(outputs) > 1
        for output, loss, weight, mode in zip(outputs, wanted, weights, modes, strict=True):
            if complete and output.name not in self._loss:
                raise ValueError(f"loss has nothing for output {output.name!r}; None would switch it off")
            if loss is not None and weight is None and self._weights is not None and not self._old:
                raise ValueError(f"loss_weights has nothing for output {output.name!r}")
            output.loss, output.weight, output.mode = loss, 1.0 if weight is None else weight, mode
        for argument, x, weighted in (("metrics", self._metrics, False), ("weighted_metrics", self._weighted, True)):
            for output, asked in zip(outputs, self._metrics_of_each(argument, x, outputs), strict=True):
                output.wanted += [(one, weighted) for one in asked]
        return outputs

    def _metrics_of_each(self, argument: str, x: Any, outputs: list[_Output]) -> list[list[_Metric]]:
        if len(outputs) == 1:
            known = {outputs[0].name, *outputs[0].path}
            if isinstance(x, dict) and (self.output_names or outputs[0].path) and not x.keys() <= known:
                raise ValueError(f"{argument} has {shown(list(x))}, but the output is {outputs[0].name!r}")
            each = [x]
        elif self._old and isinstance(x, (list, tuple)):
            each = [x] * len(outputs)
        else:
            each = _split(argument, x, outputs, _is_spec)
        found = [[] if one is None else list(_flat(one)) for one in each]
        if any(None in one for one in found):
            raise ValueError(f"{argument} holds None where a metric should be")
        return found

    def _of_those_with_a_loss(self, y_true: Any, outputs: list[_Output]) -> Any:
        """A list of targets for the outputs with a loss only, with None for the others."""
        lossy = [output for output in outputs if output.loss]
        if is_nested(y_true) and not isinstance(y_true, dict) and len(y_true) == len(lossy) < len(outputs):
            targets = iter(y_true)
            return [next(targets) if output.loss else None for output in outputs]
        return y_true

    def _losses(self, outputs: list[_Output]) -> Iterator[tuple[str, float, _Fold]]:
        return ((f"{output.loss_name}_loss", output.weight, output.fold) for output in outputs if output.fold)

    def _tells_each_loss(self, outputs: list[_Output]) -> bool:
        return len(outputs) > 1 and (self._old or sum(output.fold is not None for output in outputs) > 1)

    def _labelled(self, outputs: list[_Output]) -> list[tuple[str, Metric]]:
        """The metrics under their names in the result."""
        taken = {"loss", *(label for label, _, _ in self._losses(outputs) if self._tells_each_loss(outputs))}
        folds = [(output, fold) for output in outputs for fold in output.folds if fold is not output.fold]
        if not self._old:
            folds.sort(key=lambda one: one[1].weighted)
        labelled = []
        for output, fold in folds:
            prefix = f"{output.name}_" if len(outputs) > 1 else ""
            again = f"{prefix}weighted_{fold.metric.name}" if fold.weighted else f"{prefix}{fold.metric.name}"
            label = again if self._old else f"{prefix}{fold.metric.name}"
            numbered = itertools.chain([label, again], (f"{again}_{k}" for k in itertools.count(1)))
            label = next(one for one in numbered if one not in taken)
            taken.add(label)
            labelled.append((label, fold.metric))
        return labelled


class _State:
    """What metrics hold, to be put back if a batch is bad."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        ordinary: list[Metric] = []
        self._others: list[Metric] = []
        for metric in metrics:
            (ordinary if type(metric).checkpoint is Metric.checkpoint else self._others).append(metric)
        self._variables = [variable for metric in ordinary for variable in metric.variables]

    def checkpoint(self) -> Callable[[], None]:
        """A function that puts all back to what it is now."""
        kept = [(v, v.kept()) for v in self._variables]
        restores = [metric.checkpoint() for metric in self._others]

        def restore() -> None:
            for variable, held in kept:
                variable.restore(*held)
            for one in restores:
                one()

        return restore


@dataclass
class _Fold:
    """A loss or metric of one output."""

    metric: Metric
    weighted: bool = True
    takes_mask: bool = True


@dataclass
class _Output:
    """One array of y_pred, and what is computed of it."""

    path: Path  # in y_pred
    name: str
    loss_name: str
    named: bool  # by the user
    loss: _Loss | None = None
    weight: float = 1.0
    mode: str | None = None
    wanted: list[tuple[_Metric, bool]] = field(default_factory=list)
    fold: _Fold | None = None  # of the loss
    folds: list[_Fold] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        return self.loss is not None or bool(self.wanted)

    def build(self, family: str, old: bool) -> None:
        """Resolve what depends on the shapes."""
        if self.loss is not None:
            loss, function = self.loss.of(family)
            of_all = isinstance(loss, LossFunctionWrapper) and "axis" in getattr(loss.fn, "defaults", {})
            of_all = of_all and {**loss.fn.defaults, **loss.options}["axis"] is None  # type: ignore[attr-defined]
            self.fold = _Fold(_OfAll(loss) if of_all else _Total(loss, nonzero=old and function))
            self.folds.append(self.fold)
        for wanted, weighted in self.wanted:
            metric = wanted.of(family, old)
            takes_mask = "mask" in inspect.signature(metric.update_state).parameters
            self.folds.append(_Fold(metric, weighted, takes_mask))

    def check_weights(self, sample_weight: Any, old: bool) -> None:
        """ValueError for weights that sample_weight_mode does not allow."""
        if sample_weight is not None and (self.mode or old) and np.ndim(sample_weight) != (2 if self.mode else 1):
            wanted = "(samples, steps)" if self.mode else "(samples,), unless sample_weight_mode is 'temporal'"
            raise ValueError(f"sample_weight must have shape {wanted}, got shape {np.shape(sample_weight)}")

    def value_and_grad(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> tuple[float, Any]:
        """The loss of a batch, and the gradient of the loss times its weight."""
        if self.fold is None:
            p = np.asarray(y_pred)
            return 0.0, np.zeros(p.shape, p.dtype if is_float(p.dtype) else np.float64)
        total = self.fold.metric
        assert isinstance(total, (_Total, _OfAll))
        loss = total.loss
        by_values = isinstance(total, _Total) and total.nonzero and sample_weight is not None
        if loss.reduction not in (None, "none") and not by_values:
            return loss.value_and_grad(y_true, y_pred, sample_weight, self.weight, mask=mask)
        summed, (_, count) = copy.copy(loss), loss.sum_and_count(y_true, y_pred, sample_weight, mask=mask, nonzero=by_values)
        summed.reduction = "sum"
        share = 1.0 / count if count else 0.0
        value, gradient = summed.value_and_grad(y_true, y_pred, sample_weight, self.weight * share, mask=mask)
        return value * share, gradient

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any, old: bool) -> None:
        """Take in a batch."""
        self.check_weights(sample_weight, old)
        if mask is None and sample_weight is None:
            metrics.update_state([fold.metric for fold in self.folds], y_true, y_pred)
            return
        if mask is None:
            for weighted, weights in ((True, sample_weight), (False, None)):
                metrics.update_state([fold.metric for fold in self.folds if fold.weighted == weighted], y_true, y_pred, weights)
            return
        for fold in self.folds:
            weights = sample_weight if fold.weighted else None
            options = {}
            if mask is not None and fold.takes_mask:
                options["mask"] = mask
            elif mask is not None:
                weights = _masked(weights, mask)
            if weights is not None:
                options["sample_weight"] = weights
            fold.metric.update_state(y_true, y_pred, **options)


class _Total(Metric):
    """What a loss is over all batches."""

    def __init__(self, loss: Loss, nonzero: bool = False) -> None:
        super().__init__(name=loss.name)
        self.loss, self.nonzero = loss, nonzero
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        total, count = self.loss.sum_and_count(y_true, y_pred, sample_weight, mask=mask, nonzero=self.nonzero)
        self.total.assign_add(total)
        self.count.assign_add(count)

    def wanted_total(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> Call | None:
        if mask is not None or not isinstance(self.loss, LossFunctionWrapper):
            return None
        return self.loss.wanted_total(y_true, y_pred, sample_weight)

    def take_total(self, call: Call, total: float, y_true: Any, y_pred: Any) -> None:
        assert isinstance(self.loss, LossFunctionWrapper)
        self.total.assign_add(total)
        self.count.assign_add(self.loss.count_of(call, self.nonzero))

    def result(self) -> Any:
        total, count = self.total.value, self.count.value
        if self.loss.reduction == "sum":
            return total
        return total / count if count else np.float64(0.0)

    def _identity(self) -> Any:
        return identity(self.loss)


class _OfAll(Metric):
    """A loss that is one number for all data, as dice: its terms add up over batches, its values do not."""

    def __init__(self, loss: Loss) -> None:
        assert isinstance(loss, LossFunctionWrapper)
        super().__init__(name=loss.name)
        self.loss = loss
        self.reset_state()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        if mask is not None or getattr(y_pred, "_keras_mask", None) is not None:
            raise ValueError(f"{self.name} is one number for all data, so that a mask has nothing to leave out: with an axis, as axis=-1, "
                             "it is one for each sample")  # fmt: skip
        t, p = self.loss._arrays(y_true, y_pred)
        self._sum.update(np.asarray(t), np.asarray(p), sample_weight)

    def result(self) -> Any:
        return np.float64(self._sum.result())

    def reset_state(self) -> None:
        self._sum = Accumulator(self.loss.fn, self.loss.options)

    def checkpoint(self) -> Callable[[], None]:
        kept = copy.deepcopy(self._sum)
        return lambda: setattr(self, "_sum", kept)

    def _absorb(self, other: Metric) -> None:
        assert isinstance(other, _OfAll)
        self._sum.merge(other._sum)

    def _identity(self) -> Any:
        return identity(self.loss)


class _Loss:
    """A loss as it was asked for, resolved but for what the shapes decide."""

    def __init__(self, identifier: Any) -> None:
        self.by_shape = BY_SHAPE.get(identifier.lower()) if isinstance(identifier, str) else None
        if self.by_shape == "accuracy":
            raise ValueError(f"{identifier!r} is a metric, not a loss")
        self.identifier = identifier
        self.found = None if self.by_shape else losses.get(identifier)
        if isinstance(self.found, Metric):
            raise ValueError(f"loss must be a loss, got the metric {shown(identifier)}")

    def __repr__(self) -> str:
        return repr(self.identifier)

    def of(self, family: str) -> tuple[Loss, bool]:
        """The loss, and whether it was a function."""
        found: Any = losses.REGISTRY.functions[f"{family or 'binary_'}crossentropy"] if self.by_shape else self.found
        if isinstance(found, Loss):
            return found, False
        return LossFunctionWrapper(found, name=self.identifier if isinstance(self.identifier, str) else _name(found)), True

    @property
    def function(self) -> Any:
        """The function of two arrays behind it."""
        return getattr(self.found, "fn", self.found)


class _Metric:
    """A metric as it was asked for, resolved but for what the shapes decide."""

    def __init__(self, identifier: Any) -> None:
        self.by_shape = BY_SHAPE.get(identifier.lower()) if isinstance(identifier, str) else None
        self.identifier = identifier
        self.found = None if self.by_shape else metrics.get(identifier)
        if isinstance(self.found, Metric) and type(self.found).update_state in (Mean.update_state, Sum.update_state):
            raise ValueError(f"{shown(identifier)} is not a metric of labels and predictions")
        if isinstance(identifier, type) and isinstance(self.found, Metric):
            name = snake_case(identifier.__name__)  # without the number that the process gives its objects
            self.found.name = re.sub(rf"^{name}_\d+$", name, self.found.name)

    def __repr__(self) -> str:
        return repr(self.identifier)

    def of(self, family: str, old: bool) -> Metric:
        """The metric of one output, under its name."""
        found: Any = self._suited(family) if self.by_shape else copy.deepcopy(self.found)
        name = self.identifier if isinstance(self.identifier, str) else _name(found)
        as_function = old and not isinstance(found, Metric)
        if old and isinstance(self.identifier, str):
            name = self._old_name()
            as_function |= self.by_shape is not None or SPELLINGS["metric"][self.identifier].forms[0] == "f"
        if isinstance(found, LossFunctionWrapper) and found._fused:
            found = MeanMetricWrapper(found.fn, name, **found.options)
        elif isinstance(found, Loss):
            found.reduction = None
        if not isinstance(found, Metric):
            found = MeanMetricWrapper(found, name)
        if as_function and isinstance(found, MeanMetricWrapper):
            found = _Total(LossFunctionWrapper(found._fn, name=name, **found._kwargs), nonzero=True)
        found.name = name
        found.reset_state()
        return found  # type: ignore[no-any-return]

    def _suited(self, family: str) -> Metric:
        family = family if self.by_shape == "accuracy" else family or "binary_"
        cls: type[Metric] = metrics.REGISTRY.find(f"{family}{self.by_shape}")
        return cls()

    def _old_name(self) -> str:
        """What Keras 2.2.4 calls the metric of this string: acc, ce, or its function."""
        if self.by_shape:
            return "acc" if self.by_shape == "accuracy" else "ce"
        canonical = find("metric", self.identifier)
        names = [name for name, spelling in SPELLINGS["metric"].items() if spelling.name == canonical and spelling.forms[0] == "f"]
        functions = [name for name in names if name.islower()]
        return max(functions, key=len) if functions else _name(self.found)


def _family(y_true: Any, y_pred: Any, loss: _Loss | None, old: bool) -> str:
    """What stands before "accuracy" and "crossentropy" here: binary_, sparse_categorical_, categorical_, or nothing for classes."""
    t, p = np.shape(y_true), np.shape(y_pred)
    if len(p) < 2:
        return "" if np.asarray(y_pred).dtype.kind in "iu" else "binary_"
    function = loss.function if old and loss is not None else None
    if p[-1] == 1 or function is losses.binary_crossentropy:
        return "binary_"
    if old:
        return "sparse_categorical_" if function is losses.sparse_categorical_crossentropy else "categorical_"
    return "sparse_categorical_" if len(t) < len(p) or t[-1] == 1 else "categorical_"


def _name(x: Any) -> str:
    """Keras' name of an object or function."""
    name = getattr(x, "name", None)
    if isinstance(name, str):
        return name
    return snake_case(re.sub(r"\W+", "", getattr(x, "__name__", None) or type(x).__name__))


def _masked(sample_weight: Any, mask: Any) -> Any:
    """Weights for a metric that takes no mask."""
    kept = np.asarray(mask) != 0
    if sample_weight is None:
        return kept.astype(np.float64)
    w = np.asarray(sample_weight, np.float64)
    axes = max(kept.ndim, w.ndim)
    kept, w = (x.reshape(x.shape + (1,) * (axes - x.ndim)) for x in (kept, w))
    return np.where(kept, w, 0.0)


def _mode(x: Any) -> str:
    if x != "temporal":
        raise ValueError(f"sample_weight_mode must be None or 'temporal', got {shown(x)}")
    return "temporal"


def _is_spec(x: Any) -> bool:
    """Whether x holds one entry or several, rather than being one: the configuration of a class is one."""
    return isinstance(x, (list, tuple)) or isinstance(x, dict) and "class_name" not in x


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    """x with f of every entry but None."""
    if not _is_spec(x):
        return None if x is None else f(x)
    return {key: _each(f, y) for key, y in x.items()} if isinstance(x, dict) else [_each(f, y) for y in x]


def _flat(x: Any) -> Iterator[Any]:
    """The entries of x."""
    if not _is_spec(x):
        yield x
        return
    for y in x.values() if isinstance(x, dict) else x:
        yield from _flat(y)


def _names(outputs: list[_Output]) -> str:
    return ", ".join(output.name for output in outputs)


def _split(
    argument: str, x: Any, outputs: list[_Output], is_nested: Callable[[Any], bool], depth: int = 0, each: bool = False
) -> list[Any]:
    """What x has for each output, None where it has nothing. each: what is not nested is for all."""
    if x is None or each and not is_nested(x):
        return [x] * len(outputs)
    if len(outputs) == 1 and (len(outputs[0].path) == depth or not is_nested(x)):
        if depth or not is_nested(x):
            return [x]
        if len(x) != 1:
            raise ValueError(f"{argument} must be for one output, as y_pred has no more, got {shown(x)}")
        name, one = next(iter(x.items() if isinstance(x, dict) else enumerate(x)))
        if isinstance(x, dict) and outputs[0].named and name != outputs[0].name:
            raise ValueError(f"{argument} must be for the output {outputs[0].name!r}, got {name!r}")
        return [one]
    groups: dict[Any, list[_Output]] = {}
    for output in outputs:
        groups.setdefault(output.path[depth], []).append(output)
    wanted = f"{argument} must be a dict or list for the outputs {_names(outputs)}"
    if isinstance(x, dict):
        if not depth and not x.keys() <= groups.keys():
            groups = {output.name: [output] for output in outputs}
            if x.keys() <= groups.keys():
                return [x.get(output.name) for output in outputs]
        if not x.keys() <= groups.keys():
            raise ValueError(f"{wanted}, got {shown(list(x))}")
        children = [x.get(key) for key in groups]
    elif isinstance(x, (list, tuple)) and len(x) == len(groups):
        children = list(x)
    elif isinstance(x, (list, tuple)) and not depth and len(x) == len(outputs) and not any(map(is_nested, x)):
        return list(x)
    else:
        raise ValueError(f"{wanted}, got {shown(x)}")
    parts = zip(children, groups.values(), strict=True)
    return [one for child, group in parts for one in _split(argument, child, group, is_nested, depth + 1, each)]
