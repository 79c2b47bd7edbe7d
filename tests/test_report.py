"""`lossfuncs evaluate --report`: what the page says, and that it stands alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossfuncs import metrics
from lossfuncs.cli import main
from lossfuncs.cli.report import Report

RNG = np.random.default_rng(0)


class Page(HTMLParser):
    """A page's texts, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags[tag] += 1
        self.attributes += attributes
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags[tag] += 1
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


def page_of(batches: list[Any], path: Path, lines: Any = (("accuracy", "0.5", ""),), about: str = "data") -> Page:
    report = Report(str(path))
    for batch in batches:
        report.update(*batch)
    report.write(lines, about)
    page = Page(path.read_text())
    assert page.open == []
    identifiers = page.values("id")
    assert len(set(identifiers)) == len(identifiers)
    used = re.findall(r"url\(#([^)]+)\)", path.read_text()) + [x[1:] for x in page.values("xlink:href") if x.startswith("#")]
    assert set(used) <= set(identifiers)
    outside = [x for name in ("src", "href", "xlink:href") for x in page.values(name) if not x.startswith(("#", "data:"))]
    assert outside == [] and not {"script", "link", "iframe", "object"} & set(page.tags)
    return page


def halves(*arrays: Any) -> list[Any]:
    middle = len(arrays[0]) // 2
    return [tuple(x[:middle] for x in arrays), tuple(x[middle:] for x in arrays)]


def test_the_command_writes_a_page_with_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "digits.html"
    assert main(["evaluate", "--backend", "numpy", "--bootstrap", "50", "--report", str(path)]) == 0
    printed = capsys.readouterr().out
    page = Page(path.read_text())
    for cell in ("sparse_categorical_crossentropy", "0.096129", "0.973289", "95% interval", "mean of 599 samples", "accuracy"):
        assert cell in page.texts
        assert cell in printed
    (interval,) = re.findall(r"0\.973289  (\S+ to \S+)", printed)
    assert interval in page.texts
    assert page.values("aria-label") == ["Confusion matrix", "ROC curves", "Precision-recall curves", "Calibration"]
    assert page.texts.count("Classes") == 1 and "taken for" in page.texts
    y_true, y_pred = (np.load(Path(metrics.__file__).parent.parent / "data" / "digits.npz")[name] for name in ("y_true", "y_pred"))
    decided = y_pred.argmax(axis=1)
    for label in range(10):
        area = metrics.AUC(exact=True)
        area.update_state(y_true == label, y_pred[:, label])
        assert f"{label}: AUC {area.result():.3f}" in page.texts
        row = page.texts.index("samples") + 1 + 5 * label
        hit = np.sum((y_true == label) & (decided == label))
        precision, recall = hit / np.sum(decided == label), hit / np.sum(y_true == label)
        assert page.texts[row : row + 3] == [str(label), f"{precision:.3f}", f"{recall:.3f}"]


@pytest.mark.parametrize("logits", (False, True))
def test_binary_scores_give_the_areas_of_the_metrics(logits: bool, tmp_path: Path) -> None:
    z = RNG.normal(size=3000)
    t = (RNG.random(3000) < 1 / (1 + np.exp(-z))).astype(np.int64)
    scores, w = z if logits else 1 / (1 + np.exp(-z)), RNG.integers(0, 4, 3000).astype(np.float64)
    page = page_of(halves(t, scores, w), tmp_path / "page.html")
    for curve, label, method in (("ROC", "AUC", "interpolation"), ("PR", "AP", "step")):
        area = metrics.AUC(curve=curve, summation_method=method, exact=True)
        area.update_state(t, scores, w)
        (shown,) = [float(text.split()[1]) for text in page.texts if re.fullmatch(rf"{label} [\d.]+", text)]
        assert shown == pytest.approx(area.result(), abs=1.1e-3)
    right = np.sum(w[(t == 1) & (z > 0)])
    assert f"{right:,.0f}" in page.texts
    (error,) = [float(text.split()[-1]) for text in page.texts if text.startswith("Calibration")]
    assert error < 0.05


def test_many_classes_are_pooled_and_the_worst_are_named(tmp_path: Path) -> None:
    labels = RNG.integers(0, 40, 4000)
    z = RNG.normal(size=(4000, 40)) + 6 * (labels[:, None] == np.arange(40))
    z[labels == 7] = RNG.normal(size=(int(np.sum(labels == 7)), 40))
    page = page_of(halves(labels, z), tmp_path / "page.html")
    assert any(text.startswith("all pooled, AUC 0.9") for text in page.texts)
    assert any(text.startswith("median class, mean AP 0.9") for text in page.texts)
    assert "The 20 classes of 40 with the lowest F1" in page.texts
    assert page.texts[page.texts.index("samples") + 1] == "7"
    assert page.tags["image"] >= 1  # the confusion matrix


@pytest.mark.parametrize(
    ("t", "p", "figures"),
    [
        ((RNG.random((50, 3)) < 0.5).astype(int), RNG.random((50, 3)), ["ROC curves", "Precision-recall curves"]),
        (RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2)), ["Predictions by targets"]),
        (RNG.integers(0, 4, 50), RNG.integers(0, 4, 50), ["Confusion matrix"]),
        (np.ones((50, 1)), RNG.random(50), ["Confusion matrix", "Calibration"]),  # no negatives: no curves
        (RNG.integers(1, 3, (4, 2)), RNG.normal(size=(4, 6, 3)), []),  # sequences
        (RNG.integers(0, 3000, 50), RNG.dirichlet(np.ones(3000), 50), ["Calibration"]),
        (RNG.integers(0, 3, (10, 5)), RNG.dirichlet(np.ones(3), (10, 5)),
         ["Confusion matrix", "ROC curves", "Precision-recall curves", "Calibration"]),
    ],
    ids=("labels", "numbers", "decisions", "one class", "sequences", "3000 classes", "pixels"),
)  # fmt: skip
def test_a_page_shows_what_its_data_have(t: Any, p: Any, figures: list[str], tmp_path: Path) -> None:
    page = page_of(halves(t, p), tmp_path / "page.html")
    assert page.values("aria-label") == figures
    assert any("too many for curves" in text for text in page.texts) == (p.shape[-1] == 3000)


def test_the_scatter_plot_is_a_fair_sample_in_bounded_memory(tmp_path: Path) -> None:
    report = Report(str(tmp_path / "page.html"))
    for i in range(40):
        report.update(np.full(1000, i + 0.5), RNG.normal(size=1000))
    assert len(report.rows) == 2000
    assert np.mean(report.rows[:, 1]) == pytest.approx(20, abs=1.5)


def test_classes_that_come_late_have_their_place_in_the_matrix(tmp_path: Path) -> None:
    report = Report(str(tmp_path / "page.html"))
    report.update(np.array([0, 1, 1]), np.array([0, 1, 2]))
    report.update(np.array([0, 4]), np.array([3, 4]))
    assert report.classes == 5
    assert np.argwhere(report.matrix).tolist() == [[0, 0], [0, 3], [1, 1], [1, 2], [4, 4]]


def test_names_of_files_are_text_not_markup(tmp_path: Path) -> None:
    page = page_of([(np.zeros(3), np.ones(3) / 2)], tmp_path / "page.html", [("<b>", "1 & 2", "")], "<script>x</script>")
    assert {"<b>", "1 & 2", "<script>x</script>"} <= set(page.texts)


def test_a_page_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--report", str(tmp_path / "missing" / "page.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert main(["evaluate", "--backend", "numpy", "--report", str(tmp_path / "page.html"), "--loss", "mse"]) == 2
    assert not (tmp_path / "page.html").exists()


def test_without_matplotlib_the_remedy_is_named() -> None:
    code = ("import sys, importlib.util as u; find = u.find_spec; u.find_spec = lambda x, *a: None if x == 'matplotlib' else find(x, *a);"
            "from lossfuncs.cli import main; sys.exit(main(['evaluate', '--report', 'page.html']))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'lossfuncs[cli]'" in done.stderr
