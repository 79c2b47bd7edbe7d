"""`lossfuncs bench`: what is measured is right, what is shown is what was measured, and what is wrong is said."""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.util
import io
import json
import math
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import DEVICE

import lossfuncs
from bench import gpu, readme, updates
from lossfuncs import devices, domains
from lossfuncs.benchmark import compare, contestants, cuda, formulas, machine, measure, page, pictures, timing, workloads
from lossfuncs.benchmark.contestants import Contestant
from lossfuncs.benchmark.timing import Runner
from lossfuncs.benchmark.workloads import Workload
from lossfuncs.cli import bench, main
from lossfuncs.table import LOSSES, METRICS, Entry

STANDARD = list({each.problem: each for each in workloads.chosen([], [], ["float32"], None, quick=False)}.values())
ENTRIES = [pytest.param(entry, id=f"{kind}-{entry.name}") for kind, table in (("loss", LOSSES), ("metric", METRICS)) for entry in table]
TINY = ("--shape", "8x3", "--min-time", "0.001", "--no-progress")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of some megabytes, no waiting, nobody else on the machine: the figures are not what is tested here."""
    monkeypatch.setattr(machine, "last_level_cache", lambda: 1 << 18)
    monkeypatch.setattr(bench, "_keep_freed_memory", lambda: None)
    monkeypatch.setattr(timing, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(timing, "watch_others", lambda: lambda: 0.0)


# Workloads


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("gradient", (False, True))
def test_every_line_of_the_table_can_be_measured(entry: Entry, gradient: bool) -> None:
    found = list(workloads._of(entry.name, {}, gradient, [(64, 5)], ["float32"]))
    if gradient and not found:
        assert "accuracy" in entry.name or "correlation" in entry.name or entry.function is lossfuncs.metrics.cosine_similarity
        return
    (workload,) = found
    if entry in LOSSES:
        assert workload.entry is entry
    y_true, y_pred = workload.draw()
    exact = workload.reference(y_true, y_pred)
    assert len(exact) == 1 + gradient and np.isfinite(exact[0]).all()
    (ours,) = contestants._ours("numpy").build(workload)
    with contestants._ours("numpy").context(workload):
        result = ours(y_true, y_pred)
    error, fault = measure.compare([np.asarray(x) for x in (result if gradient else (result,))], exact)
    assert fault is None and error <= 2.0**-23


def test_the_standard_table_and_the_quick_one_are_of_known_names_and_without_doubles() -> None:
    standard = workloads.chosen([], [], ["float32"], None, quick=False)
    assert len(standard) == len({w.identity for w in standard}) > 40
    assert {w.gradient for w in standard} == {False, True}
    quick = workloads.chosen([], [], ["float32"], None, quick=True)
    assert 5 <= len(quick) <= 12
    assert not any(w.gradient for w in workloads.chosen([], [], ["float32"], "value", quick=False))
    assert all(w.gradient for w in workloads.chosen([], [], ["float32"], "grad", quick=False))


def test_names_options_shapes_dtypes_and_modes_multiply() -> None:
    found = workloads.chosen([("MSE", {}), ("huber", {"delta": 2.0})], [(4, 3), (5, 3)], ["float32", "float64"], "both", quick=False)
    assert len(found) == 16
    assert found[0].identity == "mean_squared_error 4x3 float32"
    assert found[-1].identity == "value_and_grad huber delta=2.0 5x3 float64" and found[-1].formula is None


@pytest.mark.parametrize(
    ("name", "options", "gradient", "expected"),
    [
        ("mean_squared_error", {}, False, 0),
        ("binary_crossentropy", {}, False, 0.1),  # a logarithm for the ten elements of a row
        ("binary_crossentropy", {"from_logits": True}, False, 1.1),
        ("binary_crossentropy", {"from_logits": True}, True, 1.1),  # the slope has the value's exponential
        ("categorical_crossentropy", {}, False, 0.1),
        ("binary_focal_crossentropy", {"from_logits": True}, False, 3),  # twice exp, log1p
        ("sparse_categorical_crossentropy", {}, False, 0),  # one a row
        ("sparse_categorical_crossentropy", {"from_logits": True}, False, 1),
        ("sparse_categorical_crossentropy", {"from_logits": True}, True, 2),
        ("log_cosh", {}, False, 1.1),
        ("log_cosh", {}, True, 2.1),  # and tanh
        ("circle", {}, False, None),
    ],
)
def test_elementary_functions_are_counted_from_the_row_maths(name: str, options: dict[str, Any], gradient: bool, expected: Any) -> None:
    (workload,) = workloads._of(name, options, gradient, [(8, 10)], ["float32"])
    assert workload.functions == (None if expected is None else pytest.approx(expected))


def test_large_arrays_are_rotated_past_the_cache_unless_warm() -> None:
    workload = Workload("loss", "mean_squared_error", (256, 128))
    cache = machine.last_level_cache()
    copies = workloads.data(workload, False, cache)
    size = sum(x.nbytes for x in copies[0])
    assert len(copies) * size >= 8 * cache
    assert all(np.array_equal(copies[0][i], pair[i]) and pair[i].ctypes.data % 64 == 0 for pair in copies for i in (0, 1))
    assert len({pair[0].ctypes.data for pair in copies}) == len(copies)
    assert len(workloads.data(workload, True, cache)) == len(workloads.data(replace(workload, shape=(8, 8)), False, cache)) == 1


@pytest.mark.parametrize("workload", STANDARD, ids=lambda workload: workload.problem)
def test_of_rows_that_come_again_the_reference_is_that_of_all(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = replace(workload, shape=(40, 9))
    monkeypatch.setattr(workloads, "DISTINCT", 70)
    assert workload.distinct == 7
    y_true, y_pred = workload.draw()
    assert y_pred.shape == (40, 9) and np.array_equal(y_pred[35:], y_pred[:5]) and np.array_equal(y_true[35:], y_true[:5])
    found = workload.reference(y_true, y_pred)
    monkeypatch.setattr(workloads, "DISTINCT", 1 << 20)
    assert workload.distinct == 40
    for got, wanted in zip(found, workload.reference(y_true, y_pred), strict=True):
        assert got.shape == wanted.shape and got == pytest.approx(wanted, rel=1e-13)


def test_rows_that_depend_on_others_are_all_drawn() -> None:
    for name, options in (("circle", {}), ("categorical_crossentropy", {"axis": 0}), ("mean_squared_error", {"reduction": "sum"})):
        (workload,) = workloads._of(name, options, False, [(2000, 5000)], ["float32"])
        assert workload.distinct == workload.shape[0]


@pytest.mark.parametrize("axis", (-1, 0, 1))
def test_one_hot_targets_of_many_classes_need_no_square_of_them(axis: int) -> None:
    entry = next(e for e in LOSSES if e.name == "categorical_crossentropy")
    shape = (30_000, 2) if axis == 0 else (2, 30_000)
    y_true, _ = domains.draw(entry, shape, np.random.default_rng(0), np.float32, axis=axis)
    assert y_true.shape == shape and (y_true.sum(axis) == 1).all() and y_true.dtype == np.float32


# Contestants


def _formulas() -> dict[str, Callable[[], formulas.Formulas]]:
    made: dict[str, Callable[[], formulas.Formulas]] = {"numpy": formulas.numpy_formulas}
    others = {"torch": formulas.torch_formulas, "jax": formulas.jax_formulas, "sklearn": lambda: formulas.sklearn_formulas(1)}
    return made | {name: make for name, make in others.items() if importlib.util.find_spec(name)}


@pytest.mark.parametrize("peer", sorted(_formulas()))
def test_every_formula_of_a_peer_agrees_with_float64(peer: str) -> None:
    field, absent = contestants.field(["numpy"], [peer], [1], ["float32"])
    assert not absent
    contestant = field[-1]
    seen = set()
    for each in workloads.chosen([], [(64, 12)], ["float32"], "both", quick=False):
        runners: dict[str, Runner] = {}
        errors: dict[str, float] = {}
        faults: dict[str, str] = {}
        pairs = workloads.data(each, False, machine.last_level_cache())
        measure._enter(contestant, each, pairs, each.reference(*pairs[0]), runners, errors, faults)
        assert not faults
        seen |= {each.problem} if runners else set()
    assert seen >= _formulas()[peer]().keys() - {"binary_crossentropy from logits" if peer == "sklearn" else ""}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = contestants.find_spec
    monkeypatch.setattr(contestants, "find_spec", lambda name: None if name in contestants.PEERS else there(name))
    assert main(["bench", "mse", *TINY]) == 0
    out = capsys.readouterr().out
    for peer in ("torch", "jax", "sklearn", "keras"):
        assert any(line.split() == [peer, "absent:", "not", "installed"] for line in out.splitlines())
    assert "GB/s" in out and "lossfuncs numba" in out


def test_our_threads_are_contestants_and_set_only_for_them() -> None:
    field, _ = contestants.field(["numba"], ["none"], [1, 2], ["float32"])
    assert [(each.name, each.threads) for each in field] == [("lossfuncs numba 1T", 1), ("lossfuncs numba 2T", 2)]
    before = lossfuncs.get_num_threads()
    with field[0].context(Workload("loss", "mean_squared_error", (2, 2))):
        assert lossfuncs.get_num_threads() == 1 and lossfuncs.current_backend() == "numba"
    assert lossfuncs.get_num_threads() == before


def peer(name: str, formula: Callable[[Any, Any], Any]) -> Contestant:
    return Contestant(name, lambda workload: (formula,))


def test_a_wrong_contestant_is_shown_as_wrong_and_not_timed() -> None:
    calls = 0

    def wrong(t: Any, p: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.square(t - p).mean(-1) * np.float32(1.01)

    def fails(t: Any, p: Any) -> Any:
        raise RuntimeError("no such operator")

    field = [*contestants.field(["numba"], ["numpy"], [1], ["float32"])[0], peer("wrong", wrong), peer("fails", fails)]
    result = measure.measure(Workload("loss", "mean_squared_error", (64, 10)), field, 0.002, 2)
    lines = {line["name"]: line for line in measure.figures(result, {"cpu": ROOF})}
    assert calls == 1
    assert lines["wrong"]["fault"].startswith("wrong: largest error 1.") and "minimum" in lines["numpy"]
    assert lines["fails"]["fault"] == "fails: RuntimeError: no such operator"
    assert lines["lossfuncs numba"]["fault"] is None and 0 < lines["lossfuncs numba"]["error"] < 2.0**-23
    assert lines["numpy"]["ratio"] == 1 and lines["lossfuncs numba"]["best_peer"] == "numpy"


def test_the_largest_error_is_found_wherever_it_is() -> None:
    exact = np.array([1.0, -2.0, 0.0, np.inf, np.nan])
    assert measure.compare([exact], [exact]) == (0.0, None)
    error, fault = measure.compare([np.array([1.0, -2.002, 0.0, np.inf, np.nan])], [exact])
    assert fault is None and error == pytest.approx(1e-3)
    small, _ = measure.compare([np.array([1.0, 1e-9])], [np.array([1.0, 0.0])])  # next to zero: relative to the others
    assert small == pytest.approx(1e-9 * math.sqrt(2))
    for bad in (np.array([1.0, -2.0, 0.0, 1.0, np.nan]), np.array([np.nan, -2.0, 0.0, np.inf, np.nan])):
        assert measure.compare([bad], [exact])[1] is not None
    assert measure.compare([exact[:4]], [exact])[1] == "shape (4,), wanted (5,)"
    assert measure.compare([exact, exact], [exact])[1] == "2 results, wanted 1"
    many = np.ones((5, measure.BLOCK // 2))
    late = many.copy()
    late[3, 5] = 1.25
    assert measure.compare([late], [many]) == (0.25, None)
    late[4, 7] = np.nan
    assert measure.compare([late], [many]) == (math.inf, "nan at (4, 7), wanted 1")


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("workload", STANDARD, ids=lambda workload: workload.problem)
def test_what_is_right_is_timed_and_nothing_else(workload: Workload, dtype: str) -> None:
    def wrong(formula: formulas.Formula) -> formulas.Formula:
        def compute(t: Any, p: Any) -> Any:
            found = formula(t, p)
            return (found[0], -found[1]) if isinstance(found, tuple) else ~found if found.dtype == bool else found * 1.1

        return compute

    def doubles(x: Any) -> Any:
        return x if x.dtype.kind == "i" else x.astype(np.float64)

    def contestant(name: str, change: Callable[[formulas.Formula], formulas.Formula]) -> Contestant:
        return Contestant(name, lambda each: [change(way) for way in ways(each)], doubles)

    ways = contestants._ways(formulas.numpy_formulas(), np.mean)
    field = [contestant("right", lambda f: f), contestant("wrong", wrong), contestant("broken", lambda f: lambda t, p: t.no_such_method())]
    shape = (31,) if len(workload.shape) == 1 else (31, 7)
    right, mutant, broken = measure.measure(replace(workload, shape=shape, dtype=dtype), field, 1e-4, 1)["contestants"]
    assert "fault" not in right and right["minimum"] > 0
    assert mutant["fault"].startswith("wrong: largest error") and "no_such_method" in broken["fault"]


# Timing


def simulated(seconds: Callable[[int], float]) -> Runner:
    """A runner whose i-th burst takes seconds(i) a call."""
    bursts = 0

    def burst(function: Any, batch: Sequence[Any]) -> float:
        nonlocal bursts
        bursts += 1
        return seconds(bursts) * len(batch)

    return Runner(lambda: None, [()], burst=burst)


def test_times_are_a_call_and_quartiles_are_of_all_bursts() -> None:
    raced, noise = timing.race({"even": simulated(lambda i: 1e-3), "odd": simulated(lambda i: 1e-3 * (1 + i % 4))}, 0.4, 4)
    even, odd = raced["even"], raced["odd"]
    assert noise == 0 and even.minimum == even.median == even.upper == pytest.approx(1e-3) and even.rounds == pytest.approx([1e-3] * 4)
    assert odd.minimum == pytest.approx(1e-3) and odd.median == pytest.approx(2.5e-3, rel=0.05)
    assert odd.upper - odd.lower == pytest.approx(1.5e-3, rel=0.4) and len(odd.rounds) == 4
    assert even.bursts >= 400 and even.calls == even.bursts


def test_short_calls_are_bundled_into_bursts_the_clock_can_see() -> None:
    raced, _ = timing.race({"short": simulated(lambda i: 1e-8)}, 0.01, 2)
    assert raced["short"].minimum == pytest.approx(1e-8) and raced["short"].calls / raced["short"].bursts >= timing.BURST_SECONDS / 1e-8


def test_disturbed_rounds_are_repeated_and_the_quietest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.0, 0.9, 0.0, 0.0])
    monkeypatch.setattr(timing, "watch_others", lambda: lambda: next(shares))
    raced, noise = timing.race({"a": simulated(lambda i: 1e-3)}, 0.01, 3)
    assert noise == 0 and len(raced["a"].rounds) == 3 and next(shares, None) is None


def test_out_of_time_a_race_ends_after_the_least_rounds() -> None:
    raced, _ = timing.race({"a": simulated(lambda i: 1e-3)}, 0.01, 10, until=time.monotonic() - 1)
    assert len(raced["a"].rounds) == timing.LEAST_ROUNDS


def test_the_clock_ranks_real_work_and_the_collector_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # the time that this thread had a core: what others take of it is no part of the work
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=time.thread_time, sleep=time.sleep, monotonic=time.monotonic))
    x, out = np.ones(20_000), np.empty(20_000)  # a result that is new each time would cost its pages

    def ten(x: np.ndarray, out: np.ndarray) -> None:
        for _ in range(10):
            np.exp(x, out)

    raced, _ = timing.race({"once": Runner(np.exp, [(x, out)]), "ten": Runner(ten, [(x, out)])}, 0.02, 3)
    assert 4 < raced["ten"].minimum / raced["once"].minimum < 25
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        timing.race({"bad": Runner(lambda: 1 / 0, [()])}, 0.01, 2)
    assert gc.isenabled()


def test_roofs_are_measured_for_what_is_asked() -> None:
    roofs = machine.roofs(2, {"float32", "bfloat16", "float64"}, 2)
    assert roofs.keys() == {"read", "write", "copy", "log float32", "log float64"}
    assert all(1e8 < rate < 1e13 for rate in roofs.values())


# Comparison

ROOF = {"read": 40e9, "write": 20e9, "copy": 40e9, "log float32": 4e9, "log float64": 2e9}


def made_report(rounds: dict[str, Sequence[float]], noise: float = 0.0, fault: str | None = None) -> dict[str, Any]:
    """A report of one workload with these rounds; `fault` is that of lossfuncs."""
    result: dict[str, Any] = Workload("loss", "mean_squared_error", (4096, 1000)).describe() | {
        "functions": 0.0, "rows": 4096, "bytes_read": 32768000, "bytes_written": 16384, "data": "memory", "copies": 8, "noise": noise,
    }  # fmt: skip
    result["contestants"] = [
        {"name": name, "ours": name.startswith("lossfuncs"), "device": "cpu", "threads": 2, "minimum": min(x), "lower": min(x),
         "median": float(np.median(x)), "upper": max(x), "rounds": list(x), "error": 5e-8, "launch": None, "unstable": False}
        for name, x in rounds.items()
    ]  # fmt: skip
    if fault:
        result["contestants"][0] = {"name": "lossfuncs numba", "ours": True, "fault": fault}
    return {"format": measure.FORMAT, "command": "lossfuncs bench", "environment": machine.environment() | {"gpu": None}, "absent": {},
            "threads": [2], "warm": False, "rounds": 6, "min_time": 0.3, "roofs": {"2": ROOF, "cpu": ROOF}, "roof_noise": 0.0,
            "results": [result]}  # fmt: skip


def noisy(rng: np.random.Generator, seconds: float, rounds: int = bench.ROUNDS) -> list[float]:
    """Least times of rounds on a shared machine: a few per cent of jitter, and now and then a neighbour."""
    return [seconds * (1 + abs(rng.normal(0, 0.02)) + (rng.random() < 0.1) * rng.uniform(0.1, 1.0)) for _ in range(rounds)]


def test_a_ratio_is_of_rounds_that_took_turns_not_of_the_luckiest_of_each() -> None:
    slow = [1, 1, 1, 1, 2, 2, 2]  # how long memory takes, round by round
    report = made_report({"lossfuncs numba": [*slow], "even": [1.1 * x for x in slow], "lucky": [2.2 * x for x in slow[:-1]] + [0.9]})
    ours = measure.figures(report["results"][0], report["roofs"])[0]
    assert ours["best_peer"] == "even" and ours["ratio"] == pytest.approx(1.1)
    assert measure.summary(report)["mean"] == pytest.approx(1.1)  # type: ignore[index]


def test_the_share_of_the_roof_is_of_what_memory_gave_in_the_same_rounds() -> None:
    slow = [1e-3, 1e-3, 2e-3, 2e-3, 2e-3]
    report = made_report({"lossfuncs numba": [1.25 * x for x in slow], "torch": [2 * x for x in slow]})
    [result], roofs = report["results"], report["roofs"]
    shares = [line["share_of_roof"] for line in measure.figures(result, roofs)]
    by_minimum = (32768000 / 40e9 + 16384 / 20e9) / 1.25e-3
    assert shares == pytest.approx([by_minimum, by_minimum / 1.6])  # nobody read meanwhile
    result["reading"] = {"1": [2 * x for x in slow], "2": slow}
    shares = [line["share_of_roof"] for line in measure.figures(result, roofs)]
    assert shares == pytest.approx([1.001 / 1.25, 1.001 / 2])  # a byte written counts as two read


def test_what_is_too_large_for_the_caches_is_read_in_the_same_rounds() -> None:
    [ours] = [each for each in contestants.field(["numba"], ["none"], [2], ["float32"])[0] if each.threads == 2]
    large = Workload("loss", "mean_squared_error", (4096, 1000))
    found = measure.measure(large, [ours], 0.02, 2)
    assert found["data"] == "memory" and found["reading"].keys() == {"2"}
    assert len(found["reading"]["2"]) == 2 and all(1e8 < found["bytes_read"] / seconds < 1e13 for seconds in found["reading"]["2"])
    assert measure.measure(large, [ours], 0.02, 2, warm=True)["reading"] == {} or machine.last_level_cache() < found["bytes_read"]
    assert measure.measure(Workload("loss", "mean_squared_error", (32, 10)), [ours], 0.02, 2)["reading"] == {}


def test_compare_catches_a_slowdown_of_a_fifth_and_passes_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(7)
    for again in range(20):
        for name, slowdown in (("a", 1.0), ("same", 1.0), ("slow", 1.2), ("fast", 0.8)):
            times = {"lossfuncs numba": noisy(rng, slowdown * 1e-3), "numpy": noisy(rng, 2e-3)}
            Path(f"{name}.json").write_text(json.dumps(made_report(times)))
        assert main(["bench", "compare", "a.json", "same.json", "--fail-if", "1.10"]) == 0, again
        assert main(["bench", "compare", "a.json", "fast.json", "--fail-if", "1.10"]) == 0
        capsys.readouterr()
        assert main(["bench", "compare", "a.json", "slow.json", "--fail-if", "1.10"]) == 1, again
        out = capsys.readouterr().out
        assert "slower, by more than 1.1" in out and "failed: 1 row of lossfuncs" in out
        assert main(["bench", "compare", "a.json", "slow.json"]) == 0  # no limit was given


def test_a_peer_that_became_slower_fails_nobody(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(made_report({"lossfuncs numba": [1e-3] * 6, "numpy": [1e-3] * 6})))
    b.write_text(json.dumps(made_report({"lossfuncs numba": [1e-3] * 6, "numpy": [3e-3] * 6})))
    assert main(["bench", "compare", str(a), str(b), "--fail-if", "1.10"]) == 0


def test_what_others_did_to_the_machine_is_no_slowdown_but_a_wrong_result_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(made_report({"lossfuncs numba": [1e-3] * 6})))
    b.write_text(json.dumps(made_report({"lossfuncs numba": [1.4e-3] * 6}, noise=0.4)))
    assert main(["bench", "compare", str(a), str(b), "--fail-if", "1.10"]) == 0
    assert "unclear" in capsys.readouterr().out
    b.write_text(json.dumps(made_report({"lossfuncs numba": [1e-3] * 6, "numpy": [1e-3] * 6}, fault="wrong: largest error 2.0e-02")))
    a.write_text(json.dumps(made_report({"lossfuncs numba": [1e-3] * 6, "numpy": [1e-3] * 6})))
    assert main(["bench", "compare", str(a), str(b), "--fail-if", "1.10"]) == 1
    assert "lossfuncs numba wrong: largest error 2.0e-02" in capsys.readouterr().out


def test_compare_tells_real_code_from_code_three_times_as_slow() -> None:
    x = np.ones(50_000)

    def thrice(x: Any) -> None:
        for _ in range(3):
            np.exp(x)

    runners = {name: Runner(function, [(x,)]) for name, function in (("once", np.exp), ("again", np.exp), ("thrice", thrice))}
    times, _ = timing.race(runners, 0.03, 5)
    surely = {name: compare.ratio(times["once"].rounds, times[name].rounds)[1] for name in ("again", "thrice")}
    assert surely["again"] < 1.1 < surely["thrice"]


# The command


def test_a_run_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["bench", "mse", "sparse_categorical_crossentropy:from_logits=true", "categorical_accuracy", "--shape", "16x3,300x40",
            "--mode", "both", "--vs", "numpy", "--backend", "numpy", "--min-time", "0.002", "--no-progress",
            "--json", "o.json", "--csv", "o.csv", "--html", "o.html", "--plot", "o.png"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    report = measure.load("o.json")
    assert report["command"].startswith("lossfuncs bench mse sparse_categorical_crossentropy:from_logits=true ")
    identities = [result["identity"] for result in report["results"]]
    assert identities[:2] == ["mean_squared_error 16x3 float32", "mean_squared_error 300x40 float32"]
    assert len(identities) == 2 * (2 + 2 + 1)
    rows = list(csv.DictReader(io.StringIO(Path("o.csv").read_text())))
    assert len(rows) == sum(len(result["contestants"]) for result in report["results"])
    ours = next(row for row in rows if row["implementation"] == "lossfuncs numpy")
    assert ours["workload"] == "mean_squared_error" and ours["shape"] == "16x3" and ours["fault"] == ""
    assert float(ours["bytes_per_s"]) == pytest.approx((2 * 16 * 3 + 16) * 4 / float(ours["min_s"]))
    assert float(ours["rows_per_s"]) == pytest.approx(16 / float(ours["min_s"]))
    assert float(ours["min_s"]) <= float(ours["q1_s"]) <= float(ours["median_s"]) <= float(ours["q3_s"])
    of_rounds = {each["name"]: np.array(each["rounds"]) for each in report["results"][0]["contestants"]}
    assert float(ours["ratio_to_best_peer"]) == pytest.approx(np.median(of_rounds["numpy"] / of_rounds["lossfuncs numpy"]))
    assert "value_and_grad sparse_categorical_crossentropy from logits" in out and "GB/s; 10^9 logarithms a second: " in out
    assert Path("o.png").read_bytes().startswith(b"\x89PNG") and Path("o.png").stat().st_size > 20_000
    assert "wrote o.html" in out
    assert main(["bench", "compare", "o.json", "o.json", "--fail-if", "1.10"]) == 0


class Page(HTMLParser):
    """Checks that tags close as they opened, and keeps what the tests ask for."""

    VOID = {"meta", "img", "input", "br", "link", "wbr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[tuple[str, list[str]]] = []
        self.images: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.loads += [value for key, value in attributes if key in ("src", "href") and value]
        if tag == "tr":
            self.rows.append((found.get("class") or "", []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append("")
        elif tag == "img":
            self.images.append(found.get("alt") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][1][-1] += data


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    report = made_report({"lossfuncs numba": [2e-3] * 6, "numpy": [1e-3] * 6, "<b>odd": [3e-3] * 6})
    small = made_report({"lossfuncs numba": [1e-5] * 6, "numpy": [2e-5] * 6})["results"][0]
    report["results"].append(small | {"shape": [32, 10], "bytes_read": 2560, "bytes_written": 128, "data": "cache", "identity": "small"})
    report["results"].append(made_report({"x": [1.0]}, fault="wrong: largest error 1.0e-02")["results"][0] | {"problem": "huber"})
    text = page.page(report)
    parsed = Page(text)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in parsed.loads) and "http" not in text
    head, *rows = parsed.rows
    assert tuple(head[1]) == page.COLUMNS
    assert all(len(cells) == len(page.COLUMNS) for _, cells in rows) and len(rows) == 6
    classes, cells = rows[0]
    assert {"ours", "bad", "first"} == set(classes.split()) and "behind numpy" in cells[-1]
    assert cells[:3] == ["mean_squared_error", "4096x1000 float32, memory", "lossfuncs numba"] and cells[9] == "0.50"
    assert rows[2][1][2] == "<b>odd"
    assert "bad" in rows[5][0] and rows[5][1][-1] == "wrong: largest error 1.0e-02"
    assert [alt.partition(":")[0] for alt in parsed.images] == [
        "Throughput against size", "Roofline", "Share of the roof by loss and implementation"]  # fmt: skip
    assert "width=device-width" in text


@pytest.mark.parametrize("suffix", (".svg", ".pdf"))
def test_pictures_can_be_saved_in_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    pictures.save(made_report({"lossfuncs numba": [1e-3] * 6}), path)
    assert path.read_bytes()[:5] in (b"<?xml", b"%PDF-")


def test_a_total_is_measured_as_one(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    argv = ["bench", "mae:reduction=sum", "mae:reduction=mean", "--backend", "numpy", "--vs", "numpy", "--json", str(path)]
    assert main([*argv, *TINY]) == 0
    assert [result["problem"] for result in measure.load(str(path))["results"]] == [
        "mean_absolute_error reduction=sum", "mean_absolute_error total"]  # fmt: skip


def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = measure.measure

    def second_time(workload: Workload, *arguments: Any) -> Any:
        if workload.function == "huber":
            raise KeyboardInterrupt
        return measured(workload, *arguments)

    monkeypatch.setattr(measure, "measure", second_time)
    path = tmp_path / "o.json"
    assert main(["bench", "mse", "huber", "mae", "--vs", "none", *TINY, "--json", str(path)]) == 130
    captured = capsys.readouterr()
    assert "interrupted after 1 of 3 workloads, which are kept" in captured.err
    report = measure.load(str(path))
    assert len(report["results"]) == 1 and report["interrupted"]
    assert "interrupted" in page.page(report)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["mqe"], "mqe"),
        (["mse:delta=1"], "mean_squared_error has no option 'delta'; it has none"),
        (["mse:reduction=median"], "reduction must be mean or sum, got median"),
        (["AUC"], "has no form as a function of two arrays"),
        (["mse", "--shape", "4xx5"], "a shape is numbers with x between them, as 4096x1000, got '4xx5'"),
        (["mse", "--shape", "0x5"], "a shape is numbers with x between them"),
        (["mse", "--dtype", "float31"], "must be of float32, float64, float16, bfloat16, got 'float31'"),
        (["mse", "--vs", "tensorflaw"], "tensorflaw"),
        (["mse", "--threads", "0"], "must be whole numbers of at least 1, as 1,2, got '0'"),
        (["mse", "--min-time", "-1"], "--min-time must be a positive number of seconds, got -1.0"),
        (["mse", "--rounds", "1"], "--rounds must be a whole number from 2 to 10000, got 1"),
        (["acc", "--mode", "grad"], "acc has no gradient"),
        (["mse", "--html", "no/such/o.html"], "there is no folder no/such"),
        (["mse", "--plot", "o.gif"], "--plot must end in .png, .svg or .pdf, got o.gif"),
        (["mse", "--fail-if", "1.1"], "--fail-if is for `lossfuncs bench compare A.json B.json`"),
        (["mse", "--backend", "cupy"], "lossfuncs cupy cannot take part: CuPy finds no GPU"),
        (["compare", "a.json"], "compare wants two JSON files"),
        (["compare", "none.json", "none.json"], "none.json: No such file or directory"),
        (["compare", "text.json", "text.json"], "text.json is no JSON file that `lossfuncs bench --json` wrote"),
        (["compare", "list.json", "list.json"], "list.json is no JSON file that `lossfuncs bench --json` wrote"),
        (["compare", "old.json", "old.json"], "old.json has format 0, but this lossfuncs reads format 1"),
        (["compare", "a.json", "b.json"], "have no workload in common"),
        (["compare", "a.json", "a.json", "--fail-if", "0.5"], "--fail-if must be a ratio of at least 1"),
    ],
)
def test_bad_input_is_answered_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contestants, "trouble", lambda: "CuPy finds no GPU")
    report = made_report({"lossfuncs numba": [1e-3] * 6})
    for name, content in (("a", report), ("old", report | {"format": 0}), ("list", []), ("b", report | {"results": []})):
        Path(f"{name}.json").write_text(json.dumps(content))
    Path("text.json").write_text("not JSON")
    assert main(["bench", *argv]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.startswith("lossfuncs bench: ") and captured.err.count("\n") == 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ("", "1"))
def test_a_terminal_gets_colours_and_progress_with_time_left(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["bench", "mse", "mae", "--shape", "8x3", "--min-time", "0.001", "--vs", "numpy"]) == 0
    assert ("\x1b[" in out.getvalue()) == (not no_color) and "lossfuncs numba" in out.getvalue()
    assert "1 of 2 workloads, 0:0" in err.getvalue() and "left: mean_absolute_error 8x3 float32" in err.getvalue()


def test_where_we_are_behind_the_row_says_so_in_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    report = made_report({"lossfuncs numba": [2e-3] * 6, "numpy": [1e-3] * 6})
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        bench.Table(["lossfuncs numba", "numpy"], launches=False).add(report["results"][0], report["roofs"])
        (row,) = [line for line in stream.getvalue().splitlines() if "lossfuncs numba" in line]
        assert "behind numpy" in row and ("\x1b[31m" in row) == stream.isatty()
        assert "2.00 ms" in row and "16.4" in row and "41%" in row and "0.50" in row and "5.0e-08" in row


# On a GPU, with a CuPy that is made of paper


class Paper(types.ModuleType):
    """As much of CuPy as is used: NumPy's functions, and one clock, which kernels advance and the host reads by events.

    With `by_host` events read the host's clock, for what is no kernel of paper.
    """

    def __init__(self, capturing_fails: bool = False, by_host: bool = False) -> None:
        super().__init__("cupy")
        clock = [0.0]
        captured: list[list[float]] = []

        class Event:
            def record(self) -> None:
                self.at = time.perf_counter() if by_host else clock[0]

            def synchronize(self) -> None:
                pass

        class Graph:
            def __init__(self, kernels: list[float]) -> None:
                self.kernels = kernels

            def launch(self, stream: Any) -> None:
                clock[0] += sum(self.kernels)

        class Stream:
            def __init__(self, non_blocking: bool = False) -> None: ...

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: Any) -> None: ...

            def begin_capture(self) -> None:
                if capturing_fails:
                    raise RuntimeError("cudaErrorStreamCaptureUnsupported")
                captured.append([])

            def end_capture(self) -> Graph:
                return Graph(captured.pop())

            def synchronize(self) -> None: ...

        def kernel(seconds: float) -> float:
            if captured:
                captured[-1].append(seconds)
            else:
                clock[0] += seconds
            return seconds

        self.kernel = kernel
        pool = types.SimpleNamespace(malloc=None, free_all_blocks=lambda: None)
        self.get_default_memory_pool = lambda: pool
        self.RawKernel = lambda source, name: lambda grid, block, arguments: kernel(1e-3)
        self.ElementwiseKernel = lambda *text: lambda x, y: kernel(1e-3)
        properties = {"name": b"Paper", "major": 9, "minor": 0, "totalGlobalMem": 1 << 30, "multiProcessorCount": 2}
        runtime = types.SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda device: properties,
                                        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000)  # fmt: skip
        self.cuda = types.SimpleNamespace(
            Event=Event, Stream=Stream, get_current_stream=Stream, MemoryPool=lambda: pool, using_allocator=lambda _: nullcontext(),
            Device=lambda: types.SimpleNamespace(attributes={"L2CacheSize": 1 << 18, "MultiProcessorCount": 2}),
            get_elapsed_time=lambda a, b: 1e3 * (b.at - a.at), runtime=runtime)  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if name == "vecdot":  # the one that CuPy lacks
            raise AttributeError(name)
        return getattr(np, name)


@pytest.fixture
def uncached() -> Iterator[None]:
    """What was made of paper is thrown away."""
    cuda._capturing.cache_clear()
    yield
    cuda._capturing.cache_clear()


@pytest.mark.parametrize("capturing_fails", (False, True))
def test_a_gpu_is_timed_by_its_own_clock_and_its_launches_apart(
    monkeypatch: pytest.MonkeyPatch, capturing_fails: bool, uncached: None
) -> None:
    paper = Paper(capturing_fails)
    monkeypatch.setitem(sys.modules, "cupy", paper)
    runner = cuda.captured(cuda.cupy_graph)(paper.kernel, [(1e-5,), (3e-5,)], nullcontext)
    assert (runner.unit > 1) == (not capturing_fails) == (runner.result is not None)
    assert runner.launch is not None and 0 < runner.launch < 1e-3  # the paper kernel's host time
    raced, _ = timing.race({"kernel": runner}, 0.02, 2)
    assert raced["kernel"].median == pytest.approx(2e-5, rel=0.3)


def test_long_kernels_are_captured_once_for_each_of_their_arguments(monkeypatch: pytest.MonkeyPatch, uncached: None) -> None:
    paper = Paper()
    monkeypatch.setitem(sys.modules, "cupy", paper)
    assert cuda.captured(cuda.cupy_graph)(paper.kernel, [(1e-3,), (2e-3,)], nullcontext).unit == 2


def test_calls_are_queued_through_all_arguments_and_the_last_is_awaited() -> None:
    seen: list[int] = []
    waited: list[int] = []
    runner = cuda.queued(waited.append)(lambda i: seen.append(i) or i, [(0,), (1,), (2,)], nullcontext)
    assert runner.unit % 3 == 0 and runner.unit >= 300 and runner.launch is not None
    seen.clear(), waited.clear()
    runner.function(*runner.arguments[0])
    assert seen == [0, 1, 2] * (runner.unit // 3) and waited == [2]


def test_what_a_graph_leaves_must_be_right_too() -> None:
    def stale(function: Any, arguments: Any, context: Any) -> Runner:
        return Runner(lambda: None, [()], context, result=lambda: np.zeros(64))

    contestant = Contestant("graph", lambda workload: (lambda t, p: np.square(t - p).mean(-1),), runner=stale)
    (found,) = measure.measure(Workload("loss", "mean_squared_error", (64, 10)), [contestant], 1e-4, 1)["contestants"]
    assert found["fault"].startswith("wrong: largest error")


def test_on_a_gpu_cupy_takes_part_and_those_peers_that_see_it(monkeypatch: pytest.MonkeyPatch, uncached: None) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Paper())
    monkeypatch.setattr(contestants, "trouble", lambda: None)
    field, absent = contestants.field(["cupy"], ["torch", "jax", "sklearn"], [1], ["float32"])
    assert [(each.name, each.device) for each in field[:2]] == [("lossfuncs cupy", "cuda"), ("cupy", "cuda")]
    for name in ("torch", "jax"):
        if importlib.util.find_spec(name):
            assert f"{name} (cuda)" in {each.name for each in field} or absent[f"{name} (cuda)"] == f"{name} sees no GPU"
        else:
            assert absent[name] == "not installed"
    assert absent["sklearn"].startswith("computes on the CPU")
    cpu_too, _ = contestants.field(["numpy", "cupy"], ["numpy"], [1], ["float32"])
    assert [each.name for each in cpu_too] == ["lossfuncs numpy", "lossfuncs cupy", "numpy", "cupy"]


@pytest.mark.parametrize("workload", STANDARD, ids=lambda workload: workload.problem)
def test_cupy_is_raced_by_the_formulas_of_numpy(workload: Workload, monkeypatch: pytest.MonkeyPatch, uncached: None) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Paper())
    shape = (100,) if len(workload.shape) == 1 else (31, 7)
    runners: dict[str, Runner] = {}
    faults: dict[str, str] = {}
    job = replace(workload, shape=shape)
    pairs = workloads.data(job, False, cuda.cache())
    measure._enter(contestants._cupy(), job, pairs, job.reference(*pairs[0]), runners, {}, faults)
    assert not faults and all(runner.unit >= cuda.GRAPH_CALLS for runner in runners.values()) and runners


def test_a_run_on_a_gpu_shows_its_roofs_and_what_launches_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uncached: None
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Paper(by_host=True))
    monkeypatch.setitem(devices.DEVICES, "cupy", lambda: DEVICE)
    for module in (contestants, cuda):
        monkeypatch.setattr(module, "trouble", lambda: None)
    monkeypatch.setattr(cuda, "ROOF_BYTES", 1 << 12)
    path = tmp_path / "o.json"
    argv = ["bench", "mse", "categorical_accuracy", "--backend", "cupy", "--vs", "numpy", "--mode", "both", "--dtype", "float32,bfloat16"]
    assert main([*argv, "--shape", "8x3,100x40", "--min-time", "0.0001", "--json", str(path)]) == 0
    out, report = capsys.readouterr().out, measure.load(str(path))
    assert report["command"].startswith("lossfuncs bench mse categorical_accuracy --backend cupy")
    assert "Paper, compute capability 9.0" in out and "roofs of the GPU: read " in out and "a launch costs the host " in out
    assert report["roofs"]["cuda"].keys() == {"read", "write", "copy", "log float32", "launch", "launch and wait"}
    assert len(report["results"]) == 12 and report["environment"]["gpu"]["cache"] == 1 << 18
    for result in report["results"]:
        ours, peer = result["contestants"]
        assert (ours["name"], ours["device"], peer["name"]) == ("lossfuncs cupy", "cuda", "cupy")
        assert 0 < ours["launch"] < 1 and "fault" not in ours and (peer.get("fault") is None or result["dtype"] == "bfloat16")


if importlib.util.find_spec("jax"):

    @pytest.mark.parametrize("gradient", (False, True))
    def test_jax_is_queued_and_its_results_are_those_of_a_gpu(gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        import jax

        (cpu,) = jax.devices("cpu")[:1]
        monkeypatch.setattr(jax, "devices", lambda kind: [cpu])  # a processor in the place of a GPU
        job = Workload("loss", "sparse_categorical_crossentropy", (40, 7), gradient=gradient, options={"from_logits": True})
        contestant = contestants._jax(False, "cuda")
        assert (contestant.name, contestant.device) == ("jax (cuda)", "cuda")
        runners: dict[str, Runner] = {}
        faults: dict[str, str] = {}
        pairs = workloads.data(job, False, 1 << 20)
        measure._enter(contestant, job, pairs, job.reference(*pairs[0]), runners, {}, faults)
        assert not faults and all(runner.unit > 1 and runner.launch for runner in runners.values()) and runners


def test_torch_captures_its_calls_after_one_on_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Stream:
        def wait_stream(self, other: Any) -> None:
            done.append("wait")

    graph = types.SimpleNamespace(replay=lambda: done.append("replay"))
    stream = Stream()
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(Stream=Stream, current_stream=lambda: stream, stream=lambda side: nullcontext(),  # type: ignore[attr-defined]
                                       CUDAGraph=lambda: graph, graph=lambda graph: nullcontext(done.append("capture")))  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    replay, result = cuda.torch_graph(lambda: done.append("one"), lambda: done.append("all") or "last")
    replay()
    assert result == "last" and done == ["wait", "one", "wait", "capture", "all", "replay"]


@pytest.mark.parametrize("workload", STANDARD, ids=lambda workload: workload.problem)
def test_our_cuda_kernels_are_within_what_is_asked_of_them(workload: Workload) -> None:
    job = replace(workload, shape=(500,) if len(workload.shape) == 1 else (64, 50))
    ours = replace(contestants._ours("emulated"), device="cuda", runner=Runner)
    runners: dict[str, Runner] = {}
    faults: dict[str, str] = {}
    pairs = workloads.data(job, False, machine.last_level_cache())
    measure._enter(ours, job, pairs[:1], job.reference(*pairs[0]), runners, {}, faults)
    assert not faults and len(runners) == 1


def test_the_gpus_benchmark_has_every_length_and_size_and_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [tuple(map(int, shape.split("x"))) for shape in gpu.shapes(quick=False)]
    assert {n for _, n in shapes} == set(gpu.LENGTHS) and all(rows >= gpu.LEAST_ROWS for rows, _ in shapes)
    assert {size for size in gpu.SIZES for rows, n in shapes if 0 <= size - rows * n < n} == set(gpu.SIZES)
    assert set(gpu.shapes(quick=True)) < set(gpu.shapes(quick=False))
    monkeypatch.setattr(contestants, "trouble", lambda: "CuPy finds no GPU")
    assert gpu.main(["--quick"]) == 2
    assert capsys.readouterr().err == "lossfuncs bench: lossfuncs cupy cannot take part: CuPy finds no GPU\n"


# Updates of metrics


@pytest.mark.parametrize("shape", ((32, 10), (300, 40)))
def test_updates_of_metrics_are_checked_before_they_are_timed(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "none of them")
    field, absent = updates.contestants()
    ours, job = field[0], replace(updates.workloads()[0], shape=shape)
    assert absent["keras (none of them)"].endswith("is not installed")
    forgetful = replace(ours, name="forgetful", leave=lambda found: updates._results(found) * [1, 1, 0.99])
    right, wrong = measure.measure(job, [ours, forgetful], 1e-3, 2)["contestants"]
    assert right["minimum"] > 0 and right["error"] < 1e-12 and wrong["fault"].startswith("wrong: largest error")


# The README


def test_the_readme_is_written_from_a_result() -> None:
    report = made_report({"lossfuncs numba": [2e-3] * 6, "numpy": [1e-3] * 6, "jax": [4e-3] * 6})
    text = readme.section(report, Path("x.json"), Path("x.svg"))
    assert "| mean_squared_error 4096x1000 | 2.000 | 1.000 | numpy | **0.50** | 41% |" in text
    assert "[x.json](bench/results/x.json)" in text and "(bench/results/x.svg)" in text and "worst 0.50" in text
    whole = f"before\n{readme.BEGIN}old\n{readme.END}after\n"
    assert readme.replaced(whole, text) == f"before\n{readme.BEGIN}{text}{readme.END}after\n"
    with pytest.raises(ValueError, match="must hold each of the two lines"):
        readme.replaced("no marks", text)
    assert re_slug(readme.slug(report))


def re_slug(name: str) -> bool:
    return all(part.isalnum() for part in name.split("-"))


def test_committed_results_can_be_read_and_say_where_they_are_from() -> None:
    for path in readme.RESULTS.glob("*.json"):
        report = measure.load(str(path))
        assert report["command"].startswith("lossfuncs bench") and report["environment"]["cpu"] and measure.summary(report)


def test_shapes_given_one_after_the_other_are_all_taken() -> None:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    shapes = parser.parse_args(["--shape", "4x2", "--shape", "3x3", "5x1"]).shape
    assert [shape for each in shapes for shape in each] == [(4, 2), (3, 3), (5, 1)]
