"""`python -m bench.readme`: measures, keeps the result in bench/results, and writes the README's figures and picture from it.

    python -m bench.readme                    the whole table, ten minutes or so; nothing else should run meanwhile
    python -m bench.readme FILE.json          from a result that is there

What stands between the README's two marks is replaced.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from bench import peers
from lossfuncs.benchmark import measure, pictures

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- python -m bench.readme writes from here -->\n", "<!-- to here -->\n"
PANELS = 3  # curves shown beside the roofline


def main(arguments: list[str]) -> int:
    RESULTS.mkdir(exist_ok=True)
    if arguments:
        path = Path(arguments[0])
    else:
        path = RESULTS / "new.json"
        status = peers.main(["--json", str(path), "--rounds", "30", "--min-time", "0.9"])  # memory here is at times half as fast again
        if status:
            return status
    report = measure.load(str(path))
    kept = RESULTS / f"{slug(report)}.json"
    if path.resolve() != kept.resolve():
        kept.write_text(path.read_text().replace(f"{ROOT}/", ""))
        if not arguments:
            path.unlink()
    picture = kept.with_suffix(".svg")
    pictures.save(report, picture, PANELS)
    readme = ROOT / "README.md"
    readme.write_text(replaced(readme.read_text(), section(report, kept, picture)))
    print(f"wrote {kept.relative_to(ROOT)}, {picture.relative_to(ROOT)} and README.md")
    return 0


def slug(report: dict[str, Any]) -> str:
    """The result's file name: date, processor, cores, and the GPU where there is one."""
    about = report["environment"]
    words = [about["date"][:10], about["cpu"], f"{about['cores']} cores", *([about["gpu"]["name"]] if about["gpu"] else [])]
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)


def replaced(text: str, between: str) -> str:
    """The text with what stands between the marks exchanged."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must hold each of the two lines {BEGIN.strip()!r} and {END.strip()!r} once")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}{between}{END}{rest.partition(END)[2]}"


def section(report: dict[str, Any], result: Path, picture: Path) -> str:
    """What the README says of a run: where and when, the table, the picture."""
    about, found = report["environment"], measure.summary(report)
    versions = {name: version for name, version in about["versions"].items() if version and name not in ("lossfuncs", "cupy", "keras")}
    roof = report["roofs"]["cpu"]
    lines = [
        f"{about['date'][:10]}, {about['cpu']}, {about['cores']} cores{', AVX-512' if 'avx512f' in about['flags'] else ''}, "
        f"reading {roof['read'] / 1e9:.0f} GB/s; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; `python -m bench.readme`, all of it in "
        f"[{result.name}](bench/results/{result.name}).",
        f"Milliseconds, the median over {report['rounds']} interleaved rounds; float32, one value a sample unless `value_and_grad`.",
        "A ratio, the median of the rounds' own, above 1 says how much faster lossfuncs is, **below 1 that it is behind**.",
    ]
    if found:
        lines.append(f"The geometric mean is {found['mean']:.2f}, the worst {found['worst']:.2f}.")
    table = ["| workload | lossfuncs | best peer | | ratio | of the roof |", "| --- | ---: | ---: | --- | ---: | ---: |"]
    for each in report["results"]:
        table += _rows(each, report)
    shown = f"![Throughput against size, roofline, and share of the roof](bench/results/{picture.name})"
    return "\n".join([*lines, "", *table, "", shown, ""])


def _rows(result: dict[str, Any], report: dict[str, Any]) -> list[str]:
    lines = {line["name"]: line for line in measure.figures(result, report["roofs"])}
    other = "" if result["dtype"] == "float32" else f" {result['dtype']}"
    name = f"{result['problem']} {'x'.join(map(str, result['shape']))}{other}"
    rows = []
    for line in lines.values():
        if not line["ours"]:
            continue
        if line["fault"]:
            rows.append(f"| {name} | **{line['fault']}** | | | | |")
            continue
        share = "" if line["share_of_roof"] is None else f"{line['share_of_roof']:.0%}"
        peer, ratio = line["best_peer"], line["ratio"]
        if peer is None:
            rows.append(f"| {name} | {_milliseconds(line['median'])} | | | | {share} |")
            continue
        shown = f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"
        rows.append(f"| {name} | {_milliseconds(line['median'])} | {_milliseconds(lines[peer]['median'])} | {peer} | {shown} | {share} |")
    return rows


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.{4 if value < 1 else 3 if value < 10 else 1}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
