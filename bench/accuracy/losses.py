"""Every loss and its derivative on rows that are hard to compute, next to the textbook's formula and torch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lossfuncs
from lossfuncs.benchmark import formulas
from lossfuncs.options import EPS

from .exact import EXACT_LOSSES, check_exact_rows, exact_rows, ulp
from .rows import find, hard_rows
from .textbook import TEXTBOOK

Array = np.ndarray[Any, Any]

LENGTHS = (1, 3, 10, 16, 100)  # of the rows
ROWS_BOUND, GRADIENT_BOUND = 2.0, 4.0  # ULP of float32: of a value; of the row's largest slope
FEW_BOUND, FEW = 1.0, 1e-4  # ULP, and the share of the values that may be further away
HALF = 0.5 + 1e-3
# Of which options; the others have none.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "binary_crossentropy": ({}, {"label_smoothing": 0.1}, {"from_logits": True}),
    "binary_focal_crossentropy": ({}, {"gamma": 0.5}, {"from_logits": True}),
    "categorical_crossentropy": (
        {}, {"label_smoothing": 0.1}, {"from_logits": True}, {"from_logits": True, "label_smoothing": 0.1},
    ),
    "sparse_categorical_crossentropy": ({}, {"from_logits": True}),
    "categorical_focal_crossentropy": ({}, {"from_logits": True}, {"gamma": 1.5, "from_logits": True}),
    "categorical_generalized_cross_entropy": ({"q": 0.7},),
    "dice": ({"axis": -1},),
    "tversky": ({"axis": -1, "alpha": 0.3, "beta": 0.7},),
}  # fmt: skip
LOSS_CASES = tuple((name, options) for name in EXACT_LOSSES for options in OPTIONS.get(name, ({},)))


def ulps(got: Array, exact: Array, unit: Array, slack: Any = 0.0) -> Array:
    """|got - exact|, less the slack, in units; 0 for the same infinity or NaN, infinite for a wrong one."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    error = np.maximum(abs(got - exact) - slack, 0) / unit
    same = (got == rounded) | np.isnan(got) & np.isnan(rounded)
    finite = np.isfinite(got) & np.isfinite(rounded)
    return np.where(finite, error, np.where(same, 0, math.inf)).astype(np.float64)


@dataclass
class Worst:
    """Errors of values or gradients: the largest in ULP of float32, where; shares of the points beyond some; and all less the slack."""

    points: int = 0
    max_ulp: float = 0.0
    at: str = ""
    beyond_half: int = 0
    beyond_one: int = 0
    max_bounded: float = 0.0
    bounded_beyond_one: int = 0

    def add(self, kind: str, ulps: Array, bounded: Array) -> None:
        self.points += ulps.size
        if ulps.size and (worst := float(np.max(ulps))) > self.max_ulp:
            self.max_ulp, self.at = worst, kind
        self.beyond_half += int(np.count_nonzero(ulps > HALF))
        self.beyond_one += int(np.count_nonzero(ulps > FEW_BOUND))
        self.max_bounded = max(self.max_bounded, float(np.max(bounded, initial=0.0)))
        self.bounded_beyond_one += int(np.count_nonzero(bounded > FEW_BOUND))


@dataclass
class RowErrors:
    """Errors of one loss on hard rows: ours, the derivative's relative to its row's largest, NumPy's textbook form and torch's."""

    values: Worst
    gradients: Worst
    numpy: Worst
    torch: Worst

    def kept(self) -> bool:
        few = self.values.bounded_beyond_one <= FEW * self.values.points
        return few and self.values.max_bounded <= ROWS_BOUND and self.gradients.max_bounded <= GRADIENT_BOUND


def _torch_rows(name: str, options: dict[str, Any]) -> Callable[..., Array] | None:
    """torch's own function, or its formula of the peer benchmark, where there is one."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    if set(options) - {"from_logits"}:
        return None
    F = torch.nn.functional
    own: formulas.Formulas = {
        "mean_absolute_error": (lambda t, p: F.l1_loss(p, t, reduction="none").mean(-1),),
        "poisson": (lambda t, p: F.poisson_nll_loss(p, t, log_input=False, eps=EPS, reduction="none").mean(-1),),
    }
    ways = (own | formulas.torch_formulas()).get(name + (" from logits" if options.get("from_logits") else ""))
    return ways and (lambda t, p: ways[0](torch.from_numpy(t), torch.from_numpy(p)).numpy())


def row_errors(name: str, options: dict[str, Any], lengths: Sequence[int] = LENGTHS, rows: int = 100_000, peers: bool = True,
               backend: str = "numba") -> RowErrors:  # fmt: skip
    """Errors of a backend over about `rows` hard rows in all, of these lengths: the longer, the fewer."""
    function, own = find(name).function, find(name).shape == "own"
    textbook, torch_formula = (TEXTBOOK.get(name), _torch_rows(name, options)) if peers else (None, None)
    errors = RowErrors(Worst(), Worst(), Worst(), Worst())
    share = sum(n**-0.5 for n in lengths)
    with np.errstate(all="ignore"), lossfuncs.backend(backend):
        for n in lengths:
            for kind, t, p in hard_rows(name, options, math.ceil(rows * n**-0.5 / share), n, np.random.default_rng([n, rows])):
                exact, at = exact_rows(name, options, t, p), f"{kind}, n = {n}"
                if not own and n <= 16:
                    check_exact_rows(name, options, t, p, exact)
                wanted, slack = (np.broadcast_to(x, exact.value.shape)[:, 0] for x in (exact.value, exact.slack))
                unit = ulp(wanted)

                def add(to: Worst, got: Array) -> None:
                    to.add(at, ulps(got, wanted, unit), ulps(got, wanted, unit, slack))  # noqa: B023

                add(errors.values, function(t, p, **options))
                value, gradient = lossfuncs.value_and_grad(function, t, p, **options)
                add(errors.values, value)
                gradient = gradient.reshape(exact.gradient.shape)
                unit_of_row = ulp(np.max(abs(exact.gradient), axis=-1, keepdims=True))
                bounded = ulps(gradient, exact.gradient, unit_of_row, exact.gradient_slack)
                errors.gradients.add(at, ulps(gradient, exact.gradient, unit_of_row), bounded)
                if textbook:
                    one_hot = (np.arange(p.shape[-1]) == t[:, None]).astype(np.float32) if t.ndim < p.ndim else t
                    add(errors.numpy, textbook(one_hot, p, **options))
                if torch_formula:
                    add(errors.torch, torch_formula(t, p))
    return errors


def losses(rows: int = 100_000, cases: Sequence[tuple[str, dict[str, Any]]] = LOSS_CASES) -> bool:
    """Prints the table of losses; whether all kept their bounds."""
    lengths = ", ".join(map(str, LENGTHS))
    print(f"\nfloat32, losses: {rows} hard rows each, of lengths {lengths}; errors in ULP, of slopes in ULP of the row's largest")
    if np.finfo(np.longdouble).nmant < 63:
        print("not measured: this needs a long double of 64 bits, which there is not on this platform")
        return False
    print("exact: long double, by formulas that lose no digits; on two rows of each kind 90 digits of mpmath agree (but circle, ctc)")
    print("'net' is what is left of an error beyond the slack that is named: the bounds are on it")
    columns = "".join(f"{title:>9s}" for title in ("max ULP", "> 1", "> 0.501", "slope", "numpy", "> 1", "torch", "> 1"))
    print(f"{'':57s}{columns}   worst at")
    good = True
    for name, options in cases:
        e = row_errors(name, options, rows=rows)
        value, slope = e.values, e.gradients
        title = " ".join([name, *(key if x is True else f"{key}={x}" for key, x in options.items() if key != "axis")])
        peers = "".join(f"{x.max_ulp:9.2g}{x.beyond_one / x.points:9.1e}" if x.points else f"{'':18s}" for x in (e.numpy, e.torch))
        shares = f"{value.beyond_one / value.points:9.1e}{value.beyond_half / value.points:9.1e}"
        print(f"{title:57s}{value.max_ulp:9.3g}{shares}{slope.max_ulp:9.3g}{peers}   {value.at}; {slope.at}", flush=True)
        within = value.beyond_one <= FEW * value.points and value.max_ulp <= ROWS_BOUND and slope.max_ulp <= GRADIENT_BOUND
        if not within and (reason := EXACT_LOSSES[name][1]):
            share = f"{value.bounded_beyond_one / value.points:9.1e}{'':9s}"
            print(f"{'    net':57s}{value.max_bounded:9.3g}{share}{slope.max_bounded:9.3g}   {reason}")
        if not e.kept():
            print(f"{'':57s}BROKEN: {FEW_BOUND:g} ULP for all but {FEW:.2%}, {ROWS_BOUND:g} for all, slopes {GRADIENT_BOUND:g}")
            good = False
    return good
