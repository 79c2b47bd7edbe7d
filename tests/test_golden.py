"""Keras' own numbers, through the public functions, on every backend.

`golden/` holds what Keras 3.15.1 (torch on a CPU, and in float64 with its 32-bit cap lifted), tf_keras 2.21, Keras 2.3.1 and 2.2.4
return for the same calls: inputs, values, gradients of the sum of the values. Cases that we differ in on purpose are listed below, and
are checked to differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import names

GOLDEN = Path(__file__).parent / "golden"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "functions.json").read_text())}
with np.load(GOLDEN / "functions.npz") as stored:
    NUMBERS = dict(stored)

DEVIATIONS: dict[str, str] = {}


def array(dtype: str, shape: list[int], stored_as: str, begin: int) -> Any:
    size = int(np.prod(shape))
    with np.errstate(over="ignore"):  # a float16 case may hold inf where the float64 one does not
        return NUMBERS[stored_as][begin : begin + size].astype(dtype).reshape(shape)


def run(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What we return and what Keras did: out, and grad where there is one."""
    arrays = {role: array(*where) for role, where in case["arrays"].items()}
    module = lossfuncs.losses if case["kind"] == "loss" else lossfuncs.metrics
    function = getattr(module, names.find(case["kind"], case["name"]))
    options = {**case["kwargs"], **{role: arrays[role] for role in ("ref_labels", "ref_embeddings") if role in arrays}}
    t, p = arrays["y_true"], arrays["y_pred"]
    got = {"out": function(t, p, **options)}
    if "grad" in arrays:
        value, got["grad"] = lossfuncs.value_and_grad(function, t, p, **options)
        np.testing.assert_allclose(value, got["out"], rtol=1e-6 if case["dtype"] == "float32" else 1e-12)
    return got, arrays


def differences(case: dict[str, Any]) -> list[str]:
    """The roles, out or grad, in which we are close to neither of the results that Keras has."""
    rtol, atol = case["tol"]
    got, wanted = run(case)
    # torch's softplus is the identity above 20: an error of 2e-9, times gamma in circle's gradient
    gradient_atol = 1e-6 if case["name"] == "circle" else atol
    return [
        role
        for role, result in got.items()
        if not any(
            np.shape(result) == other.shape
            and np.allclose(result, other, rtol, gradient_atol if role == "grad" else atol, equal_nan=True)
            for other in (wanted[r] for r in (role, f"{role}_ref64") if r in wanted)
        )
    ]


@pytest.fixture(params=lossfuncs.dispatch.BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with lossfuncs.backend(request.param):
        yield request.param


@pytest.mark.parametrize("case", [case for case in CASES.values() if case["id"] not in DEVIATIONS], ids=lambda case: case["id"])
def test_keras_result_is_ours(case: dict[str, Any], backend: str) -> None:
    assert differences(case) == []


@pytest.mark.parametrize("case", [CASES[name] for name in DEVIATIONS], ids=lambda case: case["id"])
def test_a_listed_deviation_is_one(case: dict[str, Any], backend: str) -> None:
    try:
        found = differences(case)
    except ValueError:
        return
    assert found


def test_every_loss_and_metric_function_has_cases() -> None:
    for kind, entries in (("loss", lossfuncs.table.LOSSES), ("metric", lossfuncs.table.METRICS)):
        covered = {names.find(case["kind"], case["name"]) for case in CASES.values() if case["kind"] in (kind, "loss")}
        assert {entry.name for entry in entries} <= covered
