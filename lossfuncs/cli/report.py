"""The page that `lossfuncs evaluate --report` writes: results, confusion matrix, ROC, precision-recall and calibration curves.

What it shows is gathered batch by batch in bounded memory: histograms of the scores, counts of the classes, and for regression a sample
of the rows. The page is one file without scripts, fonts or links.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..call import array, spread
from ..evaluate import family_of, one_hot, probabilities
from ..problem import Array

BIN = 1 / 64  # width of the bins of scores, in units of log-odds: an area under a curve is right to about 1e-5
ENDS = 18.0  # beyond these log-odds a float32 probability is 0 or 1
BINS = int(2 * ENDS / BIN)
BARS = 15  # of the calibration
FEW = 10  # classes up to which each has a curve of its own, and numbers in the confusion matrix
MANY = 2048  # classes up to which there are curves and a confusion matrix: 100 MB
SHOWN = 2000  # points of the scatter plot
POINTS = 256  # of a curve
COLOURS = ("#1f6fb4", "#d9730d", "#2f8f4e", "#c23b3b", "#7d55b2", "#8a5a44", "#cf5fa8", "#6b6b6b", "#a39a13", "#17a2b0")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem; max-width: 80rem }
h1 { font-size: 1.6rem; margin: 0.5rem 0 } h2 { font-size: 1.15rem; margin: 1.5rem 0 0.5rem } p { margin: 0.25rem 0 1rem; color: #555 }
.table { overflow-x: auto } table { border-collapse: collapse } thead { border-bottom: 1px solid #999 }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top } tbody tr + tr { border-top: 1px solid #eee }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } .remark { color: #666 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; margin: 1.5rem 0 }
figure { margin: 0 } figure svg { width: 100%; height: auto; max-width: 36rem; display: block; margin: 0 auto }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem }
@media (max-width: 48rem) {
  .results thead { display: none } .results tr { display: block; padding: 0.4rem 0 }
  .results td { display: block; padding: 0; text-align: left }
  .results .name { font-weight: 600; overflow-wrap: anywhere } .results .number { display: inline-block; padding-right: 1rem }
}
"""


class Report:
    """What the page shows, gathered over batches. ImportError without matplotlib, OSError where the page could not be written."""

    def __init__(self, path: str) -> None:
        if not find_spec("matplotlib"):
            raise ImportError("a report needs matplotlib, which is not installed: pip install 'lossfuncs[cli]'")
        new = not os.path.exists(path)
        with open(path, "a"):  # whether that is allowed is better known now than after hours
            self.path = path
        if new:
            os.unlink(path)
        self.kind = ""
        self.matrix = np.zeros((0, 0))  # of classes and predicted classes
        self.classes = 0
        self.logits = False  # to be set where that is known; otherwise the first batch tells

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch."""
        t, p = array("y_true", y_true), array("y_pred", y_pred).astype(np.float64)
        if not self.kind:
            self._begin(t, p)
        takes: dict[str, Any] = {"numbers": self._take_numbers, "decisions": self._take_decisions, "binary": self._take_binary,
                                 "labels": self._take_labels, "classes": self._take_classes}  # fmt: skip
        if self.kind in takes:
            takes[self.kind](t, p, sample_weight)

    def _take_decisions(self, t: Array, p: Array, sample_weight: Any) -> None:
        labels, decided = t.reshape(-1).astype(np.int64), p.reshape(-1).astype(np.int64)
        self.classes = max(self.classes, 1 + int(max(labels.max(), decided.max())))
        grown = self.classes - len(self.matrix) if self.classes <= MANY else 0
        self.matrix = np.pad(self.matrix, (0, grown))
        self._confuse(labels, decided, _weights(sample_weight, p.shape))

    def _take_binary(self, t: Array, p: Array, sample_weight: Any) -> None:
        positive, p = t.reshape(-1) > 0, p.reshape(-1)
        w = _weights(sample_weight, p.shape)
        chance = _sigmoid(p) if self.logits else p
        self._score(positive[:, None], chance[:, None], w)
        self._confuse(positive.astype(np.int64), (chance > 0.5).astype(np.int64), w)
        self._calibrate(chance, positive, w)

    def _take_labels(self, t: Array, p: Array, sample_weight: Any) -> None:
        w = _weights(sample_weight, p.shape[:-1])
        if self.classes <= MANY:
            chance = _sigmoid(p) if self.logits else p
            self._score(t.reshape(-1, self.classes) > 0, chance.reshape(-1, self.classes), w)

    def _take_classes(self, t: Array, p: Array, sample_weight: Any) -> None:
        w = _weights(sample_weight, p.shape[:-1])
        labels = t.reshape(-1).astype(np.int64) if t.size * self.classes == p.size else np.argmax(t, axis=-1).reshape(-1)
        p = p.reshape(-1, self.classes)
        chance = _softmax(p) if self.logits else p
        best = np.argmax(chance, axis=-1)
        self._calibrate(np.take_along_axis(chance, best[:, None], -1)[:, 0], best == labels, w)
        self._confuse(labels, best, w)
        if self.classes <= MANY:
            self._score(labels[:, None] == np.arange(self.classes), chance, w)

    def _begin(self, t: Array, p: Array) -> None:
        """What kind of data these are, by the first batch."""
        family = family_of(t, p)
        binary = family == "binary_" and bool(((t == 0) | (abs(t) == 1)).all())
        self.logits = self.logits or not probabilities(p)
        self.classes = p.shape[-1] if family else 0
        if not family:
            self.kind = "decisions"
        elif family == "sparse_categorical_" or family == "categorical_" and one_hot(t):
            self.kind = "classes" if t.size in (p.size, p.size // p.shape[-1]) else "other"
        elif family == "categorical_" and bool(((t == 0) | (t == 1)).all()):
            self.kind = "labels"
        else:
            self.kind = "binary" if binary else "numbers"
        self.classes = 1 if binary else self.classes
        columns = self.classes if self.classes <= MANY else 0
        self.scores = np.zeros((2, columns, BINS))  # of the negatives, of the positives
        both = {"binary": 2, "classes": columns}.get(self.kind, 0)
        self.matrix = np.zeros((both, both))
        self.bars = np.zeros((3, BARS))  # weight, sum of confidences, of those that are right
        self.rows = np.zeros((0, 3))  # a number drawn for it, target, prediction
        self.random = np.random.default_rng(0)

    def _score(self, positive: Array, chance: Array, w: Array) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.log(chance) - np.log1p(-chance)
        place = np.clip(np.nan_to_num((odds + ENDS) / BIN, nan=0.0, posinf=BINS, neginf=0), 0, BINS - 1).astype(np.int64)
        columns = positive.shape[1]
        place += (np.arange(columns) + columns * positive) * BINS
        weights = np.broadcast_to(w[:, None], place.shape).reshape(-1)
        self.scores += np.bincount(place.reshape(-1), weights, self.scores.size).reshape(self.scores.shape)

    def _confuse(self, labels: Array, decided: Array, w: Array) -> None:
        classes = len(self.matrix)
        if classes:
            known = (labels >= 0) & (labels < classes) & (decided >= 0) & (decided < classes)
            counted = np.bincount(labels[known] * classes + decided[known], w[known], classes * classes)
            self.matrix += counted.reshape(classes, classes)

    def _calibrate(self, chance: Array, right: Array, w: Array) -> None:
        place = np.clip(np.nan_to_num(chance) * BARS, 0, BARS - 1).astype(np.int64)
        for bar, x in zip(self.bars, (w, w * chance, w * right), strict=True):
            bar += np.bincount(place, x, BARS)

    def _take_numbers(self, t: Array, p: Array, sample_weight: Any) -> None:
        """Keep those rows for which the smallest numbers are drawn: a fair sample, however many there are."""
        t, p = np.broadcast_arrays(t.reshape(len(p), -1), p.reshape(len(p), -1))
        t, p = t.reshape(-1), p.reshape(-1)
        drawn = self.random.random(len(p))
        kept = np.argsort(drawn)[:SHOWN]
        rows = np.concatenate([self.rows, np.stack([drawn, t, p], axis=1)[kept]])
        self.rows = rows[np.argsort(rows[:, 0])[:SHOWN]]

    def write(self, lines: Sequence[Sequence[str]], about: str) -> None:
        """Write the page: the results, as names, values, intervals if there are any and remarks, and the figures."""
        figures = [self._svg(draw, i) for i, draw in enumerate(self._figures())]
        header = ("", "value", "95% interval", "") if lines and len(lines[0]) == 4 else ("", "value", "")
        parts = [f"<h1>Evaluation</h1><p>{html.escape(about)}</p>", f'<div class="results">{_table(header, lines)}</div>']
        parts.append('<div class="figures">' + "".join(f"<figure>{svg}</figure>" for svg in figures) + "</div>")
        if self.kind != "numbers" and self.classes > MANY:
            parts.append(f"<p>There are {self.classes:,} classes: too many for curves and a confusion matrix.</p>")
        parts += self._tables()
        head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>Evaluation: {html.escape(about)}</title><style>{STYLE}</style>")  # fmt: skip
        body = "\n".join(parts)
        page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(page)

    def _svg(self, draw: Any, number: int) -> str:
        """A figure as inline SVG: its text is text, and its identifiers are its own."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        settings: Any = {"svg.fonttype": "none", "svg.hashsalt": str(number), "font.size": 12, "font.family": "sans-serif",
                    "font.sans-serif": ["system-ui", "Helvetica", "Arial", "DejaVu Sans"], "axes.grid": True, "grid.color": "#e5e5e5",
                    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "lines.linewidth": 1.8}  # fmt: skip
        with rc_context(settings):
            figure = Figure(figsize=(5.2, 4.6), layout="constrained")
            title = draw(figure.add_subplot())
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        svg = out.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>f{number}-", svg)
        return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)

    def _figures(self) -> list[Any]:
        if self.kind == "numbers":
            return [self._scatter]
        found: list[Any] = [self._confusion] if len(self.matrix) else []
        if self._with_curves().any():
            found += [self._roc, self._precision_recall]
        return found + ([self._calibration] if self.bars.any() else [])

    def _confusion(self, axes: Any) -> str:
        total = self.matrix.sum(axis=1, keepdims=True)
        share: Array = np.divide(self.matrix, total, out=np.zeros_like(self.matrix), where=total != 0)
        few = len(share) <= 2 * FEW
        image = axes.imshow(share if few else share**0.5, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.grid(False)
        axes.set(xlabel="predicted class", ylabel="class", title="Confusion matrix" + ("" if few else ", shares of rows"))
        if few:
            axes.set(xticks=range(len(share)), yticks=range(len(share)))
            size = 12 if len(share) <= FEW else 8
            for (i, j), count in np.ndenumerate(self.matrix):
                if count:
                    axes.text(j, i, _short(count), ha="center", va="center", fontsize=size, color="white" if share[i, j] > 0.5 else "#222")
        else:
            bar = axes.figure.colorbar(image, ax=axes, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]), shrink=0.8)
            bar.ax.set_yticklabels(["0", "1%", "10%", "25%", "50%", "100%"])
        return "Confusion matrix"

    def _roc(self, axes: Any) -> str:
        axes.plot([0, 1], [0, 1], color="#999", linestyle=":", linewidth=1.2)
        self._draw(axes, "ROC", "AUC", _roc_curve)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        return "ROC curves"

    def _precision_recall(self, axes: Any) -> str:
        self._draw(axes, "Precision and recall", "AP", _precision_curve)
        axes.set(xlabel="recall", ylabel="precision")
        return "Precision-recall curves"

    def _with_curves(self) -> Array:
        """Which columns have positives and negatives."""
        found: Array = (self.scores.sum(axis=-1) > 0).all(axis=0)
        return found

    def _draw(self, axes: Any, title: str, area: str, of_counts: Any) -> None:
        """A curve for each of few columns; of more the pool of all, and where most of them lie."""
        counts = _above(self.scores)
        both = self._with_curves()
        x, y, areas = of_counts(counts[:, both])
        columns = np.flatnonzero(both)
        if len(columns) <= FEW:
            for i, column in enumerate(columns):
                name = "" if self.classes == 1 else f"{column}: "
                axes.plot(*_thinned(x[i], y[i]), color=COLOURS[column % len(COLOURS)], label=f"{name}{area} {areas[i]:.3f}")
        else:
            at = np.linspace(0, 1, 101)
            low, middle, high = np.quantile([np.interp(at, *pair) for pair in zip(x, y, strict=True)], (0.1, 0.5, 0.9), axis=0)
            axes.fill_between(at, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="80% of the classes")
            axes.plot(at, middle, color=COLOURS[0], label=f"median class, mean {area} {areas.mean():.3f}")
            pooled = [part[0] for part in of_counts(counts.sum(axis=1, keepdims=True))]
            axes.plot(*_thinned(*pooled[:2]), color=COLOURS[1], label=f"all pooled, {area} {pooled[2]:.3f}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), title=title + ("" if self.classes == 1 else ", each against the rest"))
        axes.legend(fontsize=10 if len(columns) > 4 else 11, loc="lower right" if area == "AUC" else "lower left", framealpha=0.9)

    def _calibration(self, axes: Any) -> str:
        weight, stated, right = self.bars
        filled = weight > 0
        axes.plot([0, 1], [0, 1], color="#999", linestyle=":", linewidth=1.2)
        axes.bar((np.arange(BARS) + 0.5) / BARS, weight / weight.max() * 0.25, 0.95 / BARS, color="#ddd", label="share of the samples")
        n, x, y = weight[filled], stated[filled] / weight[filled], right[filled] / weight[filled]
        middle, reach = (y + 1.92 / n) / (1 + 3.84 / n), 1.96 * np.sqrt(y * (1 - y) / n + 0.96 / n**2) / (1 + 3.84 / n)  # Wilson's interval
        axes.vlines(x, middle - reach, middle + reach, color=COLOURS[0], alpha=0.4, linewidth=3, label="95% interval")
        axes.plot(x, y, "o-", color=COLOURS[0], linewidth=1, markersize=5, label="observed")
        error = np.sum(np.abs(stated - right)) / weight.sum()
        of = "of class 1" if self.kind == "binary" else "of the predicted class"
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), xlabel=f"stated probability {of}", ylabel="observed frequency",
                 title=f"Calibration, expected error {error:.4f}")  # fmt: skip
        axes.legend(fontsize=10, loc="best")
        return "Calibration"

    def _scatter(self, axes: Any) -> str:
        _, t, p = self.rows.T
        ends = min(t.min(), p.min()), max(t.max(), p.max())
        axes.plot(ends, ends, color="#999", linestyle=":", linewidth=1.2)
        axes.plot(t, p, ".", color=COLOURS[0], alpha=0.4, markersize=5)
        few = "" if len(t) < SHOWN else f", {SHOWN:,} of them"
        axes.set(xlabel="target", ylabel="prediction", title=f"Predictions{few}")
        return "Predictions by targets"

    def _tables(self) -> list[str]:
        """The classes by precision and recall, the worst ones of many, and which are most often taken for which others."""
        if len(self.matrix) < 2 or not self.matrix.any():
            return []
        hits, support, decided = np.diag(self.matrix), self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        both = support + decided
        f1 = np.divide(2 * hits, both, out=np.zeros(len(hits)), where=both != 0)
        present = np.flatnonzero(both)
        shown = present if len(present) <= 2 * FEW else present[np.argsort(f1[present], kind="stable")][: 2 * FEW]
        rows = [(str(i), *(_ratio(hits[i], x) for x in (decided[i], support[i])), f"{f1[i]:.3f}", _short(support[i])) for i in shown]
        title = "Classes" if len(shown) == len(present) else f"The {len(shown)} classes of {len(present):,} with the lowest F1"
        parts = [f"<section><h2>{title}</h2>", _table(("class", "precision", "recall", "F1", "samples"), rows), "</section>"]
        wrong = self.matrix.copy()
        np.fill_diagonal(wrong, 0)
        order = [divmod(int(k), len(wrong)) for k in np.argsort(-wrong, axis=None, kind="stable")[:FEW]]
        pairs = [(str(i), str(j), _short(wrong[i, j]), _ratio(wrong[i, j], support[i])) for i, j in order if wrong[i, j]]
        if len(wrong) > 2 and pairs:
            header = ("class", "taken for", "samples", "of the class")
            parts += ["<section><h2>Most frequent mistakes</h2>", _table(header, pairs), "</section>"]
        return ['<div class="tables">', *parts, "</div>"]


def _above(scores: Array) -> Array:
    """The weights above each place, from none to all: (..., BINS + 1)."""
    counts = np.cumsum(scores[..., ::-1], axis=-1)
    return np.concatenate([np.zeros((*counts.shape[:-1], 1)), counts], axis=-1)


def _roc_curve(counts: Array) -> tuple[Array, Array, Array]:
    false, true = counts / counts[..., -1:]
    return false, true, np.trapezoid(true, false, axis=-1)


def _precision_curve(counts: Array) -> tuple[Array, Array, Array]:
    false, true = counts
    recall = true / true[..., -1:]
    decided = true + false
    precision = np.divide(true, decided, out=np.ones_like(true), where=decided > 0)
    return recall, precision, np.sum(np.diff(recall, axis=-1) * precision[..., 1:], axis=-1)


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """As many points of a curve as can be told apart."""
    along = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)))
    return x[kept], y[kept]


def _softmax(z: Array) -> Array:
    with np.errstate(invalid="ignore"):
        e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    found: Array = e / e.sum(axis=-1, keepdims=True)
    return found


def _sigmoid(z: Array) -> Array:
    with np.errstate(over="ignore"):
        found: Array = 1.0 / (1.0 + np.exp(-z))
    return found


def _weights(sample_weight: Any, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape))
    return np.ones(size) if sample_weight is None else spread("sample_weight", sample_weight, shape)


def _short(weight: float) -> str:
    return f"{weight:,.0f}" if weight == round(weight) else f"{weight:,.1f}"


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is names and whose last, without a heading, is remarks."""
    kinds = ["name" if i == 0 else "number" if title else "remark" for i, title in enumerate(header)]

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f'<{tag} class="{k}">{html.escape(x)}</{tag}>' for k, x in zip(kinds, cells, strict=True)) + "</tr>"

    head = line("th", header) if any(header) else ""
    return f'<div class="table"><table><thead>{head}</thead><tbody>{"".join(line("td", row) for row in rows)}</tbody></table></div>'
