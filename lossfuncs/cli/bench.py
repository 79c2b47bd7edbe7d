"""`lossfuncs bench`: how fast losses and metrics are here, next to their peers and to what the machine could do."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import show

if TYPE_CHECKING:
    from ..benchmark.contestants import Contestant
    from ..benchmark.workloads import Workload

EPILOG = """examples:
  lossfuncs bench                                           the README's table, against all peers that are installed
  lossfuncs bench --quick --html out.html                   a first look, in under a minute
  lossfuncs bench mse huber:delta=2 --shape 4096x1000 --dtype float32,bfloat16 --mode both
  lossfuncs bench sparse_categorical_crossentropy:from_logits=true --shape 1024x32000 --vs torch.compile,jax
  lossfuncs bench --json a.json; ...; lossfuncs bench compare a.json b.json --fail-if 1.10

Every result is checked against float64 before it is timed. Contestants take turns in interleaved rounds. Arrays larger than a quarter of
the last-level cache are rotated through copies that exceed it, so that they come from memory; with --warm they stay where they are.
Times are medians with their quartiles; rates and the share of the roof are by minima. The roof is the least time in which this machine
can move the bytes and take the elementary functions. The ratio is best peer / this, the median over the rounds: below 1 is behind.
"""
ROUNDS, QUICK_ROUNDS = 10, 4
MIN_TIME, QUICK_MIN_TIME = 0.3, 0.06
QUICK_BUDGET = 20.0  # seconds of the measurement, so that a minute holds compilation and all else
ROOF_PASSES, QUICK_ROOF_PASSES = 30, 6


def configure(parser: argparse.ArgumentParser) -> None:
    from ..benchmark.workloads import DTYPES

    parser.epilog = EPILOG
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="losses and metrics, NAME:OPTION=VALUE,... with options; by default the README's table. "
        "`compare A.json B.json` compares two runs")  # fmt: skip
    add("--shape", nargs="+", action="extend", type=_shape, default=[], metavar="ROWSxLENGTH",
        help="of y_pred, as 4096x1000; several, also by commas")  # fmt: skip
    add("--dtype", type=_list(DTYPES), default=["float32"], metavar="DTYPE,...", help=f"of {', '.join(DTYPES)}; by default float32")
    add("--mode", choices=("value", "grad", "both"), help="the value, value and gradient in one call, or each; by default the value of "
        "what is named, and both in the README's table")  # fmt: skip
    add("--backend", type=_list(("numpy", "numba", "cupy")), metavar="NAME,...",
        help="of this library: numpy (the reference), numba, cupy; by default numba, and cupy where there is a GPU")
    add("--vs", type=_list(("none", "numpy", *_peers())), metavar="PEER,...",
        help=f"of {', '.join(_peers())}, none; by default all that are installed. NumPy always takes part, but for none")
    add("--threads", type=_threads, metavar="N,...",
        help="of the numba backend, each a contestant of its own; peers use the most; by default all cores")
    add("--fail-if", type=float, metavar="RATIO", help="with compare: exit with 1 if one of this library's times grew by more, as 1.10")
    configure_run(parser)


def configure_run(parser: argparse.ArgumentParser) -> None:
    """The options of `perform`."""
    add = parser.add_argument
    add("--min-time", type=float, metavar="S", help=f"seconds for a contestant and workload; by default {MIN_TIME}")
    add("--rounds", type=int, metavar="N",
        help=f"in which contestants take turns; by default {ROUNDS}. More where the machine's own speed comes and goes")  # fmt: skip
    add("--warm", action="store_true", help="leave the arrays in the caches")
    add("--quick", action="store_true", help="few workloads, a fifth of the time: under a minute")
    add("--json", metavar="FILE", help="write everything measured")
    add("--csv", metavar="FILE", help="write the table")
    add("--plot", metavar="FILE", help="draw throughput, roofline and heat map into a .png, .svg or .pdf")
    add("--html", metavar="FILE", help="write one page with table and pictures")
    add("--no-progress", action="store_true", help="no progress line on a terminal")


def _peers() -> tuple[str, ...]:
    from ..benchmark.contestants import PEERS

    return PEERS


def _shape(text: str) -> list[tuple[int, ...]]:
    try:
        shapes = [tuple(map(int, part.lower().split("x"))) for part in text.split(",")]
        if not all(shape and all(n > 0 for n in shape) for shape in shapes):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"a shape is numbers with x between them, as 4096x1000, got {text!r}") from None
    return shapes


def _list(known: Sequence[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {wrong[0] if wrong else text!r}")
        return list(dict.fromkeys(names))

    return split


def _threads(text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be whole numbers of at least 1, as 1,2, got {text!r}")
    return sorted({int(part) for part in text.split(",")})


def run(args: argparse.Namespace) -> int:
    if args.names[:1] == ["compare"]:
        return _compare(args)
    if args.fail_if is not None:
        raise ValueError("--fail-if is for `lossfuncs bench compare A.json B.json`")
    return _bench(args)


def _bench(args: argparse.Namespace) -> int:
    from ..benchmark import contestants, machine, workloads

    jobs = workloads.chosen(map(_named, args.names), [s for shapes in args.shape for s in shapes], args.dtype, args.mode, args.quick)
    for dtype in args.dtype:
        workloads.numpy_dtype(dtype)  # ImportError now rather than later
    threads = args.threads or [machine.cores()]
    field, absent = contestants.field(args.backend, args.vs, threads, args.dtype, args.quick)
    return perform(shlex.join(["lossfuncs", *args.argv]), jobs, field, absent, threads, args)


def perform(command: str, jobs: Sequence[Workload], field: Sequence[Contestant], absent: dict[str, str], threads: list[int],
            args: argparse.Namespace) -> int:  # fmt: skip
    """Measures every workload, shows it and writes what `args`, the options of `configure_run`, ask for."""
    from ..benchmark import cuda, machine, measure, timing

    if args.min_time is not None and not 0 < args.min_time < 1e6:
        raise ValueError(f"--min-time must be a positive number of seconds, got {args.min_time}")
    if args.rounds is not None and not 2 <= args.rounds <= 10_000:
        raise ValueError(f"--rounds must be a whole number from 2 to 10000, got {args.rounds}")
    outputs, dtypes = _outputs(args), {job.dtype for job in jobs}
    _keep_freed_memory()
    report: dict[str, Any] = {"format": measure.FORMAT, "command": command}
    report["environment"] = machine.environment() | {"gpu": cuda.environment()}
    report |= {"absent": absent, "threads": threads, "warm": args.warm, "rounds": args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS),
               "min_time": args.min_time or (QUICK_MIN_TIME if args.quick else MIN_TIME)}  # fmt: skip
    describe(report)
    with show.Progress("workloads", not args.no_progress) as progress:
        progress.say("measuring the machine's roofs ...")
        passes = QUICK_ROOF_PASSES if args.quick else ROOF_PASSES
        others = timing.watch_others()
        report["roofs"] = {str(n): machine.roofs(n, dtypes, passes) for n in threads}
        report["roofs"]["cpu"] = report["roofs"][str(threads[-1])]
        if any(each.device == "cuda" for each in field):
            report["roofs"]["cuda"] = cuda.roofs(dtypes, passes)
        report["roof_noise"] = others()
        progress.say("")
        describe_roofs(report)
        report["results"] = []
        table = Table([each.name for each in field], any(each.device == "cuda" for each in field))
        began = time.monotonic()
        try:
            for i, workload in enumerate(jobs):
                left = f", {show.duration((time.monotonic() - began) / i * (len(jobs) - i))} left" if i else ""
                progress.say(f"{i} of {len(jobs)} workloads{left}: {workload.identity}")
                until = began + QUICK_BUDGET * (i + 1) / len(jobs) if args.quick else math.inf
                result = measure.measure(workload, field, report["min_time"], report["rounds"], args.warm, until)
                report["results"].append(result)
                progress.say("")
                table.add(result, report["roofs"])
        except KeyboardInterrupt:
            progress.say("")
            report["interrupted"] = True
            _finish(report, outputs)
            raise KeyboardInterrupt(f"after {len(report['results'])} of {len(jobs)} workloads, which are kept") from None
    _finish(report, outputs)
    return 0


def _named(text: str) -> tuple[str, dict[str, Any]]:
    from .evaluate import _values

    name, colon, own = text.partition(":")
    options = _values(re.sub(r"\breduction=(\w+)", r"reduction='\1'", own)) if colon else {}
    if options.get("reduction", "mean") not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {options['reduction']}")
    return name, options


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """What to write where, found impossible now rather than after minutes."""
    outputs = {kind: Path(path) for kind in ("json", "csv", "plot", "html") if (path := getattr(args, kind))}
    for kind, path in outputs.items():
        if not path.parent.is_dir() or path.is_dir():
            raise ValueError(f"--{kind} {path}: there is no folder {path.parent}" if not path.is_dir() else f"--{kind} {path} is a folder")
    if {"plot", "html"} & outputs.keys() and not importlib.util.find_spec("matplotlib"):
        raise ImportError("--plot and --html need matplotlib, which is not installed (python -m pip install 'lossfuncs[cli]')")
    if "plot" in outputs and outputs["plot"].suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot must end in .png, .svg or .pdf, got {outputs['plot'].name}")
    return outputs


def _finish(report: dict[str, Any], outputs: dict[str, Path]) -> None:
    from ..benchmark import measure

    found = measure.summary(report)
    if found:
        told = f"worst {found['worst']:.2f} ({found['workload']}), geometric mean {found['mean']:.2f}"
        behind = f", behind in {found['behind']} of {show.count(found['rows'], 'row')}" if found["behind"] else ", nowhere behind"
        print(f"\nbest peer / lossfuncs: {told}{behind}")
    if not report["results"]:
        return
    for kind, path in outputs.items():
        if kind == "json":
            path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        elif kind == "csv":
            path.write_text(measure.as_csv(report), encoding="utf-8")
        elif kind == "plot":
            from ..benchmark import pictures

            pictures.save(report, path)
        else:
            from ..benchmark import page

            path.write_text(page.page(report), encoding="utf-8")
        print(f"wrote {path}")


def _keep_freed_memory() -> None:
    """Tells glibc not to hand large freed blocks back to the kernel.

    Otherwise it depends on the history of the process whether a gradient of 16 MB costs a millisecond of page faults
    in every call; those who train on CPUs preload an allocator that keeps memory for that reason. It serves all alike.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_max = -1, -4
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(trim_threshold, 2**31 - 1)
            mallopt(mmap_max, 0)


def describe(report: dict[str, Any]) -> None:
    """The environment, printed."""
    about = report["environment"]
    caches = ", ".join(f"{name} {_bytes(size)}" for name, size in about["caches"].items()) or "unknown"
    rows = [
        ("date", about["date"]),
        ("cpu", f"{about['cpu']}, {show.count(about['cores'], 'core')}, {_bytes(about['memory'])}"),
        ("flags", " ".join(about["flags"]) or "unknown"),
        ("caches", caches),
        ("system", f"{about['system']}, Python {about['python']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)),
        ("threads", ", ".join(map(str, report["threads"]))),
        ("gpu", _gpu(about["gpu"])),
        *((name, f"absent: {reason}") for name, reason in report["absent"].items()),
    ]
    print(*show.columns(rows, indent=""), sep="\n")


def _gpu(about: dict[str, Any] | None) -> str:
    if about is None:
        from ..cupy_device import trouble

        return f"none: {trouble()}"
    return f"{about['name']}, compute capability {about['capability']}, {_bytes(about['memory'])}, driver {about['driver']}"


def describe_roofs(report: dict[str, Any]) -> None:
    """The roofs, printed."""
    from ..benchmark.measure import seconds
    from ..benchmark.timing import QUIET

    for key, roof in report["roofs"].items():
        if key == "cpu":
            continue
        who = "the GPU" if key == "cuda" else show.count(int(key), "thread")
        bytes_ = ", ".join(f"{kind} {roof[kind] / 1e9:.1f}" for kind in ("read", "write", "copy"))
        logarithms = ", ".join(f"{rate / 1e9:.2f} {kind[4:]}" for kind, rate in roof.items() if kind.startswith("log"))
        print(f"{show.bold('roofs')} of {who}: {bytes_} GB/s; 10^9 logarithms a second: {logarithms}")
        if key == "cuda":
            print(f"a launch costs the host {seconds(roof['launch'])}, and is done after {seconds(roof['launch and wait'])}")
    if report["roof_noise"] >= QUIET:
        print(f"other processes used {report['roof_noise']:.0%} of the cores meanwhile: these roofs are lower than the machine's")


def _bytes(size: float) -> str:
    factor, unit = next((f, u) for f, u in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")) if size >= f or f == 1)
    return f"{size / factor:.3g} {unit}"


def _rate(value: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


class Table:
    """Lines as they are measured: rich's on a terminal, aligned columns elsewhere."""

    HEADER = ("implementation", "min", "median", "IQR", "rows/s", "GB/s", "roof", "ratio", "error")
    WIDTHS = (0, 8, 8, 8, 7, 6, 5, 5, 7)

    def __init__(self, names: Sequence[str], launches: bool) -> None:
        self.width = max(map(len, (*names, self.HEADER[0])))
        self.launches = launches
        self.pretty = show.colours(sys.stdout) and importlib.util.find_spec("rich") is not None
        self.console: Any = None

    def add(self, result: dict[str, Any], roofs: dict[str, dict[str, float]]) -> None:
        from ..benchmark import measure

        lines = measure.figures(result, roofs)
        where = f"{'x'.join(map(str, result['shape']))} {result['dtype']}, from {result['data']}"
        noise = f"; other processes used {result['noise']:.0%} of the cores" if measure.disturbed(result) else ""
        print(f"\n{show.bold(result['problem'])}  {where}{show.dim(noise) if noise else ''}")
        header = (*self.HEADER, *(("launch",) if self.launches else ()), "")
        rows = [(self._cells(line), line) for line in lines]
        if self.pretty:
            self._print_pretty(header, rows)
        else:
            widths = (self.width, *self.WIDTHS[1:], *((8,) if self.launches else ()))
            for cells in (header, *(cells for cells, _ in rows)):
                first, *others, remark = cells
                texts = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
                print(f"  {first:<{self.width}}  {'  '.join(texts)}  {remark}".rstrip())
        sys.stdout.flush()

    def _cells(self, line: dict[str, Any]) -> tuple[str, ...]:
        from ..benchmark.measure import seconds

        launches = 1 if self.launches else 0
        if line["fault"]:
            return (line["name"], *("-",) * (len(self.HEADER) - 1 + launches), line["fault"])
        behind = line["ours"] and line["ratio"] is not None and line["ratio"] < 1
        remarks = [f"behind {line['best_peer']}"] * behind + ["unstable"] * line["unstable"]
        return (
            line["name"], seconds(line["minimum"]), seconds(line["median"]), seconds(line["upper"] - line["lower"]),
            _rate(line["rows_per_second"]), f"{line['bytes_per_second'] / 1e9:.3g}",
            "-" if line["share_of_roof"] is None else f"{line['share_of_roof']:.0%}",
            "-" if line["ratio"] is None else f"{line['ratio']:.2f}", f"{line['error']:.1e}",
            *(("-" if line["launch"] is None else seconds(line["launch"]),) if self.launches else ()), ", ".join(remarks),
        )  # fmt: skip

    def _print_pretty(self, header: Sequence[str], rows: Sequence[tuple[tuple[str, ...], dict[str, Any]]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
        widths = (self.width, *self.WIDTHS[1:], *((8,) if self.launches else ()), None)
        for i, (title, width) in enumerate(zip(header, widths, strict=True)):
            side = "left" if i in (0, len(header) - 1) else "right"
            table.add_column(title, justify=side, min_width=width, no_wrap=i < len(header) - 1, overflow="fold")
        for cells, line in rows:
            behind = line["fault"] or line["ours"] and line.get("ratio") is not None and line["ratio"] < 1
            table.add_row(*cells, style="red" if behind else "bold" if line["ours"] else "")
        self.console = self.console or Console(markup=False, highlight=False)
        self.console.print(table)


def _compare(args: argparse.Namespace) -> int:
    from ..benchmark import compare, measure

    if len(args.names) != 3:
        raise ValueError(f"compare wants two JSON files, as `lossfuncs bench compare A.json B.json`, got {len(args.names) - 1}")
    if args.fail_if is not None and not args.fail_if >= 1:
        raise ValueError(f"--fail-if must be a ratio of at least 1, as 1.10, got {args.fail_if}")
    a, b = (measure.load(path) for path in args.names[1:])
    found = list(compare.changes(a, b))
    if not found:
        raise ValueError(f"{args.names[1]} and {args.names[2]} have no workload in common that both timed")
    for letter, report, path in (("A", a, args.names[1]), ("B", b, args.names[2])):
        about = report["environment"]
        gpu = f", {about['gpu']['name']}" if about["gpu"] else ""
        print(f"{letter}  {path}: {about['date']}, {about['cpu']}, {show.count(about['cores'], 'core')}{gpu}, "
              f"lossfuncs {about['versions']['lossfuncs']}")  # fmt: skip
    title = ""
    width = max(len(change.name) for change in found)
    for change in found:
        if change.workload != title:
            title = change.workload
            print(f"\n{show.bold(title)}")
            print(f"  {'':<{width}}  {'A':>8}  {'B':>8}  {'B / A':>6}  {'95 % between':>15}")
        too_slow = args.fail_if is not None and change.ours and change.low > args.fail_if
        verdict = f"{change.verdict}, by more than {args.fail_if:g}" if too_slow else change.verdict
        between = f"{change.low:.2f} and {change.high:.2f}"
        line = (f"  {change.name:<{width}}  {measure.seconds(change.before):>8}  {measure.seconds(change.after):>8}  {change.ratio:6.3f}  "
                f"{between:>15}  {verdict}")  # fmt: skip
        print(show.red(line) if too_slow else line)
    ours = [change for change in found if change.ours]
    for who, some in (("lossfuncs", ours), ("peers", [change for change in found if not change.ours])):
        if some:
            slower, faster = (sum(change.verdict == verdict for change in some) for verdict in ("slower", "faster"))
            told = f"geometric mean of B / A {compare.mean(some):.3f} over {show.count(len(some), 'row')}"
            print(f"\n{who}: {told}, {slower} slower, {faster} faster", end="")
    print()
    wrong = compare.faults(a, b)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    if args.fail_if is None:
        return 0
    slow = sum(change.low > args.fail_if for change in ours)
    if slow or wrong:
        print(f"failed: {show.count(slow, 'row')} of lossfuncs slower by more than {args.fail_if:g}, {len(wrong)} no longer right")
        return 1
    print(f"passed: no row of lossfuncs is surely slower by more than {args.fail_if:g}")
    return 0
