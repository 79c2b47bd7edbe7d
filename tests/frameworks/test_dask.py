"""`evaluate` on collections of Dask, and on files that its workers open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pytest

import lossfuncs
from lossfuncs.frameworks import dask as on_dask

RNG = np.random.default_rng(0)
N = 5003
P = RNG.dirichlet(np.ones(4), N).astype(np.float32)
LABELS = RNG.integers(0, 4, N)
WEIGHTS = RNG.uniform(0.5, 2.0, N)
ASKED: dict[str, Any] = {"loss": "crossentropy", "metrics": ["accuracy", "sparse_top_k_categorical_accuracy"]}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        with distributed.Client(cluster) as client:
            yield client


@pytest.fixture(params=["threads", "sync", "distributed"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "distributed":
        request.getfixturevalue("client")
        yield request.param
    else:
        with dask.config.set(scheduler=request.param):
            yield request.param


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=4e-16, err_msg=name)  # two units in the last place


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunks", [(700, 4), (5003, 4), (1000, 3)])
def test_arrays_give_what_one_machine_gives(scheduler: str, chunks: Any, weighted: bool) -> None:
    w = {"sample_weight": WEIGHTS} if weighted else {}
    lazy = {"sample_weight": da.from_array(WEIGHTS, chunks=1999)} if weighted else {}
    found = lossfuncs.evaluate(da.from_array(LABELS, chunks=812), da.from_array(P, chunks=chunks), **ASKED, **lazy)
    same(found, lossfuncs.evaluate(LABELS, P, **ASKED, **w))


def test_where_states_merge_exactly_the_result_is_one_machines_to_the_bit(scheduler: str) -> None:
    p = np.round(P * 64) / 64  # sums of such numbers are exact
    t = np.eye(4, dtype=np.float32)[LABELS]
    exact = lossfuncs.metrics.AUC(exact=True, name="exact")
    asked: dict[str, Any] = {"loss": ["mse", "mae"], "metrics": ["accuracy", "AUC", exact, "F1Score"]}
    found = lossfuncs.evaluate(da.from_array(t, chunks=(333, 4)), da.from_array(p, chunks=(500, 4)), **asked)
    wanted = lossfuncs.evaluate(t, p, **asked)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_dataframes_give_what_one_machine_gives(scheduler: str) -> None:
    frame = pd.DataFrame(P, columns=list("abcd")).assign(label=LABELS, weight=WEIGHTS)
    lazy = dd.from_pandas(frame, npartitions=5)
    found = lossfuncs.evaluate(lazy["label"], lazy[list("abcd")], sample_weight=lazy["weight"], **ASKED)
    same(found, lossfuncs.evaluate(LABELS, P, sample_weight=WEIGHTS, **ASKED))


def test_partitions_without_rows_do_no_harm() -> None:
    frame = dd.from_pandas(pd.DataFrame({"t": np.arange(100) % 2, "p": np.linspace(0.1, 0.9, 100)}), npartitions=4)
    frame = frame[frame["p"] < 0.5]
    whole = frame.compute()
    same(lossfuncs.evaluate(frame["t"], frame["p"], loss="bce"), lossfuncs.evaluate(whole["t"], whole["p"], loss="bce"))


def test_what_suits_is_decided_once() -> None:
    # chunks after the first look like class numbers, and on their own would be taken for such
    t, p = np.arange(60) % 2, np.concatenate([np.full(20, 0.25), np.ones(40)])
    same(lossfuncs.evaluate(da.from_array(t, chunks=20), da.from_array(p, chunks=20)), lossfuncs.evaluate(t, p))


def test_workers_open_files_themselves(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "PART", 20000)  # of some 20 bytes a row
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "p.npy", P)
    np.savetxt(tmp_path / "w.csv", WEIGHTS)
    paths = tmp_path / "y.npy", tmp_path / "p.npy"
    wanted = lossfuncs.evaluate(*paths, **ASKED)
    parts = list(on_dask._file_parts({"y_true": paths[0], "y_pred": paths[1]}))
    assert len(parts) > 3
    assert all(isinstance(path, str) for _, part in parts for path, _, _ in part)
    same(on_dask.evaluate(*paths, **ASKED), wanted)
    same(on_dask.evaluate([paths[0]] * 2, [str(paths[1])] * 2, **ASKED), wanted)  # the same data twice
    same(on_dask.evaluate(*paths, sample_weight=tmp_path / "w.csv", **ASKED), lossfuncs.evaluate(*paths, sample_weight=WEIGHTS, **ASKED))


def test_a_bad_label_is_named_by_its_row_in_all_data(scheduler: str, tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[4321] = 9
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "p.npy", P)
    for y, p, evaluate in ((da.from_array(labels, chunks=500), da.from_array(P, chunks=(500, 4)), lossfuncs.evaluate),
                           (tmp_path / "y.npy", tmp_path / "p.npy", on_dask.evaluate)):  # fmt: skip
        with pytest.raises(ValueError, match=r"y_true\[4321\] is 9, but y_pred has classes 0 to 3"):
            evaluate(y, p, loss="crossentropy")


def test_your_own_loss_is_evaluated_in_this_process_and_in_others(request: pytest.FixtureRequest) -> None:
    within = lossfuncs.pointwise(lambda t, p, width=0.1: 1.0 if abs(t - p) <= width else 0.0, name="within")
    t = RNG.normal(size=(600, 2))
    p = t + RNG.normal(size=(600, 2)) * 0.1
    lazy = da.from_array(t, chunks=(100, 2)), da.from_array(p, chunks=(100, 2))
    with dask.config.set(scheduler="threads"):
        found = lossfuncs.evaluate(*lazy, loss=(within, {"width": 0.05}))
    wanted = lossfuncs.evaluate(t, p, loss=(within, {"width": 0.05}))
    same(found, wanted)
    within(t, p), lossfuncs.value_and_grad("mse", t, p)  # what was compiled stays here
    request.getfixturevalue("client")
    same(lossfuncs.evaluate(*lazy, loss=(within, {"width": 0.05})), wanted)
    lock = threading.Lock()
    held = lossfuncs.pointwise(lambda t, p: abs(t - p) + 0.0 * lock.locked(), name="held")
    with pytest.raises(TypeError, match="cannot be sent to other processes"):
        lossfuncs.evaluate(*lazy, loss=held)


def test_progress_tells_the_rows() -> None:
    said: list[Any] = []
    lossfuncs.evaluate(da.from_array(LABELS, chunks=999), da.from_array(P, chunks=(999, 4)), progress=lambda *x: said.append(x), **ASKED)
    assert said == [(N, N)]


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        (da.zeros(10, chunks=5), da.zeros((9, 4), chunks=(3, 4)), "y_true has 10 rows, but y_pred has 9"),
        (LABELS, da.zeros((N, 4), chunks=(1000, 4)), "y_true must be a collection of dask, as the others are, got ndarray"),
        (da.from_array(LABELS), P, "y_pred must be a collection of dask"),
        (da.zeros((0,), chunks=1), da.zeros((0, 4), chunks=(1, 4)), "the data have no rows"),
        (dd.from_pandas(pd.Series(LABELS), npartitions=3), da.zeros((N, 4), chunks=(1000, 4)), "partitions .* got y_true 3, y_pred 6"),
    ],
    ids=["rows", "kind", "other kind", "nothing", "partitions"],
)
def test_bad_input_is_named(y_true: Any, y_pred: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        lossfuncs.evaluate(y_true, y_pred, loss="crossentropy")


def test_files_and_collections_are_not_mixed(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(ValueError, match="must be all files or all dask collections"):
        on_dask.evaluate(tmp_path / "y.npy", da.from_array(P))
    np.save(tmp_path / "p.npy", P[:-1])
    with pytest.raises(ValueError, match=r"y.npy has 5,003 rows, but .*p.npy has 5,002"):
        on_dask.evaluate(tmp_path / "y.npy", tmp_path / "p.npy")
    with pytest.raises(ValueError, match="Could not interpret metric identifier"):
        on_dask.evaluate(tmp_path / "y.npy", tmp_path / "p.npy", metrics="acuracy")


def test_the_readmes_example_runs(run_examples: Callable[[str], None]) -> None:
    run_examples("dask")
