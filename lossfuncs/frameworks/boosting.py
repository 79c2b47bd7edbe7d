"""Objectives and metrics for XGBoost, LightGBM and CatBoost, from any loss or metric by name.

    xgboost.train({"max_depth": 4}, data, obj=xgboost_objective("binary_focal_crossentropy", gamma=2.0))
    LGBMClassifier(objective=lightgbm_objective("binary_focal_crossentropy"))
    CatBoostClassifier(loss_function=catboost_objective("binary_focal_crossentropy"), eval_metric=catboost_metric("AUC"))

A booster's scores are any numbers. Losses that know `from_logits` read them as logits; of losses of positive predictions (poisson, mean
squared logarithmic error) the scores are the logarithms, and of other losses of distributions the softmax is taken. A pointwise loss is
taken of each score by itself, any other of a sample's scores together, of which there must be several: one for each class, or output.

Newton's method divides by the second derivative, which therefore must be positive. Where it is 0 and the slope is not (absolute error,
the arms of Huber's loss, hinge), the slope's size stands in for it, as in the boosters' own robust objectives; where it is less than
`min_hessian` (focal losses are not convex), that does. Of softmax losses without a second derivative it is the part that is never
negative: |slope| q at the label, |slope| (1 - q) elsewhere, with q the softmax; for cross-entropy that is all of it.

Nothing here imports a booster: these are plain callables of arrays. All of them can be pickled and copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import losses, metrics, names
from ..call import array, complete, plan
from ..derivatives import grad_and_hess, value_and_grad
from ..evaluate import Evaluation
from ..options import number
from ..problem import STRUCTURAL, Array
from ..table import LOSSES

MIN_HESSIAN = 1e-16  # that of XGBoost's own logistic objective

_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
# Of these less is better; among metrics, cosine_similarity is plus the cosine.
_FALLING = {entry.name for entry in LOSSES} - {"cosine_similarity"} | {"RootMeanSquaredError", "FalseNegatives", "FalsePositives"}


class Objective:
    """The gradient and second derivative of a loss by a booster's scores.

    objective(y_true, y_pred, sample_weight=None), as scikit-learn's interfaces of XGBoost and LightGBM call it, or
    objective(y_pred, data), as their own do, with labels and weights in `data`. Both give (gradient, second derivative), of y_pred's
    shape, times the weights. y_true holds numbers, or class numbers 0, 1, ... where the loss wants classes, one-hot or not.
    """

    def __init__(self, loss: Any, min_hessian: float = MIN_HESSIAN, **options: Any) -> None:
        self.function: Any = loss
        if isinstance(loss, str):
            self.function = losses.REGISTRY.function(loss)
        entry = getattr(self.function, "entry", None)
        if entry is None:
            raise TypeError(f"loss must be a string or a function of lossfuncs, got {type(loss).__name__}")
        self.__name__ = str(self.function.__name__)
        self.min_hessian = number("min_hessian", min_hessian, 0.0)
        self.link = ""
        if "from_logits" in self.function.defaults:
            options = {"from_logits": True, **options}
        elif entry.predictions == "positive":
            self.link = "exp"
        elif entry.predictions == "distribution":
            self.link = "softmax"
        elif entry.predictions != "real":
            raise ValueError(f"{self.__name__} is no loss of a booster's scores: it wants y_pred to hold {entry.predictions}")
        self.options = options
        maths = {name: x for name, x in complete(self.function, options).items() if name not in STRUCTURAL}
        if entry.labels01:
            maths["converted"] = True
        if not isinstance(maths.get("alpha", 1.0), float):  # one for each class, which the call sees to
            maths["alpha"] = 1.0
        rows, _ = plan(entry, 2, maths)
        self.pointwise = rows.pointwise and entry.predictions != "distribution"
        self.has_curve = rows.curve is not None and self.link != "softmax"

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Array, Array]:
        if hasattr(y_pred, "get_label"):
            y_pred, y_true, sample_weight = _unpacked(y_true, y_pred)
        given = array("y_pred", y_pred)
        t, scores = _shaped(array("y_true", y_true), given if given.dtype == np.float32 else given.astype(np.float64))
        if scores.ndim == 2 and t.ndim == 1 and self.function.entry.targets in ("one-hot", "binary"):
            t = _one_hot(t, scores.shape[1])
        if self.pointwise:
            g, h = (x[..., 0] for x in self._derivatives(t[..., None], scores[..., None], sample_weight))  # each a row of its own
        elif scores.ndim != 2 or scores.shape[1] < 2:
            raise ValueError(f"{self.__name__} needs a score for each class, y_pred of shape (samples, classes), got {given.shape}: "
                             "tell the booster the number of classes")  # fmt: skip
        else:
            g, h = self._derivatives(t, scores, sample_weight)
            h = h * self._caution(scores.shape[1])
        return _as_given(g, given), _as_given(h, given)

    def _caution(self, classes: int) -> float:
        """What the second derivatives of losses of several scores are multiplied by, as a diagonal alone says too little."""
        return 1.0

    def _derivatives(self, t: Array, scores: Array, w: Any) -> tuple[Array, Array]:
        p = scores
        if self.link == "exp":
            p = _exp(scores)
        elif self.link == "softmax":
            p = _softmax(scores)
        if self.has_curve:
            g, h = grad_and_hess(self.function, t, p, sample_weight=w, reduction="sum", **self.options)
            if self.link == "exp":
                g, h = p * g, p * p * h + p * g
        else:
            _, g = value_and_grad(self.function, t, p, sample_weight=w, **self.options)
            if self.link == "softmax":
                g = p * (g - np.sum(p * g, axis=-1, keepdims=True))
            h = np.zeros_like(g)
            if self.function.entry.predictions == "distribution":
                q = _softmax(scores)
                y = (_one_hot(t, q.shape[-1]) if t.ndim == 1 else t) > 0.5
                h = np.abs(g) * np.where(y, q, 1.0 - q)
        low = h < self.min_hessian
        if low.any():
            h[low] = np.maximum(np.where(h[low] == 0.0, np.abs(g[low]), h[low]), self.min_hessian)
        return g, h


class Score:
    """A metric or loss of a booster's scores, averaged over the samples.

    score(y_true, y_pred, sample_weight=None) or score(y_pred, data), as `Objective`; subclasses say what a booster wants to be given.
    raw: whether scores are as the trees sum them up, as boosters give them to metrics when the objective is a custom one. With an
    objective of their own it may be probabilities, and raw=False.
    """

    def __init__(self, metric: Any, raw: bool = True, **options: Any) -> None:
        self.metric, self.raw, self.options = metric, raw, options
        self.kind, self.__name__, falls = described(metric)
        self.rising = not falls
        self._asked(options)

    def value(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """The mean."""
        if hasattr(y_pred, "get_label"):
            y_pred, y_true, sample_weight = _unpacked(y_true, y_pred)
        t, p = _shaped(array("y_true", y_true), array("y_pred", y_pred))
        (one,) = self._asked(self.options)._resolved(t, p).values()
        function = getattr(getattr(one, "metric", None), "_fn", one.function)  # of a metric that is the mean of a function, that
        entry, options = getattr(function, "entry", None), self.options
        if self.raw and one.expects_probabilities:
            if "from_logits" in one.known and "from_logits" not in options:
                options = {**options, "from_logits": True}
            elif not options.get("from_logits"):
                p = _softmax(p) if p.ndim > 1 and p.shape[1] > 1 else 1.0 / (1.0 + _exp(-p))
        elif self.raw and entry is not None and entry.predictions == "positive":
            p = _exp(p)
        if p.ndim == 2 and t.ndim == 1 and (entry is None or entry.targets in ("one-hot", "binary")):
            t = _one_hot(t, p.shape[1])
        fold = self._asked(options)
        fold.update(t, p, sample_weight if np.size(sample_weight) and sample_weight is not None else None)
        (value,) = fold.result().values()
        if np.ndim(value):
            raise ValueError(f"{self.__name__} gives {np.size(value)} numbers, but a booster's metric is one")
        return float(value)

    def _asked(self, options: dict[str, Any]) -> Evaluation:
        asked = (self.metric, options) if options else self.metric
        return Evaluation(**{self.kind: [asked]})  # type: ignore[arg-type]


class XGBoostObjective(Objective):
    """See `xgboost_objective`."""

    def _caution(self, classes: int) -> float:
        return 2.0


class LightGBMObjective(Objective):
    """See `lightgbm_objective`."""

    def _caution(self, classes: int) -> float:
        return classes / (classes - 1)


class XGBoostMetric(Score):
    """See `xgboost_metric`."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        value = self.value(y_true, y_pred, sample_weight)
        return (self.__name__, value) if hasattr(y_pred, "get_label") else value


class LightGBMMetric(Score):
    """See `lightgbm_metric`."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[str, float, bool]:
        return self.__name__, self.value(y_true, y_pred, sample_weight), self.rising


class CatBoostObjective:
    """See `catboost_objective`."""

    no_jit = True  # CatBoost would try to compile the methods, and warn that it cannot

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def calc_ders_range(self, approxes: Any, targets: Any, weights: Any) -> list[tuple[float, float]]:
        """The derivatives of all samples, of one score each. CatBoost climbs: minus the loss's."""
        g, h = self.objective(np.asarray(targets), np.asarray(approxes, np.float64), None if weights is None else np.asarray(weights))
        return list(zip((-g).tolist(), (-h).tolist(), strict=True))

    def calc_ders_multi(self, approxes: Any, target: Any, weight: Any) -> tuple[list[float], list[list[float]]]:
        """The derivatives of one sample of several scores: a vector, and a matrix of which we know the diagonal."""
        t = np.asarray(target, np.float64)
        g, h = self.objective(t[None] if t.ndim else t.reshape(1), np.asarray(approxes, np.float64)[None], np.array([weight]))
        return (-g[0]).tolist(), np.diag(-h[0]).tolist()


class CatBoostMetric:
    """See `catboost_metric`."""

    no_jit = True

    def __init__(self, score: Score) -> None:
        self.score = score

    def is_max_optimal(self) -> bool:
        """Whether more is better."""
        return self.score.rising

    def evaluate(self, approxes: Any, target: Any, weight: Any) -> tuple[float, float]:
        """The sum over the samples, and their weight."""
        p = np.asarray(approxes, np.float64)
        t = np.asarray(target)
        w = None if weight is None else np.asarray(weight)
        value = self.score.value(t, p[0] if len(p) == 1 else np.ascontiguousarray(p.T), w)
        total = float(len(t)) if w is None else float(np.sum(w))
        return value * total, total

    def get_final_error(self, error: float, weight: float) -> float:
        """The mean."""
        return error / weight if weight else 0.0


def xgboost_objective(loss: str | Callable[..., Any], *, min_hessian: float = MIN_HESSIAN, **options: Any) -> XGBoostObjective:
    """For `xgboost.train(obj=)` and for `XGBClassifier(objective=)` and its siblings; see the module's text.

    loss: a string, or a function of `lossfuncs.losses` or one of your own; options are its own. Several classes need
    `num_class`, or as many targets; second derivatives are then doubled, as XGBoost's own softmax objective has them. ValueError for a
    loss that is none of single scores or of a row of them, and for a bad option.
    """
    return XGBoostObjective(loss, min_hessian, **options)


def lightgbm_objective(loss: str | Callable[..., Any], *, min_hessian: float = MIN_HESSIAN, **options: Any) -> LightGBMObjective:
    """For LightGBM's `params["objective"]` and `LGBMClassifier(objective=)` and its siblings; as `xgboost_objective`.

    Second derivatives of several scores are multiplied by classes / (classes - 1), as in LightGBM's own softmax objective.
    """
    return LightGBMObjective(loss, min_hessian, **options)


def catboost_objective(loss: str | Callable[..., Any], *, min_hessian: float = MIN_HESSIAN, **options: Any) -> CatBoostObjective:
    """For CatBoost's `loss_function=`, which wants an `eval_metric=` beside it; as `xgboost_objective`.

    Of several classes CatBoost asks for one sample at a time, which costs some 0.1 ms each, and for a whole second derivative,
    of which it gets the diagonal.
    """
    return CatBoostObjective(Objective(loss, min_hessian, **options))


def xgboost_metric(metric: Any, *, raw: bool = True, **options: Any) -> XGBoostMetric:
    """For `xgboost.train(custom_metric=)` and `XGBClassifier(eval_metric=)`; see `Score` for raw.

    metric: a string of a metric or loss, a function, a metric class or an instance; options are its own.
    """
    return XGBoostMetric(metric, raw, **options)


def lightgbm_metric(metric: Any, *, raw: bool = True, **options: Any) -> LightGBMMetric:
    """For `lightgbm.train(feval=)` and `fit(eval_metric=)`; as `xgboost_metric`."""
    return LightGBMMetric(metric, raw, **options)


def catboost_metric(metric: Any, *, raw: bool = True, **options: Any) -> CatBoostMetric:
    """For CatBoost's `eval_metric=`, which always gets raw scores; as `xgboost_metric`."""
    return CatBoostMetric(Score(metric, raw, **options))


def described(metric: Any) -> tuple[str, str, bool]:
    """Whether a metric is one of `evaluate`'s "metrics" or its "loss", what it is called, and whether less of it is better."""
    name = metric if isinstance(metric, str) else _name(metric)
    if name.lower() in _BY_SHAPE:
        return "metrics", name, not name.lower().startswith("acc")
    if isinstance(metric, str):
        try:
            metrics.REGISTRY.find(metric)
        except ValueError:
            losses.REGISTRY.find(metric)
            return "loss", name, True
    elif getattr(metric, "entry", None) in LOSSES:
        return "metrics", name, True
    return "metrics", name, names.SPELLINGS["metric"].get(name, (name,))[0] in _FALLING


def _name(metric: Any) -> str:
    """Of a function, a class or an instance, as the table has it; an instance that wraps a function is called by that."""
    metric = getattr(metric, "_fn", metric)
    return str(getattr(metric, "__name__", None) or type(metric).__name__)


def _unpacked(y_pred: Any, data: Any) -> tuple[Any, Any, Any]:
    """Scores, labels and weights of a booster's own interface."""
    weights = data.get_weight()
    return y_pred, data.get_label(), None if weights is None or not np.size(weights) else weights


def _shaped(t: Array, p: Array) -> tuple[Array, Array]:
    """Scores of several outputs with an axis for them, and labels for each of them likewise."""
    if p.ndim == 1 and t.ndim == 1 and p.size != t.size and t.size and p.size % t.size == 0:
        p = p.reshape((t.size, -1), order="F")  # LightGBM's C interface: class by class
    return t.reshape(p.shape) if t.size == p.size else t, p


def _as_given(derivative: Array, y_pred: Array) -> Array:
    order: Any = "F" if y_pred.ndim == 1 else "C"
    return derivative.reshape(y_pred.shape, order=order).astype(y_pred.dtype, copy=False)


def _one_hot(labels: Array, classes: int) -> Array:
    bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if bad.any():
        raise ValueError(f"y_true must hold class numbers 0 to {classes - 1}, got {labels[bad][0]}")
    return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]


def _exp(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(x.astype(np.float64))


def _softmax(scores: Array) -> Array:
    e = np.exp(scores.astype(np.float64) - np.max(scores, axis=-1, keepdims=True))
    found: Array = e / np.sum(e, axis=-1, keepdims=True)
    return found
