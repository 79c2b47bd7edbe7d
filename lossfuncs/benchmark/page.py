"""A run as one HTML page that needs nothing else: environment, roofs, the table, sortable, and the pictures."""

from __future__ import annotations

import base64
import html
from typing import Any

from . import pictures
from .measure import disturbed, figures, seconds, summary

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --faint: #666; --line: #ddd; --bad: #b00020; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 1240px; color: var(--ink); background: #fff;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p { max-width: 75ch; } .faint { color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 1rem; align-items: start; }
.pictures figure { margin: 0; } .pictures .wide { grid-column: 1 / -1; max-width: 720px; }
.pictures img { width: 100%; height: auto; display: block; }
.tools { display: flex; gap: .6rem; flex-wrap: wrap; margin-bottom: .6rem; }
.tools input { font: inherit; padding: .3rem .5rem; border: 1px solid var(--line); border-radius: 4px; min-width: 0; flex: 0 1 22rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th:nth-child(-n+3), td:nth-child(-n+3), th:last-child, td:last-child { text-align: left; }
thead th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid var(--line); cursor: pointer; user-select: none; }
thead th[aria-sort=ascending]::after { content: " \\2191"; } thead th[aria-sort=descending]::after { content: " \\2193"; }
tr.ours td { font-weight: 600; } tr.first td { border-top: 1px solid #bbb; }
.bad, tr.bad td { color: var(--bad); }
td:first-child, td:nth-child(2), td:last-child { white-space: normal; } td:first-child, td:nth-child(2) { min-width: 9.5rem; }
@media (max-width: 700px) {
  body { padding: .8rem; font-size: 14px; } dl { grid-template-columns: 1fr; gap: 0; } dt { margin-top: .4rem; }
  thead { position: absolute; left: -9999px; } table, tbody { display: block; } .sorters { display: block !important; }
  tbody tr { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: .1rem .6rem; padding: .5rem 0; border-top: 1px solid var(--line); }
  tr.first td { border-top: 0; } td { display: block; border: 0; padding: 0; text-align: left; white-space: normal; }
  td:first-child, td:nth-child(3) { grid-column: 1 / -1; } td:nth-child(2) { grid-column: 1 / -1; color: var(--faint); }
  td:nth-child(n+4):not(:last-child)::before {
    content: attr(data-label); display: block; color: var(--faint); font-size: 11px; font-weight: 400; }
  td:last-child { grid-column: 1 / -1; } td:empty { display: none; }
}
.sorters { display: none; }
"""

SCRIPT = """
const body = document.querySelector('tbody'), heads = [...document.querySelectorAll('thead th')];
const rows = [...body.rows], sorter = document.querySelector('.sorters'), filter = document.querySelector('#filter');
const key = (row, i) => {
  const v = row.cells[i].dataset.value;
  return v === undefined ? row.cells[i].textContent : v === '' ? NaN : Number(v);
};
function sort(i, down) {
  heads.forEach((h, j) => h.setAttribute('aria-sort', j === i ? (down ? 'descending' : 'ascending') : 'none'));
  const order = rows.map((row, n) => [key(row, i), n, row]).sort((a, b) => {
    if (typeof a[0] === 'number' || typeof b[0] === 'number') {
      const x = Number.isNaN(a[0]), y = Number.isNaN(b[0]);
      if (x || y) return x - y || a[1] - b[1];
      return (down ? b[0] - a[0] : a[0] - b[0]) || a[1] - b[1];
    }
    return (down ? b[0].localeCompare(a[0]) : a[0].localeCompare(b[0])) || a[1] - b[1];
  });
  order.forEach(each => body.append(each[2]));
}
heads.forEach((h, i) => {
  const act = () => sort(i, h.getAttribute('aria-sort') === 'ascending');
  h.addEventListener('click', act);
  h.addEventListener('keydown', e => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); act(); } });
  for (const [order, say] of [['up', 'least first'], ['down', 'most first']])
    sorter.append(new Option(`sort by ${h.textContent}, ${say}`, `${i} ${order}`));
});
sorter.addEventListener('change', () => sort(parseInt(sorter.value), sorter.value.endsWith('down')));
filter.addEventListener('input', () => {
  const words = filter.value.toLowerCase().split(/\\s+/);
  rows.forEach(row => { row.style.display = words.every(w => row.textContent.toLowerCase().includes(w)) ? '' : 'none'; });
});
"""

COLUMNS = ("workload", "shape", "implementation", "min", "median", "IQR", "rows/s", "GB/s", "% of roof", "ratio", "max error", "remarks")


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    about = report["environment"]
    title = f"lossfuncs bench: {about['cpu']}, {about['date'][:10]}"
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n<body>',
        "<h1>lossfuncs bench</h1>", _summary(report), _environment(report), "<h2>Pictures</h2>", _pictures(report),
        "<h2>Table</h2>", _explained(report), _table(report), f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _summary(report: dict[str, Any]) -> str:
    found = summary(report)
    stopped = " The run was interrupted: what had been measured by then is here." if report.get("interrupted") else ""
    if found is None:
        return f"<p>Nothing to compare with was measured.{stopped}</p>"
    behind = f'<span class="bad">behind in {found["behind"]} of {found["rows"]} rows</span>' if found["behind"] else "nowhere behind"
    return (f"<p>Best peer / lossfuncs: geometric mean <b>{found['mean']:.2f}</b>, worst {found['worst']:.2f} "
            f"({html.escape(found['workload'])}), {behind}.{stopped}</p>")  # fmt: skip


def _environment(report: dict[str, Any]) -> str:
    about, facts = report["environment"], []
    facts.append(("command", report["command"]))
    facts.append(("date", about["date"]))
    facts.append(("processor", f"{about['cpu']}, {about['cores']} cores, {about['memory'] / 2**30:.3g} GiB"))
    facts.append(("flags", " ".join(about["flags"])))
    facts.append(("caches", ", ".join(f"{name} {size / 1024:.6g} KiB" for name, size in about["caches"].items()) or "unknown"))
    facts.append(("system", f"{about['system']}, Python {about['python']}"))
    facts.append(("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)))
    facts.append(("GPU", about["gpu"]["name"] if about["gpu"] else "none"))
    for name, reason in report["absent"].items():
        facts.append((name, f"absent: {reason}"))
    for key, roof in report["roofs"].items():
        if key != "cpu":
            rates = ", ".join(f"{rate / 1e9:.2f}e9 logarithms/s {kind[4:]}" for kind, rate in roof.items() if kind.startswith("log"))
            moved = ", ".join(f"{kind} {roof[kind] / 1e9:.1f}" for kind in ("read", "write", "copy"))
            facts.append((f"roofs, {'GPU' if key == 'cuda' else f'{key} threads'}", f"{moved} GB/s; {rates}"))
    listed = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts)
    return f"<dl>\n{listed}\n</dl>"


def _pictures(report: dict[str, Any]) -> str:
    found = []
    for what, svg in pictures.drawings(report):
        wide = ' class="wide"' if "oof" in what else ""
        data = base64.b64encode(svg.encode()).decode()
        found.append(f'<figure{wide}><img alt="{html.escape(what)}" src="data:image/svg+xml;base64,{data}"></figure>')
    return f'<div class="pictures">\n{chr(10).join(found)}\n</div>'


def _explained(report: dict[str, Any]) -> str:
    rotated = "larger than a quarter of the last-level cache come from memory, others from the caches"
    rotated = "stay in the caches" if report["warm"] else rotated
    return (
        f'<p class="faint">Results were checked against float64 first; the largest error is relative to the value, or to the root mean '
        f"square of all values where that is larger. {report['rounds']} interleaved rounds; arrays {rotated}. Rates and the share of the "
        f"roof are by minima; the ratio (best peer / this: below 1 is behind) is the median over the rounds. The roof is the least time in "
        f"which the machine moves the bytes and takes the elementary functions.</p>"
        '<div class="tools"><input id="filter" type="search" placeholder="filter: huber float32" aria-label="filter rows">'
        '<select class="sorters" aria-label="sort by"></select></div>'
    )


def _table(report: dict[str, Any]) -> str:
    head = "".join(f'<th scope="col" tabindex="0" aria-sort="none">{name}</th>' for name in COLUMNS)
    lines = []
    for result in report["results"]:
        for i, line in enumerate(figures(result, report["roofs"])):
            lines.append(_line(line, first=i == 0, noisy=disturbed(result)))
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody>\n</table></div>'


def _line(line: dict[str, Any], first: bool, noisy: bool) -> str:
    behind = line["ours"] and not line["fault"] and line["ratio"] is not None and line["ratio"] < 1
    classes = ["ours"] * bool(line["ours"]) + ["bad"] * bool(behind or line["fault"]) + ["first"] * first
    size = 1
    for n in line["shape"]:
        size *= n
    cells: list[tuple[str, Any]] = [
        (line["problem"], None),
        (f"{'x'.join(map(str, line['shape']))} {line['dtype']}, {line['data']}", size),
        (line["name"], None),
    ]
    if line["fault"]:
        cells += [("", "")] * 8 + [(line["fault"], None)]
    else:
        remarks = [f"behind {line['best_peer']}"] * bool(behind) + ["unstable"] * line["unstable"] + ["machine was busy"] * noisy
        if line["launch"]:
            remarks.append(f"launch {1e6 * line['launch']:.1f} us")
        share, ratio = line["share_of_roof"], line["ratio"]
        cells += [
            (seconds(line["minimum"]), line["minimum"]), (seconds(line["median"]), line["median"]),
            (seconds(line["upper"] - line["lower"]), line["upper"] - line["lower"]),
            (f"{line['rows_per_second']:.3g}", line["rows_per_second"]),
            (f"{line['bytes_per_second'] / 1e9:.3g}", line["bytes_per_second"]),
            ("" if share is None else f"{share:.0%}", "" if share is None else share),
            ("" if ratio is None else f"{ratio:.2f}", "" if ratio is None else ratio), (f"{line['error']:.1e}", line["error"]),
            (", ".join(remarks), None),
        ]  # fmt: skip
    text = ""
    for label, (shown, value) in zip(COLUMNS, cells, strict=True):
        sortable = "" if value is None else f' data-value="{value}"'
        text += f'<td data-label="{label}"{sortable}>{html.escape(shown).replace("_", "_<wbr>")}</td>'
    return f'<tr class="{" ".join(classes)}">{text}</tr>'

