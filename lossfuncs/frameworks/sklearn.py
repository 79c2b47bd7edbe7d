"""scikit-learn: scorers from losses and metrics, and three of its own metrics for less.

    cross_val_score(model, X, y, scoring=get_scorer("lossfuncs:log_loss"))
    GridSearchCV(model, grid, scoring={"brier": make_scorer("mse"), "auc": make_scorer("AUC", exact=True)}, refit="auc")
    log_loss(y, model.predict_proba(X)), accuracy_score(y, model.predict(X)), top_k_accuracy_score(y, model.predict_proba(X), k=3)

The functions have scikit-learn's signatures and results. They compute where labels are whole numbers in NumPy arrays, and hand all other
input, wrong input included, to scikit-learn's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import losses, metrics
from ..dispatch import public
from ..evaluate import Evaluation
from ..options import shown
from ..problem import Array
from ..rows import Earlier, Label, Max, Pick, Rows, Sum, where
from ..table import Entry
from .boosting import described

try:
    from sklearn import metrics as theirs
    from sklearn.base import BaseEstimator, is_classifier
    from sklearn.utils.metadata_routing import UNUSED
except ImportError as error:
    raise ImportError(f'scikit-learn is not installed: pip install "lossfuncs[sklearn]" ({error})') from None

PREFIX = "lossfuncs:"

# -log of the label's probability, clipped to [eps, 1 - eps]; inf for a row that scikit-learn would refuse, or warn of


def _probability(s: Any, p: float, *a: float) -> float:
    return p


def _each(s: Any, t: float, p: float, *a: float) -> float:
    return p


def _extremes(s: Any, t: float, p: float, *a: float) -> tuple[float, float]:
    return p, -p


def _surprise(s: Any, n: float, eps: float, tolerance: float) -> Any:
    label, own, total, most, least = s
    cost = -math.log(min(max(own, eps), 1.0 - eps))
    proper = where(abs(total - 1.0) <= tolerance, cost, math.inf)
    return where(most <= 1.0, where(least <= 0.0, proper, math.inf), math.inf)


@public
def _log_losses(y_true: Any, y_pred: Any, eps: float, tolerance: float, *, sample_weight: Any = None, reduction: Any = None) -> Any:
    own = np.take_along_axis(y_pred, y_true[..., None], -1)[..., 0]
    proper = (np.abs(y_pred.sum(-1) - 1.0) <= tolerance) & (y_pred.max(-1) <= 1.0) & (y_pred.min(-1) >= 0.0)
    return np.where(proper, -np.log(np.clip(own, eps, 1.0 - eps)), np.inf)


def _rows(n: int, eps: float, tolerance: float) -> tuple[Rows, tuple[float, ...]]:
    return _ROWS, (eps, tolerance)


_ROWS = Rows("log_loss", (Label(), Pick(_probability, 0), Sum(_each), Max(_extremes, 2)), _surprise)
vars(_log_losses)["entry"] = Entry("log_loss", "", _log_losses, _rows, "index", "distribution", "last")

# Whether the label is among the k first, where of equal scores the later one comes first; inf for a row that is not finite


def _compared(s: Any, t: float, p: float, *a: float) -> tuple[Any, float, float]:
    return where(p >= s[1], 1.0, 0.0), p, 0.0


def _first(s: Any, n: float, k: float) -> Any:
    label, own, not_below, total, always_0, level_and_earlier = s
    return where(total - total == 0.0, where(not_below - 1.0 - level_and_earlier < k, 1.0, 0.0), math.inf)


@public
def _hits(y_true: Any, y_pred: Any, k: float, *, sample_weight: Any = None, reduction: Any = None) -> Any:
    own = np.take_along_axis(y_pred, y_true[..., None], -1)
    later = np.arange(y_pred.shape[-1]) > y_true[..., None]
    before = np.sum((y_pred > own) | ((y_pred == own) & later), axis=-1)
    return np.where(np.isfinite(y_pred.sum(-1)), before < k, np.inf)


def _hit_rows(n: int, k: float) -> tuple[Rows, tuple[float, ...]]:
    return _HIT_ROWS, (k,)


_HIT_ROWS = Rows("top_k", (Label(), Pick(_probability, 0), Sum(_compared, 3), Earlier(0, 1, 4)), _first)
vars(_hits)["entry"] = Entry("top_k", "", _hits, _hit_rows, "index", "scores", "last")


def log_loss(y_true: Any, y_proba: Any, *, normalize: bool = True, sample_weight: Any = None, labels: Any = None) -> float:
    """sklearn.metrics.log_loss: the mean, or sum, of -log of the probability of each sample's own label.

    y_proba is (samples, classes), its columns in the order of the sorted labels, or (samples,), the probability of the larger one.
    """
    t, p, w = _array(y_true), _array(y_proba), _weights(sample_weight)
    if p is not None and p.ndim == 1 and p.dtype.kind == "f":
        p = np.stack([1.0 - p, p], axis=1)
    if p is not None and p.ndim == 2 and p.dtype in (np.float32, np.float64) and w is not False and p.shape[1] > 1:
        codes = _encoded(t, labels, p.shape[1])
        if codes is not None and len(codes) == len(p) and (w is None or len(w) == len(p)):
            eps = float(np.finfo(p.dtype).eps)
            reduction = "mean_with_sample_weight" if normalize else "sum"
            found = float(_log_losses(codes, p, sample_weight=w, reduction=reduction, eps=eps, tolerance=math.sqrt(eps)))
            if math.isfinite(found):
                return found
    found = theirs.log_loss(y_true, y_proba, normalize=normalize, sample_weight=sample_weight, labels=labels)
    return float(found)


def accuracy_score(y_true: Any, y_pred: Any, *, normalize: bool = True, sample_weight: Any = None) -> float:
    """sklearn.metrics.accuracy_score: the fraction, or the number, of samples whose label is right; labels may be one-hot rows."""
    t, p, w = _array(y_true), _array(y_pred), _weights(sample_weight)
    if t is not None and p is not None and t.ndim == 1 and t.shape == p.shape and t.size and t.dtype.kind == p.dtype.kind == "i":
        right = t == p
        if w is None:
            count = int(np.count_nonzero(right))
            return count / t.size if normalize else float(count)
        if w is not False and len(w) == len(t):
            counted, by = (float(np.sum(x, dtype=np.float64)) for x in (w * right, w))  # in one order, so that it is never more
            return counted / by if normalize else counted
    return float(theirs.accuracy_score(y_true, y_pred, normalize=normalize, sample_weight=sample_weight))


def top_k_accuracy_score(
    y_true: Any, y_score: Any, *, k: int = 2, normalize: bool = True, sample_weight: Any = None, labels: Any = None
) -> float:
    """sklearn.metrics.top_k_accuracy_score: the fraction, or the number, of samples whose label is among the k highest scores.

    Of equal scores the later column is the higher one.
    """
    t, p, w = _array(y_true), _array(y_score), _weights(sample_weight)
    if p is not None and p.ndim == 2 and p.dtype in (np.float32, np.float64) and w is not False and p.shape[1] > 2:
        codes = _encoded(t, labels, p.shape[1])
        if codes is not None and len(codes) == len(p) and (w is None or len(w) == len(p)) and type(k) is int and 0 < k < p.shape[1]:
            reduction = "mean_with_sample_weight" if normalize else "sum"
            found = float(_hits(codes, p, sample_weight=w, reduction=reduction, k=float(k)))
            if math.isfinite(found):
                return found
    return float(theirs.top_k_accuracy_score(y_true, y_score, k=k, normalize=normalize, sample_weight=sample_weight, labels=labels))


def _array(x: Any) -> Array | None:
    """x as NumPy has it, if that is sure to be what scikit-learn would see."""
    if type(x) is np.ndarray:
        return x
    return np.asarray(x) if isinstance(x, (list, tuple)) or hasattr(x, "iloc") else None


def _weights(sample_weight: Any) -> Any:
    """Weights; None where there are none, False where scikit-learn should look at them."""
    if sample_weight is None:
        return None
    w = _array(sample_weight)
    if w is None or w.ndim != 1 or w.dtype.kind not in "iuf":
        return False
    return w if 0.0 < float(np.sum(w)) < math.inf else False


def _encoded(t: Array | None, labels: Any, classes: int) -> Array | None:
    """The labels as columns of the predictions; None where it is not plain which."""
    if t is None or t.ndim != 1 or t.dtype.kind != "i" or not t.size:
        return None
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (classes,) or labels.dtype.kind != "i" or (np.diff(labels) <= 0).any():
            return None
        low, high = int(labels[0]), int(labels[-1])
    else:
        low, high = int(t.min()), int(t.max())
    span = high - low + 1
    if span > 16 * classes or not low <= int(t.min()) <= int(t.max()) <= high:
        return None
    if labels is None:
        labels = np.flatnonzero(np.bincount(t - low if low else t, minlength=span)) + low
        if len(labels) != classes:
            return None
    if span == classes:
        return t - low if low else t
    column = np.full(span, -1)
    column[labels - low] = np.arange(classes)
    codes: Array = column[t - low]
    return None if (codes < 0).any() else codes


# Scorers


class Scorer(BaseEstimator):
    """scorer(estimator, X, y, sample_weight=None): more is better, so that losses and errors come with a minus sign; see `make_scorer`."""

    __metadata_request__score = {"estimator": UNUSED}

    def __init__(self, metric: Any, options: Mapping[str, Any] | None = None) -> None:
        self.metric, self.options = metric, options

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        return self.score(estimator, X, y, sample_weight)

    def score(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The estimator's score; `set_score_request(sample_weight=True)` asks scikit-learn for the weights."""
        options = dict(self.options or {})
        kind, name, falls = _described(self.metric)
        function = _function(self.metric)
        entry = getattr(function, "entry", None)
        t = np.asarray(y)
        if not is_classifier(estimator):
            p = np.asarray(estimator.predict(X))
        elif name.lower() in ("accuracy", "acc") or entry is not None and entry.predictions == "decision":
            classes = estimator.classes_
            (t, known), (p, _) = (_places(classes, x) for x in (t, estimator.predict(X)))
            t = np.where(known, t, -1)
            function, name = metrics.accuracy, "accuracy"
        else:
            t, p = self._of_classes(estimator, X, t, entry, function)
        if name == "log_loss":
            value = log_loss(t, p, sample_weight=sample_weight, labels=np.arange(p.shape[1]), **options)
        elif name == "top_k_accuracy":
            value = top_k_accuracy_score(t, p, sample_weight=sample_weight, labels=np.arange(p.shape[1]), **options)
        else:
            asked = (function, options) if options else function
            fold = Evaluation(**{kind: [asked]})  # type: ignore[arg-type]
            fold.update(t, p, sample_weight)
            (found,) = fold.result().values()
            if np.ndim(found):
                raise ValueError(f"{name} gives {np.size(found)} numbers, but a score is one")
            value = float(found)
        return -value if falls else value

    def _of_classes(self, estimator: Any, X: Any, y: Array, entry: Any, function: Any) -> tuple[Array, Array]:
        """Labels as the metric wants them, and probabilities; decision values where only their order counts, or where they are wanted."""
        options, classes = self.options or {}, estimator.classes_
        if isinstance(classes, list):
            raise ValueError(f"{type(estimator).__name__} has classes for each of {len(classes)} outputs: score the outputs one by one")
        ordered = bool(options.get("from_logits") or options.get("exact")) or entry is not None and entry.predictions in ("scores", "real")
        wanted = ("predict_proba", "decision_function") if ordered else ("predict_proba",)
        if options.get("from_logits"):
            wanted = ("decision_function",)
        elif getattr(entry, "targets", None) == "sign":  # margins, which probabilities are not
            wanted = ("decision_function", "predict_proba")
        method = next((name for name in wanted if hasattr(estimator, name)), None)
        if method is None:
            raise ValueError(f"{_described(self.metric)[1]} needs {' or '.join(wanted)}, which {type(estimator).__name__} has not")
        p = np.asarray(getattr(estimator, method)(X))
        if y.ndim == 2 and y.shape == p.shape and len(classes) == y.shape[1]:  # several labels a sample, each of which is there or not
            return y, p
        t, known = _places(classes, y)
        if not known.all():
            raise ValueError(f"y holds {shown(y[~known][0])}, which is none of the classes that {type(estimator).__name__} knows")
        targets = "index" if isinstance(function, str) else getattr(entry, "targets", None)
        if targets == "index":
            return t, p
        if len(classes) == 2 and targets != "one-hot":
            return t.astype(np.float64), p[:, 1] if p.ndim == 2 else p
        return np.eye(len(classes))[t], p


def _places(classes: Any, labels: Any) -> tuple[Array, Array]:
    """Where labels stand among classes, which are sorted, and whether they are there."""
    classes, labels = np.asarray(classes), np.asarray(labels)
    found = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return found, np.asarray(classes[found] == labels)


_OWN = {"log_loss": ("", "log_loss", True), "top_k_accuracy": ("", "top_k_accuracy", False)}  # as `described` has others


def _described(metric: Any) -> tuple[str, str, bool]:
    return _OWN[metric] if isinstance(metric, str) and metric in _OWN else described(metric)


def _function(metric: Any) -> Any:
    """The function or class behind a string."""
    if not isinstance(metric, str) or metric in _OWN or metric.lower() in ("accuracy", "acc"):
        return metric
    for registry in (metrics.REGISTRY, losses.REGISTRY):
        for find in (registry.function, registry.find):
            try:
                return find(metric)
            except ValueError as error:
                unknown = error
    raise unknown


def make_scorer(metric: Any, **options: Any) -> Scorer:
    """A scorer for `scoring=` of cross_val_score, GridSearchCV and their like.

    metric: a string, a function, a metric class or an instance of lossfuncs, or "log_loss" or "top_k_accuracy" for scikit-learn's; options
    are its own. Classifiers are asked for what the metric wants: labels for accuracy, probabilities for others, in which a class is its
    place in `classes_`, so that a fold may lack some. ValueError for an unknown metric.
    """
    if isinstance(metric, str):
        metric = metric.removeprefix(PREFIX)
    _described(metric)
    return Scorer(metric, options or None)


def get_scorer(name: Any) -> Any:
    """The scorer that a name means: "lossfuncs:log_loss", "lossfuncs:AUC", or one of scikit-learn's own, without the prefix."""
    if isinstance(name, str) and name.startswith(PREFIX):
        return make_scorer(name)
    if isinstance(name, str) or callable(name):
        return theirs.get_scorer(name)
    raise TypeError(f'a scorer is named by a string as "{PREFIX}log_loss", got {shown(name)}')
