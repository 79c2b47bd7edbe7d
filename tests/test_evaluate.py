"""`lossfuncs.evaluate`: the fold over batches, and the files it reads."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossfuncs
from lossfuncs.call import REQUIRED
from lossfuncs.domains import draw
from lossfuncs.evaluate import Evaluation, evaluate
from lossfuncs.files import column_names, open_rows
from lossfuncs.table import LOSSES, METRICS, Entry

# circle has no value apart from the batch: its test is below
ENTRIES = [("loss", entry) for entry in LOSSES if entry.name != "circle"] + [("metrics", entry) for entry in METRICS]
N = 23


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    with lossfuncs.backend("numpy"):
        yield


def drawn(entry: Entry, n: int = N) -> tuple[Any, Any, dict[str, Any]]:
    shape = (n, 6, 4) if entry.targets == "sequence" else (n, 5)
    options = {name: 0.7 for name, value in entry.function.defaults.items() if value is REQUIRED}
    return *draw(entry, shape, np.random.default_rng(1)), options


@pytest.mark.parametrize("batch_size", (1, 4, N, 100))
@pytest.mark.parametrize(("kind", "entry"), ENTRIES, ids=lambda x: getattr(x, "name", x))
def test_batches_give_the_result_of_one_pass(kind: str, entry: Entry, batch_size: int) -> None:
    y_true, y_pred, options = drawn(entry)
    values = entry.function(y_true, y_pred, **options)
    found = evaluate(y_true, y_pred, **{kind: (entry.function, options)}, batch_size=batch_size)
    assert list(found.values()) == pytest.approx([float(np.mean(values))], rel=1e-14, abs=4e-16)
    if np.ndim(values):
        w = np.random.default_rng(2).uniform(0, 3, N)
        one_pass = entry.function(y_true, y_pred, **options, sample_weight=w, reduction="mean_with_sample_weight")
        found = evaluate(y_true, y_pred, **{kind: (entry.function, options)}, sample_weight=w, batch_size=batch_size)
        assert list(found.values()) == pytest.approx([one_pass], rel=1e-14, abs=4e-16)


@pytest.mark.parametrize("name", ("mean_squared_error", "sparse_categorical_crossentropy", "dice"))
def test_kernels_give_the_same_in_batches(name: str) -> None:
    entry = next(entry for entry in LOSSES if entry.name == name)
    y_true, y_pred, _ = drawn(entry, 1000)
    y_pred = y_pred.astype(np.float32)
    with lossfuncs.backend("numba"):
        whole = entry.function(y_true, y_pred, reduction="mean")
        assert evaluate(y_true, y_pred, loss=name, batch_size=77)[name] == pytest.approx(whole, rel=1e-15)
        assert evaluate(y_true, y_pred.astype(">f4"), loss=name, batch_size=77)[name] == pytest.approx(whole, rel=1e-15)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=60), st.integers(1, 7))
def test_rounding_does_not_add_up_over_batches(errors: list[float], batch_size: int) -> None:
    p = np.array(errors)
    exact = sum(map(Fraction, map(abs, errors))) / len(errors)
    found = evaluate(np.zeros_like(p), p, loss="mae", batch_size=batch_size)["mae"]
    assert found == pytest.approx(float(exact), rel=4e-16, abs=0)


def test_ten_thousand_batches_lose_no_digit() -> None:
    fold = Evaluation("mae")
    for _ in range(10_000):
        fold.update(np.zeros(1), np.full(1, 0.1))
    assert fold.result()["mae"] == 0.1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=4), st.randoms())
def test_merging_parts_in_any_order_is_one_evaluation(sizes: list[int], order: Any) -> None:
    rng = np.random.default_rng(3)
    wanted: Any = {"loss": ["crossentropy", "dice"], "metrics": ["accuracy", ("top_k_categorical_accuracy", {"k": 2})]}
    y_pred = rng.dirichlet(np.ones(4), sum(sizes) + 1)
    y_true = np.eye(4)[rng.integers(0, 4, len(y_pred))]
    parts = []
    for t, p in zip(*(np.split(x, np.cumsum(sizes)) for x in (y_true, y_pred)), strict=True):
        part = Evaluation(**wanted)
        part.update(t, p)
        parts.append(pickle.loads(pickle.dumps(part)))
    order.shuffle(parts)
    whole = Evaluation(**wanted)
    for part in parts:
        whole.merge(part)
    assert whole.rows == len(y_pred)
    assert whole.result() == pytest.approx(evaluate(y_true, y_pred, **wanted), rel=1e-15)


def test_one_dimensional_data_are_one_number_a_sample() -> None:
    y_true, y_pred = np.array([0.0, 0, 0, 0, 0]), np.array([1.0, 1, 1, 1, 2 * math.sqrt(3)])
    assert evaluate(y_true, y_pred, loss="mse", batch_size=4)["mse"] == pytest.approx(16 / 5)
    weighted = evaluate(y_true, y_pred, loss="mse", sample_weight=[1, 0, 0, 0, 3], batch_size=4)
    assert weighted["mse"] == pytest.approx(37 / 4)
    column = evaluate(y_true, y_pred[:, None], loss="mse", metrics="binary_accuracy")
    assert column == evaluate(y_true[:, None], y_pred, loss="mse", metrics="binary_accuracy")
    assert column["mse"] == pytest.approx(16 / 5)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "name"),
    [
        ((4,), (4, 1), "binary"), ((4, 1), (4, 1), "binary"), ((4,), (4,), "binary"), ((1,), (1,), "binary"),
        ((4,), (4, 3), "sparse_categorical"), ((4, 1), (4, 3), "sparse_categorical"), ((4, 5), (4, 5, 3), "sparse_categorical"),
        ((4, 3), (4, 3), "categorical"), ((4, 5, 3), (4, 5, 3), "categorical"),
    ],
)  # fmt: skip
def test_accuracy_and_crossentropy_are_what_keras_makes_of_the_shapes(y_true: Any, y_pred: Any, name: str) -> None:
    fold = Evaluation(["crossentropy", "CE"], ["accuracy", "acc"])
    fold.update(np.ones(y_true), np.full(y_pred, 0.25))
    names = [accumulator.function.__name__ for accumulator in fold.functions.values()]
    assert names == [f"{name}_crossentropy"] * 2 + [f"{name}_accuracy"] * 2
    assert list(fold.result()) == ["crossentropy", "CE", "accuracy", "acc"]


def test_accuracy_of_class_numbers_is_equality() -> None:
    assert evaluate([3, 1, 2, 2], [3, 1, 0, 2], metrics="accuracy") == {"accuracy": 0.75}


def test_what_is_computed_unasked_suits_the_data() -> None:
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 4, (9, 20)), rng.integers(0, 20, 9)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one_hot = np.eye(20)[labels]
    many = (p > 0.1).astype(float)
    assert list(evaluate(labels, p)) == ["sparse_categorical_crossentropy", "accuracy", "sparse_top_k_categorical_accuracy(k=5)"]
    assert evaluate(labels, logits)["sparse_categorical_crossentropy(from_logits=True)"] == pytest.approx(
        evaluate(labels, p)["sparse_categorical_crossentropy"], rel=1e-6)  # fmt: skip
    assert list(evaluate(one_hot, p)) == ["categorical_crossentropy", "accuracy", "top_k_categorical_accuracy(k=5)"]
    assert list(evaluate(many, p)) == ["binary_crossentropy", "binary_accuracy"]
    assert list(evaluate(many[:, 0], logits[:, 0])) == ["binary_crossentropy(from_logits=True)", "binary_accuracy(threshold=0.0)"]
    assert list(evaluate(logits, p)) == ["mean_squared_error", "mean_absolute_error"]
    assert list(evaluate(labels, labels)) == ["accuracy"]


def test_batches_may_come_from_an_iterable() -> None:
    t, p, w = (np.random.default_rng(i).uniform(size=(10, 2)) for i in range(3))
    parts = [slice(0, 3), slice(3, 3), slice(3, 10)]
    assert evaluate(((t[s], p[s]) for s in parts), loss="mse") == pytest.approx(evaluate(t, p, loss="mse"), rel=1e-15)
    weighted = evaluate([(t[s], p[s], w[s, 0]) for s in parts], loss="mse")
    assert weighted == pytest.approx(evaluate(t, p, loss="mse", sample_weight=w[:, 0]), rel=1e-15)


def test_ignored_classes_do_not_count_in_any_batch() -> None:
    p = np.full((6, 2), 0.5)
    for labels, expected in (([0, -1, 1, -1, -1, -1], math.log(2)), ([-1] * 6, 0.0)):
        found = evaluate(labels, p, loss="ce", options={"ignore_class": -1}, batch_size=2)
        assert found == {"ce": pytest.approx(expected)}


@pytest.mark.parametrize("special", (math.inf, math.nan))
def test_what_is_not_finite_stays_so(special: float) -> None:
    p = np.array([1.0, special, 2.0, 3.0])
    found = evaluate(np.zeros(4), p, loss="mae", batch_size=1)["mae"]
    assert math.isinf(found) if math.isinf(special) else math.isnan(found)


def test_options_go_to_the_functions_that_know_them() -> None:
    t, p = np.zeros(4), np.full(4, 3.0)
    found = evaluate(t, p, loss=["huber", ("huber", {"delta": 1.0}), "mse"], options={"delta": 2.0})
    assert found == {"huber": pytest.approx(4.0), "huber(delta=1.0)": pytest.approx(2.5), "mse": pytest.approx(9.0)}


def test_a_name_with_two_meanings_is_told_apart() -> None:
    x = np.ones((2, 3))
    found = evaluate(x, x, loss=["cosine_similarity", "mse"], metrics=["cosine_similarity", "mse"])
    assert found == {"cosine_similarity": pytest.approx(-1), "mse": 0.0, "cosine_similarity (metric)": pytest.approx(1)}


def test_circle_with_references_is_a_value_a_sample() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(12, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = rng.integers(0, 3, 12)
    options = {"ref_labels": labels[:5], "ref_embeddings": x[:5], "remove_diagonal": False}
    whole = lossfuncs.losses.circle(labels, x, **options, reduction="mean")
    assert evaluate(labels, x, loss="circle", options=options, batch_size=5) == {"circle": pytest.approx(whole, rel=1e-14)}


def test_progress_says_how_many_rows_are_done() -> None:
    seen: list[tuple[int, int | None]] = []
    evaluate(np.zeros(5), np.zeros(5), loss="mse", batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


X = np.full((4, 3), 0.25)
LABELS = np.array([0, 1, 2, 1])
FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "label": (([0, 1, 2, 9], X), {"loss": "crossentropy", "batch_size": 1}, r"^y_true\[3\] is 9, but y_pred has classes 0 to 2$"),
    "rows": ((LABELS[:3], X), {"loss": "crossentropy"}, "y_true has 3 rows, but y_pred has 4"),
    "weights": ((LABELS, X), {"loss": "crossentropy", "sample_weight": [1, 2]}, "y_true has 4 rows, but sample_weight has 2"),
    "no rows": ((LABELS[:0], X[:0]), {"loss": "crossentropy"}, "no rows"),
    "no batches": (([],), {"loss": "mse"}, "no rows"),
    "a batch": (([X],), {"loss": "mse"}, r"a batch must be \(y_true, y_pred\)"),
    "weights of an iterable": (([(X, X)],), {"loss": "mse", "sample_weight": [1]}, "y_pred is missing"),
    "batch size": ((X, X), {"loss": "mse", "batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
    "number": ((1.0, X), {"loss": "mse"}, "y_true must have rows, got a single number"),
    "loss": ((X, X), {"loss": "msee"}, "'msee'. Did you mean 'mse'"),
    "kind": ((X, X), {"metrics": "huber"}, "'huber' is a loss, not a metric"),
    "option": ((X, X), {"loss": "huber", "options": {"dleta": 1}}, "dleta is known to none of huber; they know delta"),
    "circle": ((LABELS, X), {"loss": "circle"}, "circle compares the samples of a batch"),
    "axis": ((X, X), {"loss": "dice", "options": {"axis": 0}}, "axis 0 of dice runs over the samples"),
    "weighted dice": ((X, X), {"loss": "dice", "sample_weight": LABELS}, "dice is one number for all data"),
    "vectors": ((X[0], X[0]), {"metrics": "cosine_similarity"}, "cosine_similarity needs several numbers for each sample"),
}


def test_a_bad_batch_leaves_nothing_behind() -> None:
    fold = Evaluation("crossentropy", ["accuracy", "sparse_top_k_categorical_accuracy"], {"from_sorted_ids": True})
    fold.update(LABELS, X)
    before = fold.result()
    with pytest.raises(ValueError, match=r"y_true\[7\] is 9"):
        fold.update([0, 1, 2, 9], X)
    assert fold.rows == 4 and fold.result() == before
    with pytest.raises(ValueError, match="same shape"):
        (fold := Evaluation(["crossentropy", "mse"])).update(LABELS, X)
    assert fold.rows == 0 and not fold.functions


@pytest.mark.parametrize("case", FAULTS)
def test_bad_input_is_named(case: str) -> None:
    arrays, options, message = FAULTS[case]
    with pytest.raises(ValueError, match=message):
        evaluate(*arrays, **options)


def test_a_function_of_someone_else_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a string or a function of lossfuncs"):
        evaluate(X, X, loss=math.sin)


# Files


def written(folder: Path, x: Any, how: str) -> str:
    """x in a file, and what to open it with."""
    path = folder / f"{how.replace(' ', '_')}_{x.ndim}.{how.split()[0]}"
    rows = x[:, None] if x.ndim == 1 else x
    if how.startswith("npy"):
        x = {"fortran": np.asfortranarray(x), "swapped": x.astype(x.dtype.newbyteorder(">"))}.get(how.partition(" ")[2], x)
        np.save(path, x)
    elif how.startswith("npz"):
        store = np.savez_compressed if "compressed" in how else np.savez
        store(path, data=np.asfortranarray(x) if "fortran" in how else x, other=np.zeros(2))
        return f"{path}:data"
    elif how.startswith("csv"):
        separator = ";" if "semicolons" in how else ","
        lines = [separator.join(map(repr, row)) for row in rows.tolist()]
        if "names" in how:
            lines.insert(0, separator.join(f"c{i}" for i in range(rows.shape[1])))
        if "pandas" in how:
            lines = [",".join(["", *map(str, range(rows.shape[1]))])] + [f"{i},{line}" for i, line in enumerate(lines)]
        end = next((end for word, end in (("blank", "\n\n"), ("windows", "\r\n"), ("returns", "\r")) if word in how), "\n")
        path.write_bytes(end.join(lines).encode("utf-8-sig" if "mark" in how else "utf-8"))
    elif how.startswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        columns = {"x": list(x)} if "lists" in how else {f"c{i}": column for i, column in enumerate(rows.T)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=7)
    return str(path)


@pytest.mark.parametrize(
    "how",
    ("npy", "npy fortran", "npy swapped", "npz", "npz compressed", "npz fortran", "csv", "csv names", "csv names semicolons",
     "csv pandas", "csv blank mark", "csv windows", "csv returns", "parquet", "parquet lists"),
)  # fmt: skip
def test_every_format_gives_what_the_arrays_give(tmp_path: Path, how: str) -> None:
    rng = np.random.default_rng(6)
    y_true = rng.integers(0, 4, N)
    y_pred = rng.dirichlet(np.ones(4), N).astype(np.float32)
    if "pandas" in how:  # a column of labels numbered 0 cannot be told from data
        labels: Any = y_true
    else:
        labels = written(tmp_path, y_true, how)
    for batch_size in (None, 5):
        found = evaluate(labels, written(tmp_path, y_pred, how), loss="crossentropy", metrics="accuracy", batch_size=batch_size)
        assert found == pytest.approx(evaluate(y_true, y_pred, loss="crossentropy", metrics="accuracy"), rel=1e-14)


def test_a_path_object_is_a_path(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    assert evaluate(tmp_path / "x.npy", X, loss="mse") == {"mse": 0.0}


def test_columns_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("y,note,a,b\n0,\"one, two\",1,2\n1,,3,5\n")
    for chosen in ("a,b", "2,3", "a, b"):
        assert evaluate(np.zeros((2, 2)), f"{path}:{chosen}", loss="mae") == {"mae": 2.75}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_of_one_name_are_not_taken_for_one_another(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"twice.{suffix}"
    if suffix == "csv":
        path.write_text("y,p,p\n1,0.25,0.75\n")
        with contextlib.closing(open_rows(str(path), "y_pred", ["1", "2"])) as source:
            np.testing.assert_array_equal(source.read(1), [[0.25, 0.75]])
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table([[1], [0.25], [0.75]], names=["y", "p", "p"]), path)
    with pytest.raises(ValueError, match=f"twice.{suffix} has 2 columns 'p': give them names of their own"):
        evaluate(f"{path}:y", f"{path}:p", loss="mse")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    for read in (lambda: evaluate(path, path), lambda: column_names(str(path))):
        with pytest.raises(ValueError, match=f"pipe{suffix} is a pipe or a device, and its rows are counted before they are read"):
            read()


def test_large_whole_numbers_in_text_keep_their_digits(tmp_path: Path) -> None:
    for name, last in (("one", 3), ("other", 2)):
        (tmp_path / f"{name}.csv").write_text(f"id\n{2**53 + last}\n7\n{-(2**62)}\n0\n")
    (tmp_path / "mixed.csv").write_text("1e300\n7.0\n-1e300\n0\n")
    (tmp_path / "huge.csv").write_text(f"{2**70}\n7\n{-(2**62)}\n0\n")
    ids = str(tmp_path / "one.csv")
    for name, equal in (("one", 1.0), ("other", 0.75), ("mixed", 0.5), ("huge", 0.75)):
        for batch_size in (1, 4):
            found = evaluate(ids, str(tmp_path / f"{name}.csv"), metrics=["accuracy"], batch_size=batch_size)
            assert found == {"accuracy": equal}, name


def test_a_header_of_negative_sizes_is_none(tmp_path: Path) -> None:
    for by_columns in (False, True):
        header = f"{{'descr': '<f8', 'fortran_order': {by_columns}, 'shape': (-5, -3), }}\n".encode()
        path = tmp_path / "negative.npy"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(120))
        with pytest.raises(ValueError, match="negative.npy is not a .npy file: its header cannot be read$"):
            evaluate(np.zeros((5, 3)), path, loss="mse")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path / "sprung").touch, ()

    array = np.array([Trap()], object)
    np.save(tmp_path / "trap.npy", array, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", data=array)
    for name in ("trap.npy", "trap.npz"):
        with pytest.raises(ValueError, match="holds Python objects"):
            evaluate(str(tmp_path / name), [1.0], loss="mse")
    assert not (tmp_path / "sprung").exists()


def test_a_copy_on_write_map_keeps_what_was_written(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(5000))
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    x[:] = 3.0
    assert evaluate(np.zeros(5000), x, loss="mae", batch_size=1000) == {"mae": 3.0}
    assert (x == 3.0).all()


def test_files_and_maps_larger_than_the_memory_are_read_in_little_of_it(tmp_path: Path) -> None:
    """400 MB, sparse on the disk, cost some 4 MB batches; in a process of its own, whose peak it is."""
    pytest.importorskip("resource")
    program = f"""
        import resource, sys
        import numpy as np
        import lossfuncs
        from lossfuncs.evaluate import evaluate

        rows, path = 6_250_000, {str(tmp_path / "big.npy")!r}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {{"descr": "<f4", "fortran_order": False, "shape": (rows, 16)}})
            file.truncate(file.tell() + rows * 16 * 4)
        with lossfuncs.backend("numpy"):
            evaluate(np.zeros((9, 16)), np.zeros((9, 16)), loss="mse")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert evaluate(path, path, loss="mae") == {{"mae": 0.0}}
            x = np.load(path, mmap_mode="r")
            assert evaluate(x, x, loss="mae") == {{"mae": 0.0}}
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 100_000
