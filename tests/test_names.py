"""The strings of every Keras generation, and the table that answers them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import lossfuncs
from lossfuncs.names import GENERATIONS, SPELLINGS, accepted, find
from lossfuncs.table import LOSSES, METRICS, Entry

GOLDEN = Path(__file__).parent / "golden"
ALIASES = json.loads((GOLDEN / "aliases.json").read_text())
SIGNATURES = json.loads((GOLDEN / "signatures.json").read_text())
KINDS = {"loss": ("losses", LOSSES), "metric": ("metrics", METRICS)}
STRINGS = [pytest.param(kind, string, id=f"{kind}-{string}") for kind, (plural, _) in KINDS.items() for string in ALIASES[plural]]


def is_function(kind: str, string: str) -> bool:
    """Whether any generation gives a function for it, rather than an object."""
    return "function" in ALIASES[KINDS[kind][0]][string].values()


@pytest.mark.parametrize(("kind", "string"), STRINGS)
def test_a_string_is_accepted_by_the_generations_that_keras_says(kind: str, string: str) -> None:
    assert accepted(kind, string) == ALIASES[KINDS[kind][0]][string]


@pytest.mark.parametrize(("kind", "string"), STRINGS)
def test_a_string_means_what_keras_says(kind: str, string: str) -> None:
    """All spellings of one thing in Keras are spellings of one thing here."""
    plural = KINDS[kind][0]
    canonical = ALIASES["canonical"][plural][string]
    together = {other for other, name in ALIASES["canonical"][plural].items() if name == canonical}
    assert {other for other in SPELLINGS[kind] if find(kind, other) == find(kind, string)} == together


@pytest.mark.parametrize(("kind", "string"), [param for param in STRINGS if is_function(*param.values)])
def test_a_function_string_names_the_function(kind: str, string: str) -> None:
    plural, table = KINDS[kind]
    function = getattr(lossfuncs, plural).REGISTRY.function(string)
    entry = next(entry for entry in table if string in (entry.name, *entry.aliases.split()))
    assert function is entry.function
    assert function.__name__ == find(kind, string)


@pytest.mark.parametrize(("kind", "string"), STRINGS)
def test_get_gives_what_the_newest_generation_that_knows_the_string_gives(kind: str, string: str) -> None:
    module = getattr(lossfuncs, KINDS[kind][0])
    known = ALIASES[KINDS[kind][0]][string]
    # Keras exports one loss that no generation of it knows by a string
    form = next((known[g] for g in reversed(GENERATIONS) if g in known), "class" if string[0].isupper() else "function")
    if find(kind, string) in ("MeanRelativeError", "MeanTensor", "SumOverBatchSize"):
        with pytest.raises(ValueError, match="older generations"):
            module.get(string)
    elif form == "class with required arguments":
        with pytest.raises(TypeError, match="missing"):
            module.get(string)
    elif form == "class":
        assert type(module.get(string)) in module.REGISTRY.classes.values()
    else:
        assert module.get(string) is module.REGISTRY.function(string)


@pytest.mark.parametrize("kind", KINDS)
def test_no_string_is_known_that_keras_does_not_know(kind: str) -> None:
    plural, table = KINDS[kind]
    assert set(SPELLINGS[kind]) == set(ALIASES[plural])
    in_table = [string for entry in table for string in (entry.name, *entry.aliases.split())]
    assert len(in_table) == len(set(in_table))
    assert set(in_table) <= set(SPELLINGS[kind])
    for entry in table:
        assert {string for string in SPELLINGS[kind] if find(kind, string) == entry.name} == {entry.name, *entry.aliases.split()}


def test_counts_by_generation() -> None:
    """As many strings as were counted in each generation's own modules."""
    counts = {
        kind: [sum(spelling.forms[i] != "-" for spelling in spellings.values()) for i in range(len(GENERATIONS))]
        for kind, spellings in SPELLINGS.items()
    }
    assert counts == {"loss": [25, 43, 47, 51, 56], "metric": [27, 65, 74, 78, 102]}


@pytest.mark.parametrize(
    ("kind", "string", "message"),
    [
        ("loss", "msee", "Could not interpret loss identifier: 'msee'. Did you mean 'mse'?"),
        ("loss", "Mse", "Could not interpret loss identifier: 'Mse'. Did you mean 'mse'?"),
        ("metric", "acuracy", "Could not interpret metric identifier: 'acuracy'. Did you mean 'accuracy'?"),
        ("metric", "kld", "Could not interpret metric identifier: 'kld'"),
        ("loss", "", "Could not interpret loss identifier: ''"),
    ],
)
def test_an_unknown_string_raises_with_the_nearest(kind: str, string: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        find(kind, string)
    assert str(raised.value) == message


def test_every_metric_string_says_what_it_is() -> None:
    assert accepted("metric", "AUC") == dict.fromkeys(GENERATIONS[1:], "class")
    assert find("metric", "io_u") == "IoU"
    assert accepted("metric", "io_u") == {"keras 3.15": "class with required arguments"}
    assert type(lossfuncs.metrics.get("AUC")) is lossfuncs.metrics.AUC
    with pytest.raises(ValueError, match="'AUC' is a metric that has no form as a function"):
        lossfuncs.metrics.REGISTRY.function("AUC")


@pytest.mark.parametrize("entry", [*LOSSES, *METRICS], ids=lambda entry: entry.name)
def test_an_entry_is_called_as_keras_calls_it(entry: Entry) -> None:
    """Keras' arguments and defaults, in Keras' order; then ours, by keyword only."""
    assert entry.function.__name__ == entry.name
    parameters = dict(inspect.signature(entry.function).parameters)
    for name in ("sample_weight", "reduction"):
        parameter = parameters.pop(name)
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is None
    unlisted: dict[str, dict[str, Any]] = {"accuracy": {"y_true": "<required>", "y_pred": "<required>"}}
    wanted = {**unlisted, **SIGNATURES["metric_functions"], **SIGNATURES["loss_functions"]}[entry.name]
    got = {name: "<required>" if p.default is inspect.Parameter.empty else p.default for name, p in parameters.items()}
    assert list(got.items()) == list(wanted.items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_keras_exports_is_there(kind: str) -> None:
    module = getattr(lossfuncs, KINDS[kind][0])
    missing = [name for what in ("functions", "classes") for name in SIGNATURES[f"{kind}_{what}"] if name not in module.__all__]
    assert missing == []


def test_every_entry_has_a_docstring_of_its_own() -> None:
    functions = {entry.function for entry in (*LOSSES, *METRICS)}
    assert len({inspect.getdoc(function) for function in functions}) == len(functions)
    for function in functions:
        summary = (inspect.getdoc(function) or "").splitlines()[0]
        assert summary.endswith("."), summary
