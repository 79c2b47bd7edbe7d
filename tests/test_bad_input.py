"""Every bad input gives one sentence that names the argument, and nothing else happens."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BASES, ENTRIES, by_name, inputs

import lossfuncs
from lossfuncs import losses, metrics

X = np.full((3, 4), 0.25)
LABELS = np.array([0, 1, 3])
mse, sparse, dice, huber = losses.mean_squared_error, losses.sparse_categorical_crossentropy, losses.dice, losses.huber
top_k, focal, circle, ctc = metrics.sparse_top_k_categorical_accuracy, losses.categorical_focal_crossentropy, losses.circle, losses.ctc


def generator(t: float, p: float) -> Any:
    yield t - p


async def coroutine(t: float, p: float) -> float:
    return t - p


def read_only() -> Any:
    x = X.copy()
    x.flags.writeable = False
    return x


def labels(at_1: Any, dtype: Any = None) -> Any:
    return np.array([0, at_1, 3], dtype)


# What is called, the error and its text, whole.
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # shapes
    "a column against rows": (lambda: mse(X, X[:, :1]), ValueError, "y_true and y_pred must have the same shape, got (3, 4) and (3, 1)"),
    "a row against rows": (lambda: mse(X[0], X), ValueError, "y_true and y_pred must have the same shape, got (4,) and (3, 4)"),
    "other rows": (lambda: mse(X[:2], X), ValueError, "y_true and y_pred must have the same shape, got (2, 4) and (3, 4)"),
    "a scalar": (lambda: mse(1.0, 2.0), ValueError, "y_pred must have at least one axis, got a number"),
    "a scalar target": (lambda: mse(1.0, X), ValueError, "y_true and y_pred must have the same shape, got () and (3, 4)"),
    "labels of other rows": (
        lambda: sparse(LABELS[:2], X),
        ValueError,
        "y_true of shape (2,) does not fit y_pred of shape (3, 4): labels must have shape (3,)",
    ),
    "one-hot rows for labels": (
        lambda: sparse(X, X),
        ValueError,
        "y_true of shape (3, 4) does not fit y_pred of shape (3, 4): labels must have shape (3,)",
    ),
    "no classes": (lambda: sparse(LABELS, X[:, :0]), ValueError, "y_pred of shape (3, 0) has no classes"),
    # types
    "None": (lambda: mse(None, X), TypeError, "y_true must hold real numbers, got dtype object"),
    "objects": (lambda: mse(X, X.astype(object)), TypeError, "y_pred must hold real numbers, got dtype object"),
    "strings": (lambda: mse(X.astype(str), X), TypeError, "y_true must hold real numbers, got dtype <U32"),
    "complex": (lambda: mse(X, X.astype(complex)), TypeError, "y_pred must hold real numbers, got dtype complex128"),
    "dates": (lambda: mse(X, X.astype("M8[s]")), TypeError, "y_pred must hold real numbers, got dtype datetime64[s]"),
    "durations": (lambda: mse(X, X.astype("m8[s]")), TypeError, "y_pred must hold real numbers, got dtype timedelta64[s]"),
    "records": (lambda: mse(X, np.zeros((3, 4), [("a", "f4")])), TypeError, "y_pred must hold real numbers, got dtype [('a', '<f4')]"),
    "numbers beyond 64 bits": (lambda: mse([[2**70] * 4] * 3, X), TypeError, "y_true must hold real numbers, got dtype object"),
    "a masked array": (
        lambda: mse(np.ma.masked_array(X), X),
        TypeError,
        "y_true is a masked array; pass its data, and sample_weight 0 where it is masked",
    ),
    "complex weights": (lambda: mse(X, X, sample_weight=1j), TypeError, "sample_weight must hold real numbers, got dtype complex128"),
    # labels
    "a label too large": (lambda: sparse(labels(4), X), ValueError, "y_true[1] is 4, but y_pred has classes 0 to 3"),
    "a negative label": (lambda: sparse(labels(-1), X), ValueError, "y_true[1] is -1, but y_pred has classes 0 to 3"),
    "the smallest label": (lambda: sparse(labels(-(2**63)), X), ValueError, f"y_true[1] is {-(2**63)}, but y_pred has classes 0 to 3"),
    "the largest label": (lambda: sparse(labels(2**63 - 1), X), ValueError, f"y_true[1] is {2**63 - 1}, but y_pred has classes 0 to 3"),
    "a label of 64 bits": (
        lambda: sparse(labels(2**63 + 1, np.uint64), X),
        ValueError,
        f"y_true must hold whole numbers of 64 bits, got {2**63 + 1}",
    ),
    "a label NaN": (lambda: sparse(labels(math.nan), X), ValueError, "y_true must hold whole numbers of 64 bits, got nan"),
    "a label inf": (lambda: sparse(labels(math.inf), X, ignore_class=-1), ValueError, "y_true must hold whole numbers of 64 bits, got inf"),
    "half a label": (lambda: sparse(labels(0.5), X), ValueError, "y_true must hold whole numbers of 64 bits, got 0.5"),
    "a label of a grid": (
        lambda: sparse(np.array([[0, 1], [9, 2]]), np.zeros((2, 2, 4))),
        ValueError,
        "y_true[1, 0] is 9, but y_pred has classes 0 to 3",
    ),
    "ignore_class half": (
        lambda: sparse(LABELS, X, ignore_class=0.5),
        ValueError,
        "ignore_class must be a whole number of 64 bits, got 0.5",
    ),
    "ignore_class True": (
        lambda: sparse(LABELS, X, ignore_class=True),
        ValueError,
        "ignore_class must be a whole number of 64 bits, got True",
    ),
    "ignore_class huge": (
        lambda: sparse(LABELS, X, ignore_class=2**70),
        ValueError,
        f"ignore_class must be a whole number of 64 bits, got {2**70}",
    ),
    "a label of ctc": (
        lambda: ctc([[1, 9]], np.zeros((1, 3, 4))),
        ValueError,
        "y_true[0, 1] is 9, but y_pred has classes 0 to 3, and 0 is the blank",
    ),
    "inf for ctc": (lambda: ctc([[1, math.inf]], np.zeros((1, 3, 4))), ValueError, "y_true must hold whole numbers of 64 bits, got inf"),
    "ctc without classes": (lambda: ctc([[0]], np.zeros((1, 3, 0))), ValueError, "y_pred of shape (1, 3, 0) has no classes"),
    "ctc of two axes": (
        lambda: ctc([[1]], X),
        ValueError,
        "ctc takes y_true of shape (B, L) and y_pred of shape (B, T, C), got (1, 1) and (3, 4)",
    ),
    "circle of one axis": (lambda: circle(LABELS, LABELS), ValueError, "y_pred must be embeddings of shape (N, D), got shape (3,)"),
    "circle of labels inf": (lambda: circle([0, math.inf, 1], X), ValueError, "y_true must hold whole numbers of 64 bits, got inf"),
    "circle of fewer labels": (
        lambda: circle(LABELS[:2], X),
        ValueError,
        "y_true must hold one label a sample, shape (3,), got (2,)",
    ),
    "references of another length": (
        lambda: circle(LABELS, X, ref_embeddings=np.ones((2, 5))),
        ValueError,
        "ref_embeddings must have shape (M, 4), got (2, 5)",
    ),
    "references without labels": (
        lambda: circle(LABELS, X, ref_embeddings=np.ones((2, 4))),
        ValueError,
        "ref_embeddings has 2 rows; ref_labels must be given with as many labels",
    ),
    # options
    "an unknown option": (
        lambda: huber(X, X, dleta=1.0),
        TypeError,
        "huber() got an unexpected keyword argument 'dleta'; did you mean 'delta'?",
    ),
    "sample_weights": (
        lambda: mse(X, X, sample_weights=1.0),
        TypeError,
        "mean_squared_error() got an unexpected keyword argument 'sample_weights'; did you mean 'sample_weight'?",
    ),
    "q left out": (
        lambda: losses.categorical_generalized_cross_entropy(LABELS, X),
        TypeError,
        "categorical_generalized_cross_entropy() missing required argument: 'q'",
    ),
    "too many positions": (lambda: mse(X, X, 1.0), TypeError, "mean_squared_error() takes 2 positional arguments, got 3"),
    "an option twice": (lambda: huber(X, X, 1.0, delta=1.0), TypeError, "huber() got multiple values for argument 'delta'"),
    "one array": (lambda: mse(X), TypeError, "mean_squared_error() missing 1 required positional argument: 'y_pred'"),
    "k below 0": (lambda: top_k(LABELS, X, k=-1), ValueError, "k must be a whole number >= 0, got -1"),
    "k True": (lambda: top_k(LABELS, X, k=True), ValueError, "k must be a whole number >= 0, got True"),
    "k below 0 of ids": (lambda: top_k(LABELS, X, k=-1, from_sorted_ids=True), ValueError, "k must be a whole number >= 0, got -1"),
    "delta no float is near": (lambda: huber(X, X, delta=10**400), ValueError, f"delta must be a number >= 0, got {'1' + '0' * 76}..."),
    "delta a list": (lambda: huber(X, X, delta=[1.0]), ValueError, "delta must be a number >= 0, got [1.0]"),
    "from_logits 1": (
        lambda: losses.categorical_crossentropy(X, X, from_logits=1),
        ValueError,
        "from_logits must be True or False, got 1",
    ),
    "remove_diagonal 1": (lambda: circle(LABELS, X, remove_diagonal=1), ValueError, "remove_diagonal must be True or False, got 1"),
    "alpha of other classes": (
        lambda: focal(X, X, alpha=[1.0, 2.0]),
        ValueError,
        "alpha must be a number or one for each of the 4 classes, got shape (2,)",
    ),
    "alpha of inf": (lambda: focal(X, X, alpha=[1.0, 2.0, math.inf, 1.0]), ValueError, "alpha must be finite for each class, got inf"),
    "alpha of strings": (lambda: focal(X, X, alpha=["a"]), TypeError, "alpha must hold real numbers, got dtype <U1"),
    # axes
    "axis True": (lambda: dice(X, X, axis=True), ValueError, "axis must be an integer, several, or None, got True"),
    "axis half": (lambda: dice(X, X, axis=0.5), ValueError, "axis must be an integer, several, or None, got 0.5"),
    "no such axis": (lambda: dice(X, X, axis=2), ValueError, "axis 2 does not exist in y_pred of shape (3, 4)"),
    "an axis twice": (lambda: dice(X, X, axis=(0, -2)), ValueError, "axis names one axis twice: (0, -2)"),
    "axis None of classes": (lambda: focal(X, X, axis=None), ValueError, "axis must be an integer, got None"),
    # reduction, weights
    "reduction avg": (
        lambda: mse(X, X, reduction="avg"),
        ValueError,
        "reduction must be one of None, 'none', 'sum', 'mean', 'sum_over_batch_size', 'mean_with_sample_weight', got 'avg'",
    ),
    "reduction a list": (
        lambda: mse(X, X, reduction=[]),
        ValueError,
        "reduction must be one of None, 'none', 'sum', 'mean', 'sum_over_batch_size', 'mean_with_sample_weight', got []",
    ),
    "weights of other rows": (
        lambda: mse(X, X, sample_weight=np.ones(4)),
        ValueError,
        "sample_weight of shape (4,) does not fit: the values have shape (3,)",
    ),
    "weights in a row": (
        lambda: mse(X, X, sample_weight=np.ones((1, 3))),
        ValueError,
        "sample_weight of shape (1, 3) does not fit: the values have shape (3,)",
    ),
    "weights of elements": (
        lambda: mse(X, X, sample_weight=np.ones((3, 4))),
        ValueError,
        "sample_weight of shape (3, 4) does not fit: the values have shape (3,)",
    ),
    # derivatives
    "an unknown loss": (
        lambda: lossfuncs.value_and_grad("msee", X, X),
        ValueError,
        "Could not interpret loss identifier: 'msee'. Did you mean 'mse'?",
    ),
    "no loss": (
        lambda: lossfuncs.value_and_grad(None, X, X),
        TypeError,
        "loss must be a string or a function of lossfuncs, got None",
    ),
    "no derivative": (
        lambda: lossfuncs.value_and_grad(metrics.accuracy, X, X),
        ValueError,
        "accuracy has no derivative with these options",
    ),
    "no second derivative": (
        lambda: lossfuncs.grad_and_hess("dice", X, X),
        ValueError,
        "dice has no second derivative with these options",
    ),
    "upstream of other rows": (
        lambda: lossfuncs.value_and_grad("mse", X, X, upstream=np.ones(4)),
        ValueError,
        "upstream of shape (4,) does not fit: the values have shape (3,)",
    ),
    "upstream of a number": (
        lambda: lossfuncs.value_and_grad("mse", X, X, upstream=np.ones(3), reduction="sum"),
        ValueError,
        "upstream must be a number where there is a reduction, got shape (3,)",
    ),
    "upstream a string": (
        lambda: lossfuncs.value_and_grad("mse", X, X, upstream="a", reduction="sum"),
        TypeError,
        "upstream must hold real numbers, got dtype <U1",
    ),
    "out of another shape": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=np.ones(4)),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got float64 of shape (4,)",
    ),
    "out of another dtype": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=np.ones((3, 4), np.float32)),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got float32 of shape (3, 4)",
    ),
    "out read-only": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=read_only()),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got a read-only float64 of shape (3, 4)",
    ),
    "out a list": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=[1.0]),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got list",
    ),
    "out masked": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=np.ma.masked_array(X)),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got MaskedArray",
    ),
    "out over itself": (
        lambda: lossfuncs.value_and_grad("mse", X, X, out=np.lib.stride_tricks.as_strided(np.ones(4), (3, 4), (0, 8))),
        ValueError,
        "out must be a writable float64 array of y_pred's shape (3, 4), got strides (0, 8), by which elements share memory",
    ),
    "one out of two": (
        lambda: lossfuncs.grad_and_hess("mse", X, X, out=X.copy()),
        ValueError,
        "out must be a pair of arrays, got ndarray",
    ),
    "three outs": (
        lambda: lossfuncs.grad_and_hess("mse", X, X, out=(None, None, None)),
        ValueError,
        "out must be a pair of arrays, got 3 of them",
    ),
    # around the calls
    "an unknown backend": (
        lambda: lossfuncs.backend("cuda").__enter__(),
        ValueError,
        "backend must be one of 'numpy', 'numba', 'cupy', got 'cuda'",
    ),
    "an object for a loss to register": (
        lambda: lossfuncs.register(3),
        TypeError,
        "loss must be a function made by lossfuncs.pointwise, got int",
    ),
    "a builtin for a loss of ones own": (
        lambda: lossfuncs.pointwise(max),
        TypeError,
        "value must be a plain Python function of (t, p, ...), got builtin_function_or_method",
    ),
    "a generator for a loss of ones own": (
        lambda: lossfuncs.pointwise(generator),
        TypeError,
        "value must be a plain Python function of (t, p, ...), got a generator function",
    ),
    "a coroutine for a slope of ones own": (
        lambda: lossfuncs.pointwise(lambda t, p: t - p, coroutine),
        TypeError,
        "slope must be a plain Python function of (t, p, ...), got a coroutine function",
    ),
    "no predictions": (
        lambda: lossfuncs.evaluate(None),
        ValueError,
        "y_pred is missing: y_true alone must be an iterable of batches, got None",
    ),
    "one path": (
        lambda: lossfuncs.evaluate("labels.npy"),
        ValueError,
        "y_pred is missing: y_true alone must be an iterable of batches, got 'labels.npy'",
    ),
    "no threads": (lambda: lossfuncs.set_num_threads(0), ValueError, "n is 0, but must be at least 1"),
    "half a thread": (lambda: lossfuncs.set_num_threads(1.5), TypeError, "n must be an int, not float"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gives_its_sentence(what: str, backend: str) -> None:
    call, error, message = BAD[what]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_one_row_may_have_a_number_for_its_label(backend: str) -> None:
    assert sparse(2, X[0]) == sparse([2], X[:1])[0]
    assert metrics.sparse_categorical_accuracy(np.int64(1), np.array([0.1, 0.7, 0.2])) == 1.0


def test_weights_that_are_not_finite_make_no_noise(backend: str) -> None:
    t, p = np.eye(4)[:3], X + np.eye(4)[:3]
    for cls in (metrics.R2Score, metrics.F1Score, metrics.BinaryIoU, metrics.AUC, metrics.Precision, metrics.MeanSquaredError):
        for w in ([1.0, math.inf, math.inf], [math.nan, 1.0, 1.0]):
            cls()(t, p, w)
    for values, w in (([1.0, math.inf, -math.inf], None), ([1.0, 1e308, 1e308], None), ([math.inf, 1.0, 2.0], [0.0, math.inf, -math.inf])):
        assert not math.isfinite(metrics.Mean()(values, w)) and not math.isfinite(metrics.Sum()(values, w))
    for w in ([1.0, math.inf, -math.inf], [1e308, 1e308, 1e308]):
        for _ in range(2):
            mse(t, p, sample_weight=np.array(w), reduction="mean_with_sample_weight")
    for w in ([1.0, math.inf, -math.inf], [0.0, math.inf, 1.0]):
        assert math.isnan(circle([0, 1, 0], p, sample_weight=w, reduction="sum"))


def test_an_empty_gradient_fits_whatever_its_strides(backend: str) -> None:
    for shape in ((0, 3), (3, 0)):
        out = np.lib.stride_tricks.as_strided(np.empty(shape), strides=(0, 0))
        assert lossfuncs.value_and_grad("mse", np.empty(shape), np.empty(shape), out=out)[1].shape == shape


def test_results_too_large_for_their_type_are_inf_without_noise(backend: str) -> None:
    t, p = np.full((3, 4), 1e30), np.zeros((3, 4), np.float32)  # neither is of the type that both are computed in
    for k in (1, 2):
        value, gradient = lossfuncs.value_and_grad("mse", t[::k], p[::k], upstream=1e10)
        assert np.isinf(value).all() and np.isinf(gradient).all()
        assert np.isinf(lossfuncs.value_and_grad("mse", t[::k], p[::k], reduction="mean", upstream=1e10)[1]).all()
    embeddings, logits = np.full((3, 3), 0.5, np.float16), np.float16([[[6e4, -6e4], [6e4, -6e4]]])
    for loss, labels, x in (("circle", [0, 0, 1], embeddings), ("ctc", [[1]], logits)):
        assert np.isinf(lossfuncs.value_and_grad(loss, labels, x, upstream=1e6)[1]).any(), loss


def test_a_loss_of_ones_own_follows_ieee_arithmetic(backend: str) -> None:
    p = np.array([[0.0, 2.0], [-4.0, 2.0]])
    inverse = lossfuncs.pointwise(lambda t, p: t / p, name="inverse")
    root = lossfuncs.pointwise(lambda t, p: p**0.5, name="root")
    np.testing.assert_array_equal(inverse(np.ones((2, 2)), p), [math.inf, 0.125])
    np.testing.assert_allclose(root(np.ones((2, 2)), p), [2**-0.5, math.nan])


def test_ragged_lists_are_named(backend: str) -> None:
    with pytest.raises(TypeError, match="^y_true cannot be read as an array of numbers: "):
        mse([[1, 2], [3]], X)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is float64 here")
def test_long_double_is_refused(backend: str) -> None:
    with pytest.raises(TypeError, match="^y_pred has dtype float128; the most precise that is supported is float64$"):
        mse(X, X.astype(np.longdouble))


def test_a_matrix_is_an_array_of_two_axes(backend: str) -> None:
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1.0, 2.0], [3.0, 5.0]])
    value, gradient = lossfuncs.value_and_grad("mse", matrix, matrix + 1.0, out=matrix)
    np.testing.assert_array_equal(value, [1.0, 1.0])
    assert type(value) is np.ndarray and gradient is matrix
    np.testing.assert_array_equal(np.asarray(matrix), 1.0)


def test_a_number_is_the_target_of_one_prediction(backend: str) -> None:
    assert mse(np.float32(1.0), np.array([3.0])) == mse(1, [3.0]) == 4.0


def test_n_against_n_1_is_not_n_by_n(backend: str) -> None:
    t, p = np.array([1.0, 2.0, 3.0, 4.0]), np.array([[2.0], [2.0], [3.0], [4.0]])
    np.testing.assert_array_equal(mse(t, p), [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(mse(t[:, None], p[:, 0]), [1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_no_function_broadcasts_its_arrays(entry: Any, options: dict[str, Any], backend: str) -> None:
    t, p = inputs(entry, options, (6, 5))
    for bad_t in (t[:1], t[:3], t[None], np.stack([t, t])):
        with pytest.raises(ValueError, match=r"y_true .*shape"):
            entry.function(bad_t, p, **options)
    with pytest.raises(ValueError, match=r"y_pred .*shape"):
        entry.function(t, p[:1], **options)


@pytest.mark.parametrize("n", [3, 64, 65, 400])
@pytest.mark.parametrize("order", [0, 1])
def test_the_first_bad_label_of_many_rows_is_named(n: int, order: int) -> None:
    m = 3 * (1 << 15) // n
    p = np.zeros((m, n), np.float32)
    for at in (0, 63, 64, m // 2, m - 1):
        for bad in (n, -1, 2**40, -(2**63) + 1):
            t = np.zeros(m, np.int64)
            t[at] = bad
            t[min(at + 1, m - 1)] = bad
            with pytest.raises(ValueError, match=rf"^y_true\[{at}\] is {bad}, but y_pred has classes 0 to {n - 1}$"):
                lossfuncs.value_and_grad(sparse, t, p) if order else sparse(t, p)
            with pytest.raises(ValueError, match=rf"^y_true\[{at}\] is {bad}"):
                sparse(t, p, reduction="mean", sample_weight=np.ones(m))


def test_a_repeated_call_checks_its_labels_again() -> None:
    p = np.zeros((70, 5))
    t = np.zeros(70, np.int64)
    for reduction in (None, "sum"):
        wanted = sparse(t, p, reduction=reduction)
        for _ in range(3):
            np.testing.assert_array_equal(sparse(t, p, reduction=reduction), wanted)
        t[69] = 5
        with pytest.raises(ValueError, match=r"^y_true\[69\] is 5"):
            sparse(t, p, reduction=reduction)
        t[69] = 0


def test_labels_that_change_during_a_call_are_never_followed_out_of_the_row() -> None:
    """A label is read once: what was checked is what is used. Rows without a bad label are right, the others NaN or an error."""
    n = 10
    p = np.zeros((1 << 16, n), np.float32)
    t = np.zeros(len(p), np.int64)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            t[::7] = 2**40
            t[::7] = 3

    thread = threading.Thread(target=flip)
    thread.start()
    outcomes = {"value": 0, "error": 0}
    try:
        for _ in range(150):
            try:
                value, gradient = lossfuncs.value_and_grad(sparse, t, p, from_logits=True)
            except ValueError as error:
                assert re.match(r"^y_true\[\d+\] is \d+, but y_pred has classes 0 to 9$", str(error))
                outcomes["error"] += 1
            else:
                outcomes["value"] += 1
                np.testing.assert_allclose(value, math.log(n), rtol=1e-6)
                np.testing.assert_allclose(gradient.sum(axis=-1), 0.0, atol=1e-6)
    finally:
        stop.set()
        thread.join()
    assert outcomes["error"]  # else nothing was tried


# Malformed calls at random.

# What an error may speak of; a loss without the derivative that was asked for is wrong itself.
NAMES = {"y_true", "y_pred", "sample_weight", "reduction", "upstream", "out", "loss", "positional argument", "keyword argument",
         "derivative", "identifier"}  # fmt: skip


def anything(rng: np.random.Generator, near: Any) -> Any:
    """Something that may or may not do as an argument, close to one that does."""
    x = np.asarray(near)
    with np.errstate(all="ignore"):
        kinds: list[Callable[[], Any]] = [
            lambda: x.astype(rng.choice("f2 f4 f8 i1 u1 i8 u8 ? >f4 >i8 U S O c16 M8[s] m8[s]".split())),
            lambda: x[..., None],
            lambda: x[..., 0] if x.ndim and x.shape[-1] else x,
            lambda: x[:1] if x.ndim else x,
            lambda: x[1:] if x.ndim else x,
            lambda: x[..., :0] if x.ndim else x,
            lambda: x.T,
            lambda: np.asfortranarray(x)[::-1] if x.ndim else x,
            lambda: np.broadcast_to(x, (2, *x.shape)),
            lambda: np.ma.masked_array(x),
            lambda: x.tolist(),
            lambda: [x.tolist(), [1]],
            lambda: np.where(rng.uniform(size=x.shape) < 0.2, rng.choice([math.nan, math.inf, -math.inf, 2.0**63, -1.0, 0.5]), x),
            lambda: np.full(x.shape, rng.choice([-(2**63), 2**63 - 1, -1, 10**6])),
            lambda: np.zeros(rng.integers(0, 4, rng.integers(0, 5))),
            lambda: None,
            lambda: rng.choice([0.0, -1.0, math.nan, 1e300]),
            lambda: bool(rng.integers(2)),
            lambda: int(rng.integers(-3, 4)) * 10 ** int(rng.choice([0, 0, 9, 30])),
            lambda: str(rng.choice(["mean", "sum", "", "meen", "from_logits"])),
            lambda: {"a": 1},
            lambda: {1, 2},
            lambda: object(),
            lambda: b"bytes",
            lambda: (1, 2),
            lambda: 1j,
            lambda: np.float32(0.5),
            lambda: np.zeros((3, 4), [("a", "f4")]),
            lambda: iter([1, 2]),
            lambda: math.sqrt,
        ]
        return kinds[rng.integers(len(kinds))]()


def malformed(rng: np.random.Generator) -> tuple[Callable[..., Any], list[Any], dict[str, Any], set[str]]:
    """A function, positions, keywords, and the names that its error may speak of."""
    entry = ENTRIES[rng.integers(len(ENTRIES))]
    shape = {"circle": (5, 4), "ctc": (3, 6, 4)}.get(entry.name, ((6, 5), (5,), (2, 3, 4))[rng.integers(3)])
    if entry.targets == "index" and len(shape) == 1:
        shape = (6, 5)
    t, p = inputs(entry, {}, shape, rng.choice([np.float32, np.float64]))
    defaults = entry.function.defaults
    keywords: dict[str, Any] = {"q": 0.5} if "q" in defaults else {}
    function = entry.function
    positions: list[Any] = [t, p]
    extra = ["sample_weight", "reduction"]
    if rng.integers(3) == 0:
        function = [lossfuncs.value_and_grad, lossfuncs.grad_and_hess][rng.integers(2)]
        positions = [entry.function if rng.integers(2) else entry.name, t, p]
        extra += ["upstream", "out"]
    for _ in range(rng.integers(1, 4)):
        match rng.integers(4):
            case 0 if positions:
                i = int(rng.integers(len(positions)))
                usual = isinstance(positions[i], np.ndarray) and positions[i].dtype.kind in "biuf"
                positions[i] = anything(rng, positions[i] if usual else p)
            case 1:
                keywords[str(rng.choice(extra))] = anything(rng, np.ones(shape[:1]))
            case 2:
                name = str(rng.choice([*defaults, "delat", "axes", "y_true"])) if rng.integers(8) == 0 or defaults else "axis"
                keywords[name] = anything(rng, np.ones(shape[-1:]))
            case _:
                if rng.integers(4) == 0:
                    positions = positions[:-1] if rng.integers(2) else [*positions, anything(rng, p)]
    return function, positions, keywords, {*NAMES, *defaults, *keywords}


def chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def fuzz(seed: int, calls: int) -> dict[str, int]:
    outcomes = {"value": 0, "error": 0}
    for i in range(calls):
        rng = np.random.default_rng([seed, i])
        function, positions, keywords, names = malformed(rng)
        what = f"call {i} of seed {seed}: {function.__name__}{tuple(positions)}, {keywords}"
        try:
            function(*positions, **keywords)
        except (TypeError, ValueError) as error:
            outcomes["error"] += 1
            text = str(error)
            named = any(re.search(rf"\b{re.escape(name)}s?\b", text) for name in names)
            assert named and "\n" not in text, f"{what}: {error!r}"
            modules = [type(one).__module__ for one in chain(error)]
            assert not any(module.startswith(("numba", "llvmlite")) for module in modules), f"{what}: {modules}"
        except Exception as error:
            raise AssertionError(f"{what} raised {error!r}") from error
        else:
            outcomes["value"] += 1
    return outcomes


# Errors come from the front end, which the backends share; a call that turns out to be right costs Numba a kernel.
RUNS = [("numpy", 3000), ("numba", 150), *(pytest.param(name, 100_000, marks=pytest.mark.slow) for name in ("numpy", "numba"))]


@pytest.mark.parametrize(("name", "calls"), RUNS)
def test_malformed_calls_raise_value_or_type_errors_that_name_an_argument(name: str, calls: int) -> None:
    with lossfuncs.backend(name):
        outcomes = fuzz(calls, calls)
    assert outcomes["error"] > calls // 2 and outcomes["value"] > calls // 50


def test_bad_input_never_reaches_a_kernel_through_the_table() -> None:
    for entry in ENTRIES:
        for array in ("y_true", "y_pred"):
            t, p = inputs(by_name("loss", "mean_squared_error"), {}, (3, 4))
            bad = {"y_true": t, "y_pred": p, array: np.array([["a"] * 4] * 3)}
            with pytest.raises((TypeError, ValueError), match=r"y_pred|y_true"):
                entry.function(bad["y_true"], bad["y_pred"], **({"q": 1.0} if "q" in entry.function.defaults else {}))
