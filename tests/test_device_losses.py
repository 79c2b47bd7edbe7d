"""Loss classes, circle, ctc and a user's own losses of arrays in a device's memory, against the host."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest
from emulator.device import DEVICE, DeviceArray
from emulator.program import SCHEDULES, Schedule

import lossfuncs
from lossfuncs import gpu_own, losses
from lossfuncs.domains import draw
from lossfuncs.table import LOSSES, Entry
from lossfuncs.translate import Untranslatable

Array = np.ndarray[Any, np.dtype[Any]]
CLASSES = {entry.name: getattr(losses, entry.aliases.split()[0]) for entry in LOSSES}
ARGUMENTS = {"categorical_generalized_cross_entropy": {"q": 0.7}, "dice": {"axis": -1}, "tversky": {"axis": -1}}
SHAPES = {"circle": (9, 4), "ctc": (6, 8, 5)}
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def sent(x: Any) -> Any:
    return DEVICE.send(np.asarray(x))


def arrays(entry: Entry, seed: int = 0, dtype: Any = np.float32) -> tuple[Array, Array]:
    t, p = draw(entry, SHAPES.get(entry.name, (6, 5)), np.random.default_rng(seed), dtype)
    return t, p


def close(got: Any, wanted: Any, dtype: Any = np.float32, slack: float = 1e-13) -> None:
    """Equal to within a few units in the last place, and `slack` where terms cancel."""
    assert isinstance(got, DeviceArray)
    digits = max(4 * float(ml_dtypes.finfo(dtype).eps), slack)
    found, wanted = (np.asarray(x, np.float64) for x in (DEVICE.fetch(got), wanted))
    np.testing.assert_allclose(found, wanted, digits, digits * np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0))


KINDS = ("mean_squared_error", "dice", "categorical_hinge", "sparse_categorical_crossentropy", "circle", "ctc")


@pytest.mark.parametrize("entry", [entry for entry in LOSSES if entry.name in KINDS], ids=lambda entry: entry.name)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "none"])
def test_a_loss_object_masks_and_weighs_on_the_device_without_waiting(entry: Entry, reduction: str) -> None:
    loss = CLASSES[entry.name](**ARGUMENTS.get(entry.name, {}), reduction=reduction)
    t, p = arrays(entry)
    rng = np.random.default_rng(1)
    m = p.shape[0]
    mask, w = rng.integers(0, 2, m), rng.uniform(0.5, 2.0, m)
    inputs, there = (t, p, w), tuple(map(sent, (t, p, w)))
    wanted = [loss(t, p), loss(t, p, w), loss(t, p, w, mask=mask), *loss.value_and_grad(*inputs), *loss.value_and_grad(t, p, w, mask=mask)]
    masked, before = sent(mask), DeviceArray.waits
    got = [loss(*there[:2]), loss(*there), loss(*there, mask=masked)]
    got += [*loss.value_and_grad(*there), *loss.value_and_grad(*there, mask=masked)]
    assert DeviceArray.waits == before
    for mine, its in zip(got, wanted, strict=True):
        close(mine, its)


def test_what_is_masked_does_not_poison_the_rest() -> None:
    entry = next(entry for entry in LOSSES if entry.name == "sparse_categorical_crossentropy")
    labels, p = arrays(entry)
    labels[2], p[4] = 77, math.nan
    mask = np.array([1, 1, 0, 1, 0, 1])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    value, gradient = loss.value_and_grad(sent(labels), sent(p), mask=sent(mask))
    close(value, loss(labels, p, mask=mask))
    assert not DEVICE.fetch(gradient)[mask == 0].any()
    assert lossfuncs.gpu.bad_row(DEVICE) is None


def test_a_loss_object_of_a_dtype_gives_it_on_the_device() -> None:
    loss = losses.MeanSquaredError(dtype="float16")
    t, p = np.zeros((3, 2), np.float32), np.full((3, 2), 1.5, np.float32)
    value = loss(sent(t), sent(p))
    assert (value.dtype, float(value)) == (np.float16, 2.25)


# circle


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("samples", "references", "width"), [
    (1, None, 3), (7, None, 1), (66, None, 17), (5, 70, 33), (65, 3, 16), (4, 0, 2),
])  # fmt: skip
@pytest.mark.parametrize("at_once", [1 << 20, 150])
def test_circle_is_that_of_the_host(samples: int, references: int | None, width: int, dtype: Any, at_once: int,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(gpu_own, "SIMILARITIES", at_once)
    rng = np.random.default_rng([samples, width])
    embeddings = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype) for x in
                  (rng.normal(size=(samples, width)), rng.normal(size=(references or 0, width)))]  # fmt: skip
    labels, of_references = rng.integers(0, 3, samples), rng.integers(0, 3, references or 0)
    w = rng.uniform(0.5, 2.0, samples)
    options: dict[str, Any] = {"gamma": 12.0, "margin": 0.3}
    there = dict(options)
    if references is not None:
        options |= {"ref_labels": of_references, "ref_embeddings": embeddings[1]}
        there |= {"ref_labels": of_references, "ref_embeddings": sent(embeddings[1])}
    wanted = lossfuncs.value_and_grad("circle", labels, embeddings[0], sample_weight=w, **options)
    got = lossfuncs.value_and_grad("circle", sent(labels), sent(embeddings[0]), sample_weight=w, **there)
    for mine, its in zip(got, wanted, strict=True):
        assert mine.dtype == dtype
        close(mine, its, dtype)
    total = lossfuncs.losses.circle(sent(labels), sent(embeddings[0]), sample_weight=w, reduction="mean", **there)
    close(total, lossfuncs.losses.circle(labels, embeddings[0], sample_weight=w, reduction="mean", **options), np.float64)


def test_circle_takes_columns_that_lie_apart_and_pairs_with_themselves() -> None:
    rng = np.random.default_rng(2)
    labels, p = rng.integers(0, 2, 20), np.asfortranarray(rng.normal(size=(20, 6)) / 3.0)
    for remove in (True, False):
        wanted = lossfuncs.losses.circle(labels, p, remove_diagonal=remove)
        np.testing.assert_array_equal(wanted, lossfuncs.losses.circle(labels, p.copy(order="C"), remove_diagonal=remove))
        close(lossfuncs.losses.circle(sent(labels), DEVICE.send(p.T.copy()).T, remove_diagonal=remove), wanted, np.float64)


def test_circle_labels_that_are_not_whole_are_equal_or_not() -> None:
    p = np.eye(4)
    labels = np.array([0.5, 1.0, 0.5, 2.5])
    close(lossfuncs.losses.circle(sent(labels), sent(p)), lossfuncs.losses.circle(np.array([7, 1, 7, 8]), p), np.float64)


def test_a_reference_elsewhere_is_named() -> None:
    labels, p = np.array([0, 1]), np.eye(2)
    with pytest.raises(TypeError, match="^ref_embeddings is on a GPU, but y_pred is not: move one of them$"):
        lossfuncs.losses.circle(labels, p, ref_labels=labels, ref_embeddings=sent(p))


# ctc


def sequences(batch: int, frames: int, classes: int, length: int, spread: float, dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng([batch, frames, classes, length])
    labels = rng.integers(1, classes, (batch, length))
    labels = np.where(np.arange(length) < rng.integers(0, length + 1, (batch, 1)), labels, 0)
    return labels, (spread * rng.normal(size=(batch, frames, classes))).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [0.5, 20.0])
@pytest.mark.parametrize(("batch", "frames", "classes", "length"), [
    (1, 1, 2, 1), (3, 0, 3, 2), (2, 5, 4, 0), (3, 2, 3, 2), (5, 9, 4, 4), (2, 40, 70, 19), (2, 70, 6, 33), (3, 3, 3, 6),
])  # fmt: skip
def test_ctc_is_that_of_the_host(batch: int, frames: int, classes: int, length: int, spread: float, dtype: Any) -> None:
    labels, logits = sequences(batch, frames, classes, length, spread, dtype)
    w = np.random.default_rng(3).uniform(0.5, 2.0, batch)
    wanted = lossfuncs.value_and_grad("ctc", labels, logits, sample_weight=w)
    got = lossfuncs.value_and_grad("ctc", sent(labels), sent(logits), sample_weight=sent(w))
    for mine, its in zip(got, wanted, strict=True):
        assert mine.dtype == dtype
        close(mine, its, dtype, 1e-11 if mine is got[1] else 0.0)  # on the host float64's gradient loses digits
    total = lossfuncs.losses.ctc(sent(labels), sent(logits), reduction="mean")
    close(total, lossfuncs.losses.ctc(labels, logits, reduction="mean"), np.float64)


@pytest.mark.parametrize("limit", ["shared memory", "workspace"])
def test_ctc_of_any_length_in_any_room(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = sequences(5, 60, 9, 25, 2.0, np.float32)
    wanted = [DEVICE.fetch(x) for x in lossfuncs.value_and_grad("ctc", sent(labels), sent(logits))]
    if limit == "workspace":
        monkeypatch.setattr(gpu_own, "WORKSPACE", 120_000)  # of two sequences
    else:
        monkeypatch.setattr(DEVICE, "shared", 1000)
    got = lossfuncs.value_and_grad("ctc", sent(labels), sent(logits))
    assert [DEVICE.fetch(x).tobytes() for x in got] == [x.tobytes() for x in wanted]


def test_ctc_has_the_same_bits_in_any_order_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = sequences(2, 12, 40, 7, 2.0, np.float32)
    found = set()
    for schedule in SCHEDULES:
        monkeypatch.setattr(DEVICE, "schedule", Schedule(schedule, 11))
        found.add(b"".join(DEVICE.fetch(x).tobytes() for x in lossfuncs.value_and_grad("ctc", sent(labels), sent(logits))))
    assert len(found) == 1


def test_ctc_takes_any_layout_and_writes_in_place() -> None:
    labels, logits = sequences(3, 7, 6, 3, 2.0, np.float32)
    value, wanted = lossfuncs.value_and_grad("ctc", labels, logits)
    frames_first = DEVICE.send(np.ascontiguousarray(logits.transpose(1, 0, 2))).transpose(1, 0, 2)
    for x in (frames_first, sent(logits)):
        got = lossfuncs.value_and_grad("ctc", sent(labels), x, out=x)
        assert got[1] is x
        close(got[0], value)
        close(x, wanted)


def test_ctc_labels_out_of_range_read_nothing_and_are_told() -> None:
    labels, logits = sequences(4, 6, 5, 2, 1.0, np.float64)
    labels[1, 1], labels[3, 0] = 5, -1
    wanted = lossfuncs.value_and_grad("ctc", np.where((labels < 0) | (labels > 4), 0, labels), logits)
    value, gradient = (DEVICE.fetch(x) for x in lossfuncs.value_and_grad("ctc", sent(labels), sent(logits)))
    for mine, its in ((value, wanted[0]), (gradient, wanted[1])):
        assert np.isnan(mine[[1, 3]]).all()
        np.testing.assert_allclose(mine[[0, 2]], its[[0, 2]], 1e-13)
    assert lossfuncs.gpu.bad_row(DEVICE) == 1
    with lossfuncs.backend("emulated"), pytest.raises(ValueError, match=r"^y_true\[1, 1\] is 5, but y_pred has classes 0 to 4"):
        lossfuncs.losses.ctc(labels, logits)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e6, -1e6, -3e38])
def test_ctc_of_odd_logits_is_that_of_the_host(odd: float) -> None:
    labels, logits = sequences(4, 6, 5, 2, 1.0, np.float32)
    labels[:2] = [[1, 2], [2, 2]]
    logits[0, 1, 2], logits[1, :, 3], logits[2, 3] = odd, odd, odd
    with np.errstate(all="ignore"):
        wanted = lossfuncs.value_and_grad("ctc", labels, logits)
    got = lossfuncs.value_and_grad("ctc", sent(labels), sent(logits))
    for mine, its in zip(got, wanted, strict=True):
        close(mine, its)


def test_ctc_of_logits_without_digits_stays_in_its_bounds() -> None:
    labels, logits = np.array([[2, 2]]), np.zeros((1, 6, 5), np.float32)
    logits[:, :, 3] = 3e38
    value, gradient = (DEVICE.fetch(x) for x in lossfuncs.value_and_grad("ctc", sent(labels), sent(logits.astype(np.float64))))
    assert value == pytest.approx(18e38, rel=1e-6)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() <= 5.0  # of five places each has a share of 1 at most


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e20])
def test_circle_of_odd_embeddings_is_that_of_the_host(odd: float) -> None:
    labels, p = np.array([0, 1, 0, 1, 0]), np.random.default_rng(8).normal(size=(5, 3)) / 2.0
    p[2, 1] = odd
    with np.errstate(all="ignore"):
        wanted = lossfuncs.value_and_grad("circle", labels, p, gamma=2.0)
    got = lossfuncs.value_and_grad("circle", sent(labels), sent(p), gamma=2.0)
    for mine, its in zip(got, wanted, strict=True):
        close(mine, its, np.float64)


def test_ctc_keeps_the_digits_of_a_sure_and_of_a_hopeless_reading() -> None:
    """Against 60 digits; the frames are short enough to go over all readings."""
    labels = np.array([[1, 2, 0], [2, 2, 0], [1, 2, 1]])
    frames = [[0, 1, 2, 0, 0], [2, 0, 2, 0, 0], [1, 1, 2, 0, 1]]
    for sure in (3.0, 25.0, 200.0, -40.0, -500.0):
        logits = np.array([[[sure if k == place else 0.125 * k for k in range(3)] for place in row] for row in frames])
        got = DEVICE.fetch(lossfuncs.losses.ctc(sent(labels), sent(logits)))
        with mp.workdps(400):
            for value, row, x in zip(got, labels, logits, strict=True):
                wanted = reading_cost([k for k in row if k], x)
                assert abs(value - wanted) <= 2e-15 * abs(wanted), (sure, row)


def reading_cost(labels: list[int], logits: Array) -> Any:
    p = [[mp.exp(mp.mpf(float(x))) for x in row] for row in logits]
    p = [[x / mp.fsum(row) for x in row] for row in p]
    found = mp.mpf(0)
    for path in np.ndindex(*(3,) * len(logits)):
        merged = [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)]
        if merged == list(labels):
            found += mp.fprod(p[i][k] for i, k in enumerate(path))
    return -mp.log(found)


@pytest.mark.parametrize(("dtype", "digits", "least"), [(np.float16, 11, -24), (ml_dtypes.bfloat16, 8, -133)])
def test_results_are_rounded_once(dtype: Any, digits: int, least: int) -> None:
    """From double, though on the way they are a float: next to the middle between two neighbours."""
    rng = np.random.default_rng(7)
    middles = (2.0 * rng.integers(2 ** (digits - 1), 2**digits, 2000) + 1.0) * 2.0 ** rng.integers(least + digits, 5 - digits, 2000)
    x = np.concatenate([middles * (1.0 + 2.0**-k * sign) for k in (20, 30, 40, 51) for sign in (-1.0, 1.0)])
    x = np.concatenate([x, -x, middles, [math.inf, -math.inf, math.nan, 0.0, 1e300, -1e300]])
    out = DEVICE.empty(x.shape, dtype)
    gpu_own._give(DEVICE, sent(x), None, out)
    exponent = np.maximum(np.floor(np.log2(np.abs(np.where(np.isfinite(x) & (x != 0.0), x, 1.0)))), least + digits - 1)
    unit = 2.0 ** (exponent - digits + 1)
    with np.errstate(over="ignore"):
        wanted = np.where(np.abs(x) == 1e300, np.copysign(math.inf, x), np.rint(x / unit) * unit)  # exact, ties to even
    np.testing.assert_array_equal(DEVICE.fetch(out).astype(np.float64), wanted)


# A user's own


def pinball(t, p, tau=0.5):  # type: ignore[no-untyped-def]
    return max(tau * (t - p), (tau - 1) * (t - p))


def pinball_slope(t, p, tau=0.5):  # type: ignore[no-untyped-def]
    return 1 - tau if p > t else -tau


TRANSLATED = lossfuncs.pointwise(pinball, pinball_slope, name="pin ball")
WRITTEN = lossfuncs.pointwise(pinball, pinball_slope, name="pin ball", cuda="""
    __device__ T value(T t, T p) const { return maximum(tau * (t - p), (tau - T(1)) * (t - p)); }
    __device__ T slope(T t, T p) const { return p > t ? T(1) - tau : -tau; }
""")


@pytest.mark.parametrize("loss", [TRANSLATED, WRITTEN])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_users_own_loss_is_computed_on_the_device(loss: Any, dtype: Any) -> None:
    t, p = np.random.default_rng(4).normal(size=(2, 30, 11)).astype(dtype)
    w = np.random.default_rng(5).uniform(size=30)
    for options in ({}, {"tau": 0.9, "reduction": "mean"}, {"tau": 0.2, "sample_weight": w}):
        wanted = lossfuncs.value_and_grad(loss, t, p, **options)
        got = lossfuncs.value_and_grad(loss, sent(t), sent(p), **options)
        close(got[0], wanted[0], dtype if not options.get("reduction") else np.float32)
        close(got[1], wanted[1], dtype)


@pytest.mark.parametrize("name", ["2nd loss", "größe", "<lambda>", "double"])
def test_a_users_loss_may_have_any_name_and_a_second_derivative(name: str) -> None:
    cubic = lossfuncs.pointwise(
        lambda t, p, k=3.0: abs(p - t) ** k,
        slope=lambda t, p, k=3.0: k * abs(p - t) ** (k - 1) * math.copysign(1.0, p - t),
        curve=lambda t, p, k=3.0: k * (k - 1) * abs(p - t) ** (k - 2),
        name=name,
    )
    t, p = np.random.default_rng(6).normal(size=(2, 4, 70))
    for got, wanted in zip(lossfuncs.grad_and_hess(cubic, sent(t), sent(p)), lossfuncs.grad_and_hess(cubic, t, p), strict=True):
        close(got, wanted, np.float64)


def test_a_users_loss_that_cannot_be_translated_says_so_on_the_device_alone() -> None:
    def power(t, p):  # type: ignore[no-untyped-def]
        x = 1.0
        for _ in range(3):
            x *= p - t
        return x

    loss = lossfuncs.pointwise(power)
    x = np.ones((2, 3))
    assert loss(0 * x, x).tolist() == [1.0, 1.0]
    with pytest.raises(Untranslatable, match=r"^a for loop, 'for _ in range\(3\):', in power .* has no CUDA form: give"):
        loss(sent(0 * x), sent(x))


@pytest.mark.parametrize(("cuda", "error", "message"), [
    (3, TypeError, "cuda must be CUDA C\\+\\+ text, got int"),
    ("T slope(T t, T p) const;", ValueError, "cuda must define T value\\(T t, T p\\) const, as there is a Python function value"),
    ("T value(T t, T p) const;", ValueError, "cuda must define T slope\\(T t, T p\\) const, as there is a Python function slope"),
])  # fmt: skip
def test_cuda_text_that_lacks_a_function_is_refused(cuda: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        lossfuncs.pointwise(pinball, pinball_slope, cuda=cuda)


def test_cuda_text_that_does_not_compile_is_a_value_error() -> None:
    loss = lossfuncs.pointwise(pinball, cuda="T value(T t, T p) const { return undefined_name * t; }")
    with pytest.raises(ValueError, match="undefined_name"):
        loss(sent(np.ones((2, 3))), sent(np.ones((2, 3))))


def test_a_loss_of_too_many_parameters_for_the_device_says_so() -> None:
    names = "abcdefghi"
    scope: dict[str, Any] = {}
    exec(f"def own(t, p, {', '.join(f'{x}=1.0' for x in names)}):\n    return t - p", scope)
    loss = lossfuncs.pointwise(scope["own"])
    with pytest.raises(ValueError, match="^own has 9 parameters; a loss on a GPU has 8 at most$"):
        loss(sent(np.ones((2, 3))), sent(np.ones((2, 3))))
