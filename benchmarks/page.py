"""The report of a run: tables, figures and notes from what `python -m benchmarks` wrote."""

from __future__ import annotations

from typing import Any

from . import extras, plots, report, sections
from .adapters import ADAPTERS
from .document import (
    Block,
    Figure,
    Folded,
    Heading,
    Items,
    Table,
    Text,
    parse,
    to_html,
    to_markdown,
)
from .provenance import set_by_hand

_READING = (
    "Times are medians of calls in turns in one run; a number with x is how many times as long as"
    " fastgmm the implementation takes. All start from the same parameters with tol=0, and are"
    " timed only after their result at full size agreed with a float64 oracle; but in 'fit, all"
    " defaults' each finds its own start. The time of an iteration is the difference of a long and"
    " a short fit: what comes once, such as validation, compilation or fastgmm's ordering of the"
    " rows, is in none. Only ratios mean something on another machine."
)


def markdown(result: dict[str, Any]) -> str:
    """The report as Markdown, without figures and without what is there to look up."""
    return to_markdown(blocks(result, figures=False))


def page(result: dict[str, Any]) -> str:
    """The report as one page of HTML with its figures inside."""
    return to_html(f"fastgmm: benchmarks, {result['suite']}", blocks(result, figures=True))


def blocks(result: dict[str, Any], *, figures: bool) -> list[Block]:
    """The whole report."""
    rows = result.get("rows", [])
    found: list[Block] = [
        Heading(f"fastgmm: benchmarks, {result['suite']}", 1),
        _origin(result),
    ]
    if rows:
        found += [Text(_READING), *_summary(result)]
        for group in dict.fromkeys(row.get("group") or "Rows" for row in rows):
            these = [row for row in rows if (row.get("group") or "Rows") == group]
            found += _group(group, these, figures)
    if beside := extras.lines(result):
        found += [Heading("Machine, threads, start-up"), Items(tuple(beside))]
    if "rates" in result:
        from .gpu.report import text

        found += [Heading("On the device"), *parse(text(result))]
    for name, section in result.get("sections", {}).items():
        found += _section(name, section, figures)
    if rows:
        found += _notes(rows)
    return found


def _library(pool: dict[str, Any]) -> str:
    architecture = pool.get("architecture")
    return f"{pool['internal_api']}" + (f" for {architecture}" if architecture else "")


def _origin(result: dict[str, Any]) -> Items:
    origin, settings = result["provenance"], result.get("settings", {})
    versions = ", ".join(f"{name} {v}" for name, v in origin["versions"].items() if v)
    pools = {_library(pool): pool["num_threads"] for pool in origin["threads"]["pools"]}
    threads = {"numba": origin["threads"]["numba"], **pools}
    lines = [
        ("date", origin["date"]),
        ("commit", origin["commit"]),
        ("CPU", f"{origin['cpu']}, {origin['cores']} cores"),
        ("system", f"{origin['system']}, Python {origin['python']}"),
        ("threads", ", ".join(f"{name} {count}" for name, count in threads.items())),
        ("versions", versions),
        ("command", origin["command"]),
        ("load at the end", f"{origin['load_average_at_end'] or 0:.2f}"),
    ]
    if by_hand := set_by_hand(origin):
        lines.append(("set in the environment", by_hand))
    if "device" in origin:
        lines.insert(2, ("device", str(origin["device"].get("name"))))
    if "seconds" in result:
        lines.append(("took", f"{result['seconds']:.0f} s"))
    if settings.get("quick") or settings.get("shrunk"):
        lines.append(("quick run", "fewer rows and repeats than targets are stated for"))
    return Items(tuple(f"{name}: {value}" for name, value in lines))


def _summary(result: dict[str, Any]) -> list[Block]:
    """What one wants to know first: how often ahead, targets, and where not."""
    rows = result["rows"]
    counts = report.standing(rows)
    reached, total, missed = report.verdicts(rows)
    ahead, level, behind = counts
    text = (
        f"of {sum(counts)} comparisons ahead in {ahead}, behind in {behind}, level in {level}:"
        " there the ranges of the repeats meet"
    )
    lines = [text]
    if total:
        lines.append(f"{reached} of {total} targets reached")
        lines += [f"missed: {line}" for line in missed]
    slower = report.behind(rows)
    found: list[Block] = [Heading("In short"), Items(tuple(lines))]
    if slower:
        found += [Heading("Where a peer is faster", 3), Items(tuple(slower))]
    if unquiet := report.unsteady(rows):
        found.append(Folded(f"{len(unquiet)} times with a wide spread", (Items(tuple(unquiet)),)))
    if left_out := result.get("settings", {}).get("without"):
        found.append(Text(f"Left out of this suite: {', '.join(left_out)}."))
    if again := [row for row in rows if "measured" in row]:
        texts = (_again(row) for row in again)
        found.append(Folded(f"{len(again)} rows from a later run", (Items(tuple(texts)),)))
    if result.get("not_run"):
        found.append(Text(f"Not run, the time was over: {', '.join(result['not_run'])}."))
    return found


def _again(row: dict[str, Any]) -> str:
    """Where a row of a later run is from, and what the run had found before."""
    found = f"{row['title']}: {row['measured']['date']}, {row['measured']['commit']}"
    before = row["measured"].get("ratios")
    if not before:
        return found
    return (
        found + "; before " + ", ".join(f"{ratio:.2f} x {peer}" for peer, ratio in before.items())
    )


def _group(title: str, rows: list[dict[str, Any]], figures: bool) -> list[Block]:
    head, lines = report.cells(rows)
    found: list[Block] = [Heading(title)]
    if figures and any(row["ratios"] for row in rows):
        name = "".join(c if c.isalnum() else "-" for c in title.lower())
        series = len(rows) > 1 and all(row.get("axis") for row in rows)
        if series:
            what = "Median and spread of the repeats."
            figure = plots.curves(rows, title)
        else:
            what = "Right of the line fastgmm is faster; thin lines are the spread of the repeats."
            figure = plots.ratios(rows, title)
        found.append(Figure(plots.svg(figure, name), what))
    found.append(Table(tuple(head), tuple(tuple(line) for line in lines)))
    if found_reasons := [f"{row['title']}: {r}" for row in rows for r in report.reasons(row)]:
        found.append(Items(tuple(found_reasons)))
    found.append(Folded("All that was measured", (_details(rows),)))
    return found


def _details(rows: list[dict[str, Any]]) -> Table:
    head = ("row", "implementation", "median", "min", "max", "repeats", "x", "first call",
            "memory", "difference", "passes")  # fmt: skip
    lines = []
    for row in rows:
        for name, entry in row["implementations"].items():
            if "missing" in entry:
                continue
            found, ratio = entry.get("seconds"), row["ratios"].get(name)
            spread = [report.seconds(found[end]) for end in ("min", "max")] if found else ["-", "-"]
            first, memory = entry.get("first_call_seconds"), entry.get("peak_memory_bytes")
            lines.append(
                (row["title"], name, report.time_of(entry), *spread,
                 str(found["repeats"]) if found else "-",
                 report.ratio(ratio["ratio"]) if ratio else "-",
                 "-" if first is None else report.seconds(first),
                 "-" if memory is None else f"{memory / 1e6:.3g} MB",
                 report.error_of(entry), str(entry.get("passes", 1)))
            )  # fmt: skip
    return Table(head, tuple(lines))


def _section(name: str, section: dict[str, Any], figures: bool) -> list[Block]:
    module = sections.load(name)
    found = parse(module.markdown(section))
    if not found or not isinstance(found[0], Heading):
        found.insert(0, Heading(name.capitalize()))
    if figures:
        found += [
            Figure(plots.svg(figure, f"{name}-{label}"), label)
            for label, figure in module.figures(section).items()
        ]
    return found


def _notes(rows: list[dict[str, Any]]) -> list[Block]:
    told = [f"{row.get('group') or 'row'}, {row['title']}: {row['workload']}; time of"
            f" {row['unit']}{_mixed(row)}" for row in rows]  # fmt: skip
    return [
        Heading("Notes"),
        Text(
            "Memory is the peak of what was resident beyond what was there before the call, in the"
            " process that measures; freed memory goes back to the system before. The memory"
            " suite measures in processes of their own. Difference: root mean square of"
            " log-likelihoods in nats, largest difference of a parameter, or share of rows with"
            " another label. First call: on few rows, with compilation or loading of code."
        ),
        *([Items(tuple(absent))] if (absent := report.absences(rows)) else []),
        _implementations(rows),
        Folded("Workloads", (Items(tuple(told)),)),
    ]


def _implementations(rows: list[dict[str, Any]]) -> Table:
    """What each adapter says of itself."""
    used = {name.split(",")[0] for row in rows for name in row["implementations"]}
    head = ("implementation", "tasks", "covariances", "precisions", "passes", "note")
    lines = [
        (kind.name, *(", ".join(sorted(names)) for names in
         (kind.tasks, kind.structures, kind.precisions)), str(kind.passes_per_iteration), kind.note)
        for kind in ADAPTERS
        if kind.name in used
    ]  # fmt: skip
    return Table(head, tuple(lines))


def _mixed(row: dict[str, Any]) -> str:
    overlap = row.get("overlap")
    if not overlap:
        return ""
    return (
        f"; {overlap['active']:.1f} active and {overlap['effective']:.1f} effective components"
        " per row"
    )
