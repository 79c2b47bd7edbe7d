"""`lossfuncs list`: the table."""

from __future__ import annotations

import argparse
import json
from typing import Any

from . import show


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from ..dispatch import BACKENDS
    from ..table import LOSSES, METRICS

    if args.json:
        over_data = [{"name": name, "aliases": aliases.split(), "note": note} for name, aliases, note in _over_data()]
        print(json.dumps({"losses": [_fields(entry) for entry in LOSSES], "metrics": [_fields(entry) for entry in METRICS],
                          "metrics_over_data": over_data, "backends": BACKENDS}, indent=2))  # fmt: skip
        return 0
    losses = {entry.function for entry in LOSSES}
    for title, entries in (("Losses", LOSSES), ("Metrics", METRICS)):
        families: dict[str, list[str]] = {}
        lines = show.columns([(e.name, f"{e.targets} / {e.predictions}", e.aliases) for e in entries], indent="    ")
        for entry, line in zip(entries, lines, strict=True):
            also = " losses" if title == "Metrics" and entry.function in losses else ""
            families.setdefault(_family(entry) + also, []).append(line)
        print(show.bold(title))
        for family, members in families.items():
            print(f"  {show.dim(family)}", *members, sep="\n")
        print()
    print(show.bold("Metrics over data"))
    print(*show.columns([(name, aliases) for name, aliases, _ in _over_data()], indent="    "), "", sep="\n")
    print("Columns: name, what y_true / y_pred hold, other names. `lossfuncs info NAME` tells more, about any of the names.")
    print(f"Backends, for all of them: {', '.join(BACKENDS)}.")
    return 0


def _over_data() -> list[tuple[str, str, str]]:
    """The metrics that are no mean over samples: name, other names, what it is."""
    from ..metrics import REGISTRY, MeanMetricWrapper, Metric
    from ..names import METRICS

    apart = [cls for name, cls in REGISTRY.classes.items() if name in METRICS and cls not in (Metric, MeanMetricWrapper)]
    spellings = {cls.__name__: [spelling.partition(":")[0] for spelling in METRICS[cls.__name__].split()] for cls in apart}
    return [(cls.__name__, " ".join(x for x in spellings[cls.__name__] if x != cls.__name__),
             (cls.__doc__ or "").partition("\n")[0]) for cls in apart]  # fmt: skip


def _family(entry: Any) -> str:
    """The module that holds it, as in Keras."""
    return str(entry.function.__module__.rpartition(".")[2])


def _fields(entry: Any) -> dict[str, Any]:
    from .info import defaults

    return {
        "name": entry.name,
        "aliases": entry.aliases.split(),
        "family": _family(entry),
        "targets": entry.targets,
        "predictions": entry.predictions,
        "options": defaults(entry.function),
        "note": entry.note,
    }
