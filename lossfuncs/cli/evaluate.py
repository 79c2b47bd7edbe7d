"""`lossfuncs evaluate`: losses and metrics of labels and predictions in files."""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..bootstrap import Estimate
from . import show

DIGITS = Path(__file__).parent.parent / "data" / "digits.npz"
ABOUT_DIGITS = (
    "UCI handwritten digits (Alpaydin and Kaynak 1998, CC BY 4.0): 599 held-out images, and what a logistic regression says of them."
)
EPILOG = """files:
  .npy .npz .csv, and .parquet with pyarrow; read in batches, so that they may be larger than the memory.
  FILE.npz:KEY, FILE.csv:COLUMN and FILE.parquet:COLUMN,COLUMN choose a part. A single .npz may hold y_true and y_pred.
  Without files: a bundled data set.

examples:
  lossfuncs evaluate labels.npy predictions.npy
  lossfuncs evaluate labels.npy logits.npy --loss crossentropy --option from_logits=true --metric accuracy
  lossfuncs evaluate table.csv --label-column y --loss mse --loss huber:delta=2
  lossfuncs evaluate labels.npy predictions.npy --bootstrap 1000 --report report.html
  lossfuncs evaluate labels.npy scores.npy --metric sparse_top_k_categorical_accuracy:k=1 --metric sparse_top_k_categorical_accuracy:k=5
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    add = parser.add_argument
    add("labels", nargs="?", metavar="LABELS", help="the file with y_true; or with both, see --label-column")
    add("predictions", nargs="?", metavar="PREDICTIONS", help="the file with y_pred")
    add("--loss", action="append", default=[], metavar="NAME", help="a loss; again for more. NAME:OPTION=VALUE,... sets its options")
    add("--metric", action="append", default=[], metavar="NAME", help="a metric; by default what suits the data")
    add("--option", action="append", default=[], metavar="OPTION=VALUE",
        help="for all that know it, as from_logits=true; NAME:OPTION=VALUE for one")
    add("--weights", metavar="FILE", help="sample weights: the means become weighted")
    add("--label-column", metavar="COLUMN", help="the column of LABELS that holds y_true, where it holds y_pred too")
    add("--prediction-columns", metavar="COLUMN,...", help="its columns that hold y_pred; by default all others")
    add("--bootstrap", type=int, default=0, metavar="N", help="95%% intervals from N replicates in the same pass; 1000 is usual")
    add("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    add("--report", metavar="FILE.html", help="a page with the results, confusion matrix, ROC, precision-recall and calibration curves")
    add("--batch-size", type=int, metavar="ROWS", help="rows at a time; by default 4 MB")
    add("--import", action="append", default=[], dest="modules", metavar="FILE.py", help="Python that registers losses of your own")
    add("--backend", choices=("numpy", "numba", "cupy"), help="the reference, the CPU's kernels, or the GPU's")
    add("--threads", type=int, metavar="N", help="by default one a core")
    add("--json", action="store_true", help='as JSON; values that are not finite are the strings "nan", "inf" and "-inf"')
    add("--no-progress", action="store_true", help="no progress bar on a terminal")


def run(args: argparse.Namespace) -> int:
    losses, metrics, options = _functions(args)
    for path in args.modules:
        runpy.run_path(path)

    from .. import backend, current_backend, get_num_threads, set_num_threads
    from ..evaluate import Evaluation, batches

    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {args.threads}")
        set_num_threads(args.threads)
    fold = Evaluation(losses, metrics, options, args.bootstrap, args.seed)
    inputs = _inputs(args)
    page = None
    if args.report:
        from .report import Report

        page = Report(args.report)
    began, before, total = time.perf_counter(), _compiled(), None
    with backend(args.backend or current_backend()):
        try:
            with show.Progress("rows", not args.no_progress) as progress:
                progress.say("preparing kernels")
                for batch, total in batches(*inputs, args.batch_size):
                    first = not fold.rows
                    fold.update(*batch)
                    if first:
                        _doubt(fold, batch[1])
                    if page:
                        page.logits |= any(a.options.get("from_logits", False) for a in fold.functions.values())
                        page.update(*batch)
                    progress(fold.rows, total)
        except KeyboardInterrupt:
            of = f" of {total:,}" if total else ""
            raise KeyboardInterrupt(f"after {fold.rows:,}{of} rows") from None
        except ValueError as error:
            labels = getattr(inputs[0], "name", inputs[0])
            raise ValueError(f"{labels}: {error}" if str(error).startswith("y_true[") else str(error)) from None
        values = fold.result()
        seconds = time.perf_counter() - began
        if args.json:
            named = {name: _plain(_estimate(value).value) for name, value in values.items()}
            bounds = {name: [_plain(value.low), _plain(value.high)] for name, value in values.items() if isinstance(value, Estimate)}
            intervals = {"intervals": bounds} if args.bootstrap else {}
            facts = {"rows": fold.rows, "weighted": args.weights is not None, "seconds": round(seconds, 6),
                     "backend": current_backend(), "threads": get_num_threads()}  # fmt: skip
            print(json.dumps({"values": named, **intervals, **facts}, indent=2))
        else:
            _report(fold, args.weights is not None, seconds, _compiled() - before, None if args.labels else ABOUT_DIGITS)
        if page:
            about = f"{args.labels} and {args.predictions}" if args.predictions else args.labels or ABOUT_DIGITS
            page.write(_lines(fold, args.weights is not None), f"{about.rstrip('.')}. {show.count(fold.rows, 'row')}.")
            print(f"wrote {args.report}", file=sys.stderr)
    return 0


def _doubt(fold: Any, y_pred: Any) -> None:
    """Logits taken for probabilities give numbers that mean nothing: say so."""
    from ..evaluate import probabilities

    misled = [a for a in fold.functions.values() if a.expects_probabilities]
    if misled and not probabilities(y_pred):
        low, high = float(y_pred.min()), float(y_pred.max())
        names = ", ".join(a.name for a in misled)
        remedy = "; if these are logits, add --option from_logits=true" if any("from_logits" in a.known for a in misled) else ""
        print(f"note: {names} expects probabilities, but y_pred has numbers from {low:.3g} to {high:.3g}{remedy}", file=sys.stderr)


def _report(fold: Any, weighted: bool, seconds: float, compiled: int, about: str | None) -> None:
    from .. import current_backend, get_num_threads

    if about:
        print(about)
    lines = _lines(fold, weighted)
    show.results(("", "value", "95% interval", "") if fold.bootstrap else ("", "value", ""), lines)
    threads = f", {show.count(get_num_threads(), 'thread')}" if current_backend() == "numba" else ""
    # a speed that includes a compiler is nobody's
    speed = f"{show.count(compiled, 'kernel')} compiled first" if compiled else f"{fold.rows / seconds:,.0f} rows/s"
    print(f"{show.count(fold.rows, 'row')} in {seconds:.3g} s, {speed}; {current_backend()}{threads}")


def _lines(fold: Any, weighted: bool) -> list[tuple[str, ...]]:
    """For each result its name, its value, its interval where there is a bootstrap, and what it is."""
    lines = []
    for label, found in fold.result().items():
        value, low, high = _estimate(found)
        between = (f"{_numbers(low)} to {_numbers(high)}",) if fold.bootstrap else ()
        lines.append((label, _numbers(value), *between, _what(label, fold, weighted)))
    return lines


def _estimate(value: Any) -> Estimate:
    """The value with its interval, or without one."""
    return value if isinstance(value, Estimate) else Estimate(value, None, None)


def _numbers(value: Any) -> str:
    return " ".join(map(_number, np.atleast_1d(value).tolist()))


def _compiled() -> int:
    """How many kernels this process has compiled."""
    if "lossfuncs.cache" not in sys.modules:
        return 0
    from .. import cache

    return cache.info().compiled


def _number(value: float) -> str:
    return f"{value:.6f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.6e}"


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if np.ndim(value):
        return [_plain(x) for x in value]
    return float(value) if math.isfinite(value) else str(float(value))


def _what(label: str, fold: Any, weighted: bool) -> str:
    """What a number is: the function behind a short name, and what it was taken over."""
    accumulator = fold.functions[label]
    name = accumulator.name
    called = "" if label.startswith(name) else f"{name}, "
    if not hasattr(accumulator, "weight"):
        return f"{called}of {show.count(fold.rows, 'sample')}{', weighted' if weighted else ''}"
    if accumulator.elements:
        return f"{called}over all {show.count(fold.rows, 'sample')} at once"
    if weighted:
        return f"{called}weighted mean of {show.count(fold.rows, 'sample')}"
    n = int(accumulator.weight.value)
    return f"{called}mean of {show.count(n, 'sample' if n == fold.rows else 'value')}"


def _inputs(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """y_true, y_pred and the weights, as sources or paths."""
    from ..files import column_names, open_rows, split_columns

    if args.labels is None:
        return f"{DIGITS}:y_true", f"{DIGITS}:y_pred", args.weights
    if args.predictions is not None:
        if args.label_column is not None or args.prediction_columns is not None:
            raise ValueError("--label-column and --prediction-columns are for one file that holds both, but there are two")
        return args.labels, args.predictions, args.weights
    path, label = args.labels, args.label_column
    names = [] if label is None and path.lower().endswith(".npy") else column_names(path)
    if path.lower().endswith(".npz") and label is None and {"y_true", "y_pred"} <= set(names):
        label, others = "y_true", ["y_pred"]
    elif label is None:
        which = f"; or say with --label-column which of {path} is y_true: {', '.join(names[:8])}" if names else ""
        raise ValueError(f"PREDICTIONS, the file with y_pred, is missing{which}")
    else:
        label = _name(label, names)
        taken = {label}
        weights, columns = split_columns(args.weights or "")
        if columns and os.path.realpath(weights) == os.path.realpath(path):
            taken |= {_name(column, names) for column in columns}
        others = [name for name in names if name not in taken and name]
    if args.prediction_columns is not None:
        others = args.prediction_columns.split(",")
    y_true = open_rows(path, "y_true", [label])
    try:
        return y_true, open_rows(path, "y_pred", others), args.weights
    except BaseException:
        y_true.close()
        raise


def _name(column: str, names: list[str]) -> str:
    return names[int(column)] if column not in names and column.isdecimal() and int(column) < len(names) else column


def _functions(args: argparse.Namespace) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The losses and the metrics, each with its own options, and the options for all."""
    losses, metrics = ([(name, _values(own) if colon else {}) for name, colon, own in (text.partition(":") for text in texts)]
                       for texts in (args.loss, args.metric))  # fmt: skip
    common: dict[str, Any] = {}
    for text in args.option:
        name, colon, own = text.partition(":")
        if not colon or "=" in name:
            common |= _values(text)
        elif name not in {function for function, _ in (*losses, *metrics)}:
            raise ValueError(f"--option {text} is for {name}, which is not asked for")
        for functions in (losses, metrics):
            functions[:] = [(f, options | _values(own) if f == name else options) for f, options in functions]
    return losses, metrics, common


def _values(text: str) -> dict[str, Any]:
    """OPTION=VALUE,... with Python's numbers, tuples and lists, and true, false and none."""
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not call.keywords or not all(k.arg for k in call.keywords):
            raise ValueError
        return {str(k.arg): _value(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"an option must be OPTION=VALUE, the value a number, true, false, none or a list, got {text!r}") from None


def _value(node: ast.expr) -> Any:
    words = {"true": True, "false": False, "none": None}
    if isinstance(node, ast.Name) and node.id.lower() in words:
        return words[node.id.lower()]
    return ast.literal_eval(node)
