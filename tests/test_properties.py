"""Laws that hold for any input: hypothesis draws shapes, dtypes, layouts and values, NaN, infinities, subnormal and huge ones included."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from cases import BASES, DIFFERENTIABLE, DIGITS, DTYPES, ENTRIES, assert_equal, bits, by_name, inputs, layouts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lossfuncs
from lossfuncs.table import Entry

# LOSSFUNCS_EXAMPLES=20000 for the whole of it.
EXAMPLES = int(os.environ.get("LOSSFUNCS_EXAMPLES", 0))
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": not EXAMPLES, "database": None}
FEW, MANY = settings(max_examples=EXAMPLES or 15, **SLOW), settings(max_examples=EXAMPLES or 300, **SLOW)  # type: ignore[arg-type]

# What may stand in a float32 array, and by what an ordinary draw is multiplied.
STRANGE = (0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e-38, 3e38, -3e38, 1e-7, 1.0 - 2.0**-24, 88.0, -104.0)
SCALES = (1.0, 1.0, 1.0, 1e-3, 1e3, 1e-30, 1e18)
ROWS = st.integers(1, 140)
LENGTHS = st.one_of(st.integers(1, 140), st.sampled_from([1, 7, 8, 63, 64, 65, 96, 97, 128, 129, 1000]))


def reference(function: Any, *args: Any, **options: Any) -> Any:
    with lossfuncs.backend("numpy"):
        return function(*args, **options)


def derivable(entry: Entry) -> bool:
    return "accuracy" not in entry.name


def everything(entry: Entry, t: Any, p: Any, **options: Any) -> tuple[Any, ...]:
    """The values, and the gradient where there is one."""
    if derivable(entry):
        return lossfuncs.value_and_grad(entry.function, t, p, **options)
    return (entry.function(t, p, **options),)


def strange(data: Any, x: Any) -> Any:
    """x with some strange values in it."""
    x = x.copy()
    for _ in range(data.draw(st.integers(0, 3))):
        x.reshape(-1)[data.draw(st.integers(0, x.size - 1))] = data.draw(st.sampled_from(STRANGE))
    return x


def agree(entry: Entry, options: dict[str, Any], data: Any, kinds: tuple[str, ...] = ("float32",)) -> None:
    kind = data.draw(st.sampled_from(kinds))
    shape = data.draw(ROWS), data.draw(LENGTHS)
    t, p = inputs(entry, options, shape, DTYPES[kind], data.draw(st.integers(0, 5)))
    scale = data.draw(st.sampled_from(SCALES))
    with np.errstate(all="ignore"):
        p = strange(data, (p.astype(np.float64) * scale).astype(p.dtype))
        if entry.targets in ("real", "positive", "count"):
            t = strange(data, (t.astype(np.float64) * scale).astype(t.dtype))
    if data.draw(st.booleans()):
        p = dict(layouts(p))[data.draw(st.sampled_from(["strided", "negative strides", "Fortran order", "unaligned"]))]
    t64 = t if entry.targets == "index" else t.astype(np.float64)
    got, wanted = everything(entry, t, p, **options), reference(everything, entry, t64, p.astype(np.float64), **options)
    with np.errstate(all="ignore"):
        p64 = p.astype(np.float64)
        size = np.max(np.abs(np.where(np.isfinite(p64), p64, 0.0)), axis=-1)
        terms = np.maximum(size, 1.0) * np.maximum(1.0, np.abs(t64).max(axis=-1) if t64.ndim == 2 else 1.0)
        sizes = (terms * DIGITS[kind] * shape[1], np.max(np.where(np.isfinite(wanted[-1]), np.abs(wanted[-1]), 0.0), initial=0.0))
    for g, w, s in zip(got, wanted, sizes, strict=False):
        s = s[:, None] if np.ndim(s) == 1 and np.ndim(w) == 2 else s
        assert_equal(g, w, DTYPES[kind], s, f"{entry.name} {kind} {shape}")


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_backends_agree(entry: Entry, options: dict[str, Any]) -> None:
    @FEW
    @given(st.data())
    def law(data: Any) -> None:
        agree(entry, options, data)

    law()


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "options"), BASES)
def test_backends_agree_on_many(entry: Entry, options: dict[str, Any]) -> None:
    @MANY
    @given(st.data())
    def law(data: Any) -> None:
        agree(entry, options, data, tuple(DTYPES))

    law()


# scikit-learn's laws. Rows do not know each other: what holds for them holds for their bits. A total is added up in another order.


def rowwise(entry: Entry, options: dict[str, Any], seed: int = 0, shape: tuple[int, int] = (130, 9)) -> tuple[Any, Any]:
    t, p = inputs(entry, options, shape, np.float32, seed)
    if entry.labels01:
        t[-1] = -t[-1]  # never 0 and 1 alone in any part
    return t, p


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_rows_in_another_order_give_their_values_in_that_order(entry: Entry, options: dict[str, Any]) -> None:
    for n in (9, 129):
        t, p = rowwise(entry, options, shape=(130, n))
        order = np.random.default_rng(0).permutation(len(p))
        for one, other in zip(everything(entry, t, p, **options), everything(entry, t[order], p[order], **options), strict=True):
            assert bits(one[order]) == bits(other)
    t, p = rowwise(entry, options)
    total = entry.function(t, p, reduction="sum", **options)
    order = np.random.default_rng(1).permutation(len(p))
    assert entry.function(t[order], p[order], reduction="sum", **options) == pytest.approx(total, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_a_batch_in_parts_is_the_whole(entry: Entry, options: dict[str, Any]) -> None:
    t, p = rowwise(entry, options)
    whole = everything(entry, t, p, **options)
    total = entry.function(t, p, reduction="sum", **options)
    for cuts in ([1], [64], [7, 64, 65]):
        parts = list(zip(np.split(t, cuts), np.split(p, cuts), strict=True))
        for i, result in enumerate(whole):
            assert b"".join(bits(everything(entry, a, b, **options)[i]) for a, b in parts) == bits(result)
        assert sum(entry.function(a, b, reduction="sum", **options) for a, b in parts) == pytest.approx(total, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("entry", "options"), [one for one in BASES if one.values[0].shape != "element"])
def test_a_weight_of_2_is_the_row_twice_and_of_0_the_row_left_out(entry: Entry, options: dict[str, Any], backend: str) -> None:
    t, p = rowwise(entry, options)
    weight = np.random.default_rng(0).integers(0, 3, len(p))
    again = np.repeat(np.arange(len(p)), weight)
    mean = entry.function(t, p, sample_weight=weight, reduction="mean_with_sample_weight", **options)
    assert entry.function(t[again], p[again], reduction="mean", **options) == pytest.approx(mean, rel=1e-12, abs=1e-14)
    ones = entry.function(t, p, sample_weight=np.ones(len(p)), reduction="mean", **options)
    assert entry.function(t, p, reduction="mean", **options) == pytest.approx(ones, rel=1e-12, abs=1e-14)
    scaled = entry.function(t, p, sample_weight=8.0 * weight, reduction="mean_with_sample_weight", **options)
    assert scaled == pytest.approx(mean, rel=1e-15, abs=0.0)


CLASSES = [one for one in BASES if one.values[0].targets in ("one-hot", "index")]


@pytest.mark.parametrize(("entry", "options"), CLASSES)
def test_classes_in_another_order_change_nothing(entry: Entry, options: dict[str, Any]) -> None:
    for n in (9, 129):
        t, p = rowwise(entry, options, shape=(70, n))
        order = np.random.default_rng(0).permutation(n)
        place = np.argsort(order)
        other = place[t] if entry.targets == "index" else t[:, order]
        one, two = everything(entry, t, p, **options), everything(entry, other, p[:, order], **options)
        for x, y in zip(one, (two[0], *(g[:, place] for g in two[1:])), strict=True):
            assert_equal(y, x.astype(np.float64), np.dtype(np.float32), np.max(np.abs(x), initial=0.0))


@pytest.mark.parametrize("threads", [1, 2, 5, 64])
def test_the_number_of_threads_does_not_change_a_bit(threads: int) -> None:
    entry = by_name("loss", "binary_crossentropy")
    t, p = inputs(entry, {}, (40_000, 31))
    before = lossfuncs.get_num_threads()
    wanted = lossfuncs.value_and_grad("bce", t, p), entry.function(t, p, reduction="mean")
    try:
        lossfuncs.set_num_threads(threads)
        got = lossfuncs.value_and_grad("bce", t, p), entry.function(t, p, reduction="mean")
    finally:
        lossfuncs.set_num_threads(before)
    assert [bits(x) for x in (*got[0], got[1])] == [bits(x) for x in (*wanted[0], wanted[1])]


@pytest.mark.parametrize("kind", DTYPES)
def test_a_call_leaves_its_arrays_alone(kind: str, backend: str) -> None:
    entry = by_name("loss", "categorical_crossentropy")
    t, p = inputs(entry, {}, (66, 9), DTYPES[kind])
    weight = np.arange(66.0)
    before = [bits(x) for x in (t, p, weight)]
    for reduction in (None, "mean", "mean_with_sample_weight"):
        lossfuncs.value_and_grad(entry.function, t, p, sample_weight=weight, reduction=reduction, upstream=2.0)
    assert [bits(x) for x in (t, p, weight)] == before


def test_values_and_gradients_of_one_call_are_those_of_two() -> None:
    """The gradient's kernel gives the values that the values' kernel gives, to the last bit."""
    for i, one in enumerate(DIFFERENTIABLE[::2]):
        entry, options = one.values
        t, p = inputs(entry, options, (70, (9, 129)[i % 2]))
        assert bits(entry.function(t, p, **options)) == bits(lossfuncs.value_and_grad(entry.function, t, p, **options)[0]), one.id


def test_the_table_holds_no_function_that_the_laws_leave_out() -> None:
    assert {entry.name for entry in ENTRIES} == {one.values[0].name for one in BASES} | {"circle", "ctc"}
