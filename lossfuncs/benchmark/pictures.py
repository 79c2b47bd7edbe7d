"""Pictures of a run, by matplotlib: throughput against size with the roof, a roofline, a heat map of the share of the roof."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from .measure import figures

matplotlib.use("agg")
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter  # noqa: E402

# Okabe and Ito's colours, which the colour-blind tell apart; the library's own are black and dark red.
OURS_COLOURS = ("#000000", "#a3123a", "#5a5a5a")
PEER_COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a7a00")
MARKERS = "osD^vP*X"
ROOF = "#888888"
NUMBER_HEIGHT = 9.5  # points, of a number in the roofline
PANEL = (4.8, 3.7)  # inches: at a phone's width the letters stay legible
WIDE = (7.2, 4.8)
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.grid": True, "grid.color": "#e6e6e6", "legend.fontsize": 8, "legend.frameon": False, "svg.hashsalt": "lossfuncs",
}  # fmt: skip


def styles(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How each contestant is drawn, in all pictures alike."""
    names = {each["name"]: each["ours"] for result in report["results"] for each in result["contestants"]}
    found: dict[str, dict[str, Any]] = {}
    for ours, colours in ((True, OURS_COLOURS), (False, PEER_COLOURS)):
        for i, name in enumerate(name for name, mine in names.items() if mine == ours):
            found[name] = {"color": colours[i % len(colours)], "marker": MARKERS[(i if ours else i + 1) % len(MARKERS)],
                           "linewidth": 2.2 if ours else 1.3, "markersize": 6 if ours else 5, "zorder": 3 if ours else 2}  # fmt: skip
    return found


def sweeps(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Workloads that were measured at several sizes: their results, by title and dtype."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in report["results"]:
        found.setdefault(f"{result['problem']}, {result['dtype']}", []).append(result)
    return {title: sorted(results, key=_bytes) for title, results in found.items() if len({_bytes(result) for result in results}) > 1}


def _bytes(result: dict[str, Any]) -> int:
    return int(result["bytes_read"] + result["bytes_written"])


def throughput(ax: Any, report: dict[str, Any], title: str, results: list[dict[str, Any]]) -> None:
    """Bytes a second against bytes, with what memory gives."""
    drawn = styles(report)
    curves: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        for line in figures(result, report["roofs"]):
            if not line["fault"]:
                curves.setdefault(line["name"], []).append((_bytes(result), line["bytes_per_second"] / 1e9))
    for name, points in curves.items():
        ax.plot(*zip(*points, strict=True), label=name, **drawn[name])
    read = report["roofs"]["cpu"]["read"] / 1e9
    ax.axhline(read, color=ROOF, linestyle="--", linewidth=1.2, label=f"memory, {read:.3g} GB/s")
    if "cuda" in report["roofs"]:
        read = report["roofs"]["cuda"]["read"] / 1e9
        ax.axhline(read, color=ROOF, linestyle=":", linewidth=1.2, label=f"GPU memory, {read:.3g} GB/s")
    caches = report["environment"]["caches"]
    if caches and not report["warm"]:
        ax.axvline(max(caches.values()) / 4, color="#bbbbbb", linewidth=0.8)
    ax.set(xscale="log", yscale="log", title=_wrapped(title), xlabel="bytes of a call", ylabel="GB/s")
    _decimal(ax.xaxis)
    _decimal(ax.yaxis)
    ax.xaxis.set_major_formatter(EngFormatter("B", places=0))


def roofline(ax: Any, report: dict[str, Any]) -> None:
    """Bytes a second against elementary functions a byte, under the roofs of memory and of logarithms.

    Of each loss the largest shape counts. The numbers are those of the heat map's lines.
    """
    drawn = styles(report)
    points: dict[str, list[tuple[float, float]]] = {}
    tags: list[tuple[float, float, str]] = []
    most = 0.0
    for number, result in enumerate(_largest(report), 1):
        if result["functions"] is None:
            continue
        x = result["functions"] * math.prod(result["shape"]) / _bytes(result)
        most = max(most, x)
        for line in figures(result, report["roofs"]):
            if not line["fault"]:
                points.setdefault(line["name"], []).append((x, line["bytes_per_second"] / 1e9))
                if line["ours"]:
                    tags.append((x, line["bytes_per_second"] / 1e9, str(number)))
    for name, those in points.items():
        style = {key: value for key, value in drawn[name].items() if key != "linewidth"}
        ax.plot(*zip(*those, strict=True), linestyle="", label=name, alpha=0.8, **style)
    dtypes = sorted({result["dtype"] for result in report["results"]})
    for device, look in (("cpu", "-"), ("cuda", ":")):
        roof = report["roofs"].get(device)
        rates = {kind[4:]: rate for kind, rate in roof.items() if kind.startswith("log")} if roof else {}
        for kind, rate in rates.items():
            if kind == "float64" and "float64" not in dtypes:
                continue
            memory, end = roof["read"], max(1.25 * most, 0.3)
            xs = [end * i / 400 for i in range(401)]
            ys = [min(memory, rate / x) / 1e9 if x else memory / 1e9 for x in xs]
            label = f"{'GPU ' if device == 'cuda' else ''}roof: {memory / 1e9:.3g} GB/s, {rate / 1e9:.3g}e9 log/s"
            label += f" {kind}" if len(rates) > 1 else ""
            ax.plot(xs, ys, color=ROOF, linestyle=look, linewidth=1.6, label=label, zorder=1)
    ax.set(yscale="log", title="Roofline", xlabel="elementary functions (exp, log, ...) a byte", ylabel="GB/s")
    _decimal(ax.yaxis)
    _number(ax, tags)


def _number(ax: Any, tags: list[tuple[float, float, str]]) -> None:
    """Numbers to the right of points, those of one column far enough apart to be read, each tied to its point."""
    column, lowest = -1.0, math.inf
    for x, y, text in sorted(tags, key=lambda tag: (round(tag[0], 2), -tag[1])):
        if round(x, 2) != column:
            column, lowest = round(x, 2), math.inf
        here = ax.transData.transform((x, y))[1]
        lowest = min(here, lowest - NUMBER_HEIGHT * ax.figure.dpi / 72)
        points = (lowest - here) * 72 / ax.figure.dpi
        ax.annotate(text, (x, y), (12, points), textcoords="offset points", fontsize=8, va="center",
                    arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#999999", "shrinkB": 3})  # fmt: skip


def _decimal(axis: Any) -> None:
    """Plain numbers on a logarithmic axis: the decades, and 2 and 5 where it spans few."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def heat_map(ax: Any, report: dict[str, Any]) -> None:
    """Share of the roof: a line for each loss at its largest shape, a column for each implementation."""
    names, results = list(styles(report)), _largest(report)
    grid = [[math.nan] * len(names) for _ in results]
    for i, result in enumerate(results):
        for line in figures(result, report["roofs"]):
            j = names.index(line["name"])
            if line["fault"]:
                ax.text(j, i, line["fault"].partition(":")[0], ha="center", va="center", color="#c00000", fontsize=8)
            elif line["share_of_roof"] is not None:
                grid[i][j] = 100 * line["share_of_roof"]
                dark = grid[i][j] > 55
                ax.text(j, i, f"{grid[i][j]:.0f}", ha="center", va="center", color="white" if dark else "black", fontsize=9)
    if results:
        ax.imshow(grid, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
    labels = [_wrapped(f"{number}.\u00a0{result['problem']} {'x'.join(map(str, result['shape']))}{_not_float32(result)}", 28)
              for number, result in enumerate(results, 1)]  # fmt: skip
    ax.set_yticks(range(len(results)), labels, fontsize=8)
    ax.set_xticks(range(len(names)), [name.replace("lossfuncs ", "lossfuncs\n") for name in names], rotation=35, ha="left", fontsize=8)
    ax.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title("% of the roof")


def _not_float32(result: dict[str, Any]) -> str:
    return "" if result["dtype"] == "float32" else f" {result['dtype']}"


def _largest(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each title and dtype the largest result."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for result in report["results"]:
        key = result["problem"], result["dtype"]
        if key not in found or _bytes(result) > _bytes(found[key]):
            found[key] = result
    return list(found.values())


def _wrapped(text: str, width: int = 44) -> str:
    """In lines of at most so many letters, where there are blanks."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)


def drawings(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(what it shows, SVG) of each picture, for the page."""
    found = []
    with matplotlib.rc_context(STYLE):
        for title, results in sweeps(report).items():
            found.append((f"Throughput against size: {title}", _svg(PANEL, lambda ax, t=title, r=results: throughput(ax, report, t, r))))
        found.append(("Roofline", _svg(WIDE, lambda ax: roofline(ax, report))))
        found.append(("Share of the roof by loss and implementation", _svg(_heat_size(report), lambda ax: heat_map(ax, report))))
    return found


def _heat_size(report: dict[str, Any]) -> tuple[float, float]:
    columns, lines = len(styles(report)), len(_largest(report))
    return max(PANEL[0], 2.0 + 0.5 * columns), 1.5 + 0.4 * max(1, lines)


def _legend(figure: Any, axes: Iterable[Any], columns: int) -> None:
    """One legend for all, below them."""
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)


def _svg(size: tuple[float, float], draw: Any) -> str:
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    draw(ax)
    _legend(figure, [ax], 3)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def save(report: dict[str, Any], path: Path, most: int | None = None) -> None:
    """The pictures in one file, .png, .svg or .pdf; of the curves at most so many, those with most sizes."""
    with matplotlib.rc_context(STYLE):
        panels = list(sweeps(report).items())
        panels = sorted(panels, key=lambda panel: -len(panel[1]))[:most]
        rows = -(-(len(panels) + 1) // 2)
        heat = _heat_size(report)
        width = max(2 * PANEL[0], heat[0])
        figure = Figure(figsize=(width, rows * PANEL[1] + heat[1] + 0.6), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(rows * PANEL[1], heat[1]))
        upper, lower = parts
        axes = list(upper.subplots(rows, 2, squeeze=False).flat)
        for ax, (title, results) in zip(axes, panels, strict=False):
            throughput(ax, report, title, results)
        roofline(axes[len(panels)], report)
        for ax in axes[len(panels) + 1 :]:
            ax.set_axis_off()
        _legend(upper, axes, 5)
        heat_map(lower.subplots(), report)
        about = report["environment"]
        figure.suptitle(f"{about['cpu']}, {about['cores']} cores, {about['date'][:10]}", fontsize=11)
        figure.savefig(path, dpi=150)
