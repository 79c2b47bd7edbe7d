"""`lossfuncs info NAME`: all about a loss or metric, under any name that Keras has had for it."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any

from . import show

ROWS = {"last": "the last axis", "axis": "the axes that the option axis says", "element": "each element by itself", "own": "see above"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a name of any generation of Keras: mse, KLDivergence, cosine_proximity, ...")


def run(args: argparse.Namespace) -> int:
    from .. import metrics, names, table

    name, found = args.name, {}
    for kind in names.SPELLINGS:
        if name in names.SPELLINGS[kind]:
            found[kind] = names.find(kind, name)
    if not found:
        raise ValueError(_unknown(name))
    entries = {"loss": table.LOSSES, "metric": table.METRICS}
    described: dict[Any, list[str]] = {}
    for kind, canonical in found.items():
        entry = next((e for e in entries[kind] if e.name == canonical), None)
        described.setdefault(entry.function if entry else canonical, []).append(kind)
    for i, (subject, kinds) in enumerate(described.items()):
        print("\n" * (i > 0) + show.bold(f"{found[kinds[0]]}, {' and '.join(kinds)}"))
        print()
        cls = metrics.REGISTRY.classes.get(subject) if isinstance(subject, str) else None
        if cls is not None:
            print(f"  lossfuncs.metrics.{subject}{_signature(cls)}")
            print()
            print(*(f"  {line}".rstrip() for line in (inspect.getdoc(cls) or "").splitlines()), sep="\n")
        elif isinstance(subject, str):
            print("  lossfuncs knows the name, which older generations of Keras had, but not the thing.")
        else:
            _describe(next(e for e in entries[kinds[0]] if e.function is subject))
        _spellings(kinds, found)
    return 0


def _signature(cls: type) -> inspect.Signature:
    """Without the annotations."""
    signature = inspect.signature(cls)
    return inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()])


def _unknown(name: str) -> str:
    import difflib

    from .. import names

    close = difflib.get_close_matches(name, {string for known in names.SPELLINGS.values() for string in known}, 1)
    return f"there is no loss or metric {name!r}" + (f". Did you mean {close[0]!r}?" if close else "; `lossfuncs list` shows all")


def _describe(entry: Any) -> None:
    from ..dispatch import BACKENDS

    function = entry.function
    options = [f"{name}={value!r}" if value is not _Required else f"{name} (required)" for name, value in _options(function)]
    y_true, y_pred = _words()
    facts = [
        ("y_true", y_true.get(entry.targets, entry.targets)),
        ("y_pred", y_pred.get(entry.predictions) or y_true.get(entry.predictions, entry.predictions)),
        ("a row", ROWS[entry.shape]),
        ("options", ", ".join(options) or "none"),
        ("derivatives", _derivatives(entry)),
        ("backends", ", ".join(BACKENDS)),
        *([("note", entry.note)] if entry.note else []),
    ]
    signature = inspect.signature(function).parameters.values()
    parameters = (str(p.replace(annotation=p.empty)) for p in signature if p.kind is not p.KEYWORD_ONLY)
    print(f"  {function.__module__.rpartition('.')[0]}.{entry.name}({', '.join(parameters)}, *, sample_weight=None, reduction=None)")
    print()
    print(*(f"  {line}".rstrip() for line in (inspect.getdoc(function) or "").splitlines()), sep="\n")
    print()
    print(*show.columns(facts), sep="\n")


class _Required:
    """Stands for the value of an option that has no default."""


def _options(function: Any) -> list[tuple[str, Any]]:
    from ..call import REQUIRED

    return [(name, _Required if value is REQUIRED else value) for name, value in function.defaults.items()]


def defaults(function: Any) -> dict[str, Any]:
    """The options of a function with their defaults; "required" where there is none."""
    return {name: "required" if value is _Required else value for name, value in _options(function)}


def _words() -> tuple[dict[str, str], dict[str, str]]:
    """What the table's own text says about the domains of y_true and of y_pred."""
    from .. import table

    sections = re.split(r"^(?=\w)", table.__doc__ or "", flags=re.MULTILINE)
    found = {section.split()[0]: dict(re.findall(r"^ {8,}([\w-]+) {2,}(\S.*)$", section, re.MULTILINE)) for section in sections if section}
    return found.get("targets", {}), found.get("predictions", {})


def _derivatives(entry: Any) -> str:
    import numpy as np

    from ..dispatch import prepare
    from ..domains import draw

    shape = (2, 4, 3) if entry.targets == "sequence" else (2, 3)
    required = {name: 0.5 for name, value in _options(entry.function) if value is _Required}

    def exists(order: int, **options: Any) -> bool:
        y_true, y_pred = draw(entry, shape, np.random.default_rng(0))
        try:
            prepare(entry.function, y_true, y_pred, required | options, None, None).check_order(order)
        except ValueError:
            return False
        return True

    if not exists(1):
        return "none"
    if exists(2):
        return "gradient, second derivative"
    if "from_logits" in entry.function.defaults and exists(2, from_logits=True):
        return "gradient, and from logits the second derivative"
    return "gradient"


def _spellings(kinds: list[str], found: dict[str, str]) -> None:
    from .. import names

    short = {"function": "function", "class": "class", "class with required arguments": "class(...)"}
    rows = []
    for kind in kinds:
        for string, spelling in names.SPELLINGS[kind].items():
            if spelling.name == found[kind]:
                accepted = names.accepted(kind, string)
                rows.append((kind, string, *(short.get(accepted.get(g, ""), "-") for g in names.GENERATIONS)))
    print()
    print(*show.columns([("as a", "the string", *names.GENERATIONS), *rows]), sep="\n")
