"""The command line, as a user meets it: in this process where that shows enough, else in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import cpu, names
from lossfuncs.cli import COMMANDS, evaluate, main, show, warmup
from lossfuncs.evaluate import Evaluation
from lossfuncs.table import LOSSES, METRICS


def process(*argv: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`lossfuncs argv`, then `code`, in a new process."""
    program = f"import sys; from lossfuncs.cli import main; status = main(sys.argv[1:]); {code}\nsys.exit(status)"
    return subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, env=os.environ | environment, check=False)


# evaluate


def test_without_files_it_reports_on_the_bundled_digits(capsys: pytest.CaptureFixture[str]) -> None:
    data = np.load(evaluate.DIGITS)
    y_true, y_pred = data["y_true"], data["y_pred"].astype(np.float64)
    assert y_pred.shape == (599, 10) and np.allclose(y_pred.sum(axis=1), 1) and set(y_true) == set(range(10))
    own = y_pred[np.arange(599), y_true]
    assert main(["evaluate", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["rows"] == 599
    assert out["values"] == {
        "sparse_categorical_crossentropy": pytest.approx(np.mean(-np.log(np.clip(own / y_pred.sum(axis=1), 1e-7, 1))), rel=1e-12),
        "accuracy": pytest.approx(np.mean(y_pred.argmax(axis=1) == y_true)),
        "sparse_top_k_categorical_accuracy(k=3)": pytest.approx(np.mean((y_pred > own[:, None]).sum(axis=1) < 3)),
    }
    assert main(["evaluate", "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "UCI handwritten digits" in out and "CC BY 4.0" in out
    assert "accuracy                                0.973289  sparse_categorical_accuracy, mean of 599 samples" in out
    assert "599 rows in " in out and "rows/s; numpy" in out


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with data and with all sorts of damage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(0)
    t, p = rng.integers(0, 3, 20), rng.dirichlet(np.ones(3), 20)
    arrays: dict[str, Any] = {
        "t": t, "p": p, "logits": 3 * np.log(p), "w": np.arange(20.0), "p19": p[:19], "bad": np.where(np.arange(20) == 13, 7, t),
        "text": np.array(["a"] * 20), "none": p[:0], "number": np.float64(3), "objects": np.array([{}] * 20),
    }  # fmt: skip
    for name, x in arrays.items():
        np.save(f"{name}.npy", x, allow_pickle=True)
    np.savez("both.npz", y_true=t, y_pred=p)
    lines = ["id,y,a,b,c", *(f"{i},{t[i]},{','.join(map(repr, p[i].tolist()))}" for i in range(20))]
    Path("both.csv").write_text("\n".join(lines))
    Path("word.csv").write_text("\n".join([*lines[:7], "6,1,0.5,half,0", *lines[8:]]))
    Path("hole.csv").write_text("\n".join([*lines[:7], "6,1,0.5,,0", *lines[8:]]))
    Path("long.csv").write_text("\n".join([*lines[:7], lines[7] + ",1", *lines[8:]]))
    Path("latin.csv").write_bytes(b"y\n1\n\xe9\n")
    Path("cut.npy").write_bytes(Path("p.npy").read_bytes()[:-40])
    Path("cut.npz").write_bytes(Path("both.npz").read_bytes()[:-100])
    Path("noise.npy").write_bytes(b"no header, but bytes")
    Path("noise.parquet").write_bytes(b"no footer, but bytes")
    for name in ("empty.npy", "empty.csv", "words.txt"):
        Path(name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "argv",
    ("t.npy p.npy", "both.npz", "both.npz:y_true both.npz:y_pred", "both.csv:y both.csv:a,b,c", "both.csv:1 p.npy",
     "both.csv --label-column y --prediction-columns a,b,c", "both.csv --label-column y --weights both.csv:id"),
)  # fmt: skip
def test_labels_and_predictions_may_come_from_one_file_or_two(files: Path, capsys: pytest.CaptureFixture[str], argv: str) -> None:
    weights = "--weights w.npy" if "--weights" in argv else ""
    found = []
    for words in (argv, f"t.npy p.npy {weights}"):
        assert main(["evaluate", "--backend", "numpy", "--json", *words.split()]) == 0
        found.append(json.loads(capsys.readouterr().out)["values"])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    {
        "t.npy nothere.npy": "nothere.npy: No such file or directory",
        "t.npy words.txt": "words.txt must end in one of .npy, .npz, .csv, .parquet",
        "t.npy p19.npy": "t.npy has 20 rows, but p19.npy has 19",
        "bad.npy p.npy --loss crossentropy --batch-size 5": "bad.npy: y_true[13] is 7, but y_pred has classes 0 to 2",
        "t.npy empty.npy": "empty.npy is empty",
        "empty.csv p.npy": "empty.csv is empty",
        "none.npy none.npy": "the data have no rows",
        "t.npy objects.npy": "objects.npy holds Python objects",
        "t.npy text.npy": "text.npy must hold real numbers, got dtype <U1",
        "t.npy number.npy": "number.npy must have rows, got a single number",
        "t.npy cut.npy": "cut.npy is cut off: 440 bytes of 480 are there",
        "t.npy cut.npz": "cut.npz is not a whole .npz file",
        "t.npy noise.npy": "noise.npy is not a .npy file",
        "t.npy noise.parquet": "noise.parquet is not a whole .parquet file",
        "t.npy both.npz": "both.npz holds y_true, y_pred: say which, as in both.npz:y_true",
        "t.npy both.npz:x": "there is no 'x'",
        "t.npy": "PREDICTIONS, the file with y_pred, is missing",
        "both.csv": "say with --label-column which of both.csv is y_true: id, y, a, b, c",
        "both.csv --label-column z": "both.csv has no column 'z'; it has id, y, a, b, c",
        "both.csv --label-column y --prediction-columns a,z": "both.csv has no column 'z'",
        "t.npy p.npy --label-column y": "are for one file that holds both",
        "word.csv --label-column y": "word.csv, line 8, column b: 'half' is not a number",
        "hole.csv --label-column y": "hole.csv, line 8, column b: there is no number",
        "long.csv --label-column y --prediction-columns a": "long.csv, line 8: 6 columns, but the first line has 5",
        "latin.csv p.npy": "latin.csv has 2 rows, but p.npy has 20",
        "latin.csv latin.csv": "latin.csv, line 3, column y: '\N{REPLACEMENT CHARACTER}' is not a number",
        "t.npy p.npy --loss msee": "Did you mean 'mse'?",
        "t.npy p.npy --metric huber": "'huber' is a loss, not a metric",
        "t.npy p.npy --loss mse": "y_true and y_pred must have the same shape, got (20,) and (20, 3)",
        "t.npy p.npy --loss ce --option k=3": "option k is known to none of ce; they know axis, from_logits, ignore_class",
        "t.npy p.npy --loss ce --option from_logits=perhaps": "the value a number, true, false, none or a list",
        "t.npy p.npy --loss ce --option from_logits": "an option must be OPTION=VALUE",
        "t.npy p.npy --loss ce --option huber:delta=2": "--option huber:delta=2 is for huber, which is not asked for",
        "t.npy p.npy --threads 0": "--threads must be at least 1, got 0",
        "t.npy p.npy --batch-size 0": "batch_size must be a whole number >= 1, got 0",
        "t.npy p.npy --batch-size few": "argument --batch-size: invalid int value: 'few'",
        "t.npy p.npy --bogus": "there is no --bogus here",
        "t.npy p.npy --import nothere.py": "No such file or directory",
    }.items(),
)  # fmt: skip
def test_bad_input_is_one_sentence_and_status_2(files: Path, capsys: pytest.CaptureFixture[str], argv: str, sentence: str) -> None:
    assert main(["evaluate", "--backend", "numpy", *argv.split()]) == 2
    out, err = capsys.readouterr()
    assert sentence in err and err.startswith("lossfuncs evaluate: ")
    assert err.count("\n") == 1 and not out


def test_options_reach_the_function_they_name(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "p.npy", "logits.npy", "--json", "--backend", "numpy", "--loss", "huber", "--loss", "dice:axis=(1,),"]
    assert main([*argv, "--loss", "log_cosh", "--option", "huber:delta=2.5", "--option", "axis=-1"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    p, logits = np.load("p.npy"), np.load("logits.npy")
    assert values["huber(delta=2.5)"] == pytest.approx(lossfuncs.losses.huber(p, logits, delta=2.5, reduction="mean"))
    assert values["dice(axis=(1,))"] == pytest.approx(lossfuncs.losses.dice(p, logits, axis=1, reduction="mean"))


def test_logits_taken_for_probabilities_are_noticed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "t.npy", "logits.npy", "--backend", "numpy", "--loss", "crossentropy"]
    assert main(argv) == 0
    assert "sparse_categorical_crossentropy expects probabilities" in (err := capsys.readouterr().err) and "from_logits=true" in err
    assert main([*argv, "--option", "from_logits=true"]) == 0
    assert not capsys.readouterr().err


def test_a_loss_of_ones_own_is_found_by_its_name(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossfuncs.losses.REGISTRY, "registered", {})
    Path("own.py").write_text("import lossfuncs\nlossfuncs.register(lossfuncs.pointwise(lambda t, p: abs(p - t), name='apart'))")
    assert main("evaluate w.npy w.npy --import own.py --loss apart --json --backend numpy".split()) == 0
    assert json.loads(capsys.readouterr().out)["values"] == {"apart": 0.0}


def test_values_that_are_not_finite_keep_the_json_valid(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.array([np.inf] * 20))
    assert main("evaluate w.npy x.npy --loss mae --json --backend numpy".split()) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["values"] == {"mae": "inf"}


def test_an_interrupt_says_how_far_it_got(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    update = Evaluation.update

    def interrupted(self: Evaluation, *batch: Any) -> None:
        if self.rows == 8:
            raise KeyboardInterrupt
        update(self, *batch)

    monkeypatch.setattr(Evaluation, "update", interrupted)
    assert main("evaluate t.npy p.npy --batch-size 4 --backend numpy".split()) == 130
    assert "interrupted after 8 of 20 rows" in capsys.readouterr().err


def test_a_bug_is_not_mistaken_for_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Evaluation, *batch: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Evaluation, "update", broken)
    with pytest.raises(KeyError):
        main(["evaluate", "--backend", "numpy"])


# list, info


def test_list_shows_every_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    losses, metrics = text.split("Metrics\n")
    for part, entries in ((losses, LOSSES), (metrics, METRICS)):
        lines = [line.split() for line in part.splitlines()]
        for entry in entries:
            assert [entry.name, entry.targets, "/", entry.predictions, *entry.aliases.split()] in lines
    assert main(["list", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [x["name"] for x in table["losses"]] == [entry.name for entry in LOSSES]
    assert [x["name"] for x in table["metrics"]] == [entry.name for entry in METRICS]
    assert next(x for x in table["losses"] if x["name"] == "huber")["options"] == {"delta": 1.0}


@pytest.mark.parametrize("string", sorted({string for known in names.SPELLINGS.values() for string in known}))
def test_info_knows_every_string_of_every_generation(capsys: pytest.CaptureFixture[str], string: str) -> None:
    assert main(["info", string]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for kind in names.SPELLINGS:
        if string in names.SPELLINGS[kind]:
            assert any(line[:2] == [kind, string] for line in lines)


def test_info_tells_formula_options_data_and_derivatives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "huber"]) == 0
    text = capsys.readouterr().out
    assert "lossfuncs.losses.huber(y_true, y_pred, delta=1.0, *, sample_weight=None, reduction=None)" in text
    assert (lossfuncs.losses.huber.__doc__ or "").splitlines()[0] in text
    assert "any number" in text and "gradient, second derivative" in text
    assert main(["info", "SparseCategoricalCrossentropy"]) == 0
    text = capsys.readouterr().out
    assert "class numbers, one axis less than y_pred" in text and "from logits the second derivative" in text
    assert main(["info", "categorical_accuracy"]) == 0
    assert "derivatives  none" in capsys.readouterr().out


def test_info_shows_both_meanings_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "CosineSimilarity"]) == 0
    text = capsys.readouterr().out
    assert "minus the cosine: -1 is best" in text and "plus the cosine: 1 is best" in text


def test_an_unknown_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "huberr"]) == 2
    assert "Did you mean 'huber'?" in capsys.readouterr().err
    assert main(["evalute"]) == 2
    assert "there is no command 'evalute'. Did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.parametrize("argv", (["list"], ["list", "--json"], ["info", "mse"], ["--help"], ["--version"],
                                  ["evaluate", "--help"], ["bench", "--help"]))
def test_what_computes_nothing_imports_nothing_slow(argv: list[str]) -> None:
    slow = {"numba", "llvmlite", "pyarrow", "rich", "pandas", "torch", "multiprocessing", "matplotlib", "lossfuncs.cpu"}
    done = process(*argv, code=f"print(*({slow!r} & set(sys.modules)), file=sys.stderr)")
    assert done.returncode == 0 and done.stdout
    assert done.stderr.strip() == ""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert name in text and summary in text
        assert main([name, "--help"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"lossfuncs {lossfuncs.__version__}\n")
    assert main([]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
def test_a_closed_pipe_ends_it_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "lossfuncs", "list"]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == ""


# doctor, warmup


def test_doctor_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"numpy {np.__version__}" in text and "everything works" in text and "largest difference from the reference" in text
    assert f"{lossfuncs.get_num_threads()}: " in text


def test_doctor_finds_a_kernel_that_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = cpu.run
    monkeypatch.setattr(cpu, "run", lambda problem, task: run(problem, task) * 1.001)
    lossfuncs.sparse_categorical_crossentropy.derivatives[1].clear()  # type: ignore[attr-defined]  # a call seen before goes another way
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "self-test  BROKEN" in text and "1 part of this installation broken" in text


def test_doctor_finds_settings_that_are_wrong() -> None:
    done = process("doctor", LOSSFUNCS_BACKEND="abacus", LOSSFUNCS_NUM_THREADS="many")
    assert done.returncode == 1
    assert "LOSSFUNCS_BACKEND must be one of 'numpy', 'numba', 'cupy', got 'abacus'" in done.stdout
    assert "LOSSFUNCS_NUM_THREADS is 'many'" in done.stdout


def test_warmup_leaves_nothing_to_compile(tmp_path: Path) -> None:
    cache = {"LOSSFUNCS_CACHE": str(tmp_path / "kernels")}
    first = process("warmup", "mae", "--dtype", "float64", **cache)
    assert first.returncode == 0 and "6 kernels compiled, 0 found" in first.stdout
    np.save(tmp_path / "x.npy", np.arange(300.0).reshape(3, 100))
    argv = ("evaluate", str(tmp_path / "x.npy"), str(tmp_path / "x.npy"), "--loss", "mae", "--batch-size", "1")
    count = "from lossfuncs import cache; print(cache.info().compiled)"
    assert process(*argv, code=count, **cache).stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize(("name", "function"), [("categorical_accuracy", "categorical_accuracy"), ("Huber", "huber"), ("acc", "accuracy")])
def test_warmup_knows_metrics_and_classes_by_name(name: str, function: str) -> None:
    assert {job[1] for job in warmup._jobs([name], ["float32"])} == {function}


def test_warmup_without_a_cache_is_refused() -> None:
    done = process("warmup", "mae", LOSSFUNCS_CACHE="0")
    assert done.returncode == 2 and "no directory to keep kernels in (LOSSFUNCS_CACHE=0)" in done.stderr


# On a terminal


class Terminal:
    """A stream that says it is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("no_color", ("", "1"))
def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    for argv in (["evaluate", "--backend", "numpy"], ["list"]):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(argv) == 0
        assert ("\x1b[" in terminal.text) == (not no_color)


@pytest.mark.parametrize("no_color", ("", "1"))
def test_progress_tells_share_speed_and_time_left_and_cleans_up(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    now = iter(range(100))
    monkeypatch.setattr(show, "time", SimpleNamespace(monotonic=lambda: float(next(now))))  # rich's own thread reads the clock too
    with show.Progress("rows") as progress:
        progress.say("preparing")
        for done in (100, 200, 300):
            progress(done, 1000)
    assert "preparing" in terminal.text and "300 of 1,000 rows, 100/s" in terminal.text and "30" in terminal.text
    if no_color:
        assert "\x1b" not in terminal.text and "0:07 left" in terminal.text and terminal.text.endswith(" \r")


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with show.Progress("rows") as progress:
        progress.say("preparing")
        progress(1, 2)
    assert capsys.readouterr().err == ""
