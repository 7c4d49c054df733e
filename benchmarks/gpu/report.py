"""The tables of a run, as aligned Markdown."""

from __future__ import annotations

from typing import Any

from ..adapters import ADAPTERS
from ..report import absences, aligned, error_of, reasons, seconds, time_of, unsteady

_TIMES = """
medians of calls in turns; x = time over that of fastgmm's first precision; error = root mean square
of log-likelihoods in nats for scores, else largest difference of a parameter, both from float64;
memory = peak beyond the rows, as torch counts it; what names no precision makes float32 products in
full precision
"""
_FLOORS = """
floor = nominal work over the best rate for that precision; reached = floor / time; code that skips
work can pass 100 %
"""


def text(result: dict[str, Any]) -> str:
    """Everything that a reader wants to see."""
    rows, origin = result["rows"], result["provenance"]
    device = origin["device"]
    versions = ", ".join(f"{name} {v}" for name, v in origin["versions"].items() if v)
    known = [f"{k} {device[k]}" for k in ("capability", "driver", "cuda") if device.get(k)]
    parts = [
        f"{', '.join([device['name'], *known])}; {origin['date']}, {origin['commit']}",
        f"{versions}; Python {origin['python']}",
        "",
        f"tests on the device: {result['tests']['summary']}",
        *result["tests"].get("failed", []),
        *_warm_up(result.get("warm_up")),
        "",
        ceilings(result),
        "\n3xtf32 and bf16x3 were not run: a third of tf32 and of bf16\n",
        times(rows),
        _TIMES,
        floors(rows),
        _FLOORS,
        *notes(rows),
        *unsteady_lines(rows),
    ]
    if result["settings"]["quick"]:
        parts.append("quick run: fewer rows and repeats than the targets are stated for")
    return "\n".join(parts)


def ceilings(result: dict[str, Any]) -> str:
    """Measured rates beside the published ones."""
    lines: list[tuple[str, ...]] = [("ceiling", "measured", "published")]
    published = result["published_rates"] or {}
    for name, value in result["rates"].items():
        stated = published.get(name)
        lines.append((name, _rate(name, value), "-" if stated is None else _rate(name, stated)))
    if "no_rates" in result:
        return f"ceilings were not measured: {result['no_rates']}"
    return aligned(lines)


def times(rows: list[dict[str, Any]]) -> str:
    """One line per row and implementation."""
    head = ("row", "implementation", "time", "min to max", "x", "error", "memory", "passes")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        title = row["title"]
        own = [e["seconds"]["median"] for e in _own(row).values() if "seconds" in e]
        for name, entry in row["implementations"].items():
            if "mode" not in entry:
                continue
            found = entry.get("seconds")
            spread, ratio = "-", "-"
            if found:
                spread = f"{seconds(found['min'])} to {seconds(found['max'])}"
                ratio = f"{found['median'] / own[0]:.2f}" if own else "-"
            lines.append(
                (title, name, time_of(entry), spread, ratio, error_of(entry), _memory(entry),
                 str(entry["passes"]))
            )  # fmt: skip
            title = ""
    return aligned(lines)


def floors(rows: list[dict[str, Any]]) -> str:
    """What fastgmm reaches of what the device could do."""
    head = ("row", "precision", "time", "floor", "reached", "published floor", "reached",
            "target", "launches", "waits")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        title = row["title"]
        for entry in _own(row).values():
            if not entry.keys() & {"floor_seconds", "published_floor_seconds"}:
                continue
            mode = entry["mode"] if row["precision"] == "float32" else row["precision"]
            calls = entry.get("calls_per_iteration") or {}
            target = "-"
            if "target" in entry:
                target = f"{entry['target']:.0%} {'yes' if entry['reached'] else 'NO'}"
            counted, published = entry.get("floor_seconds"), entry.get("published_floor_seconds")
            lines.append(
                (title, mode, time_of(entry), _least(counted),
                 _share(entry.get("fraction")), _least(published),
                 _share(entry.get("published_fraction")), target,
                 *(f"{calls[key]:.1f}" if key in calls else "-" for key in ("launches", "waits")))
            )  # fmt: skip
            title = ""
    return aligned(lines)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the tables have no room for."""
    found: list[str] = []
    for row in rows:
        line = f"{row['title']}: {row['workload']}; time of {row['unit']}"
        if overlap := row["overlap"]:
            line += (
                f"; {overlap['active']:.1f} active and {overlap['effective']:.1f} effective"
                " components per row"
            )
        found.append(line)
        found += [f"  {reason}" for reason in reasons(row)]
    found += [f"{kind.name}: {kind.note}" for kind in ADAPTERS if kind.note and kind.on_devices]
    return found + absences(rows)


def unsteady_lines(rows: list[dict[str, Any]]) -> list[str]:
    found = unsteady(rows)
    return ["repeats differ by much:", *(f"  {line}" for line in found)] if found else []


def _own(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: e for name, e in row["implementations"].items() if e.get("own")}


def _warm_up(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    line = f"warm-up: {len(found['calls'])} calls in {found['processes']} processes"
    return [f"{line}, {found['seconds']:.0f} s"] + [
        f"  {', '.join(call['rows'])}, {call['mode']}: {call['failed']}"
        for call in found["calls"]
        if "failed" in call
    ]


def _least(value: float | None) -> str:
    return "-" if value is None else seconds(value)


def _memory(entry: dict[str, Any]) -> str:
    value = entry.get("peak_memory_bytes")
    return "-" if value is None else f"{value / 1e6:.4g} MB"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _rate(name: str, value: float) -> str:
    return f"{value / 1e9:.4g} {'GB/s' if name == 'copy' else 'GFLOP/s'}"
