"""The table of a run, as aligned Markdown: readable in a terminal and in a README."""

from __future__ import annotations

from typing import Any

PEERS = ("scikit-learn", "oneDAL", "np.matmul")
_HEAD = ("row", "fastgmm", *PEERS, *(f"x {peer}" for peer in PEERS), "FMA peak")


def seconds(value: float) -> str:
    """Three digits and a unit; differences of noisy times can be negative."""
    if value < 0:
        return f"-{seconds(-value)}"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def table(rows: list[dict[str, Any]]) -> str:
    """One line per row: times, ratios with targets, fraction of the peak."""
    lines = [_HEAD, *[_line(row) for row in rows]]
    return aligned(lines)


def differences(rows: list[dict[str, Any]]) -> str:
    """Largest difference from the float64 oracle of every implementation, timed or not."""
    names = ("fastgmm", *PEERS[:2])
    lines: list[tuple[str, ...]] = [("max difference from float64", *names)]
    for row in rows:
        entries = [row["implementations"].get(name, {}) for name in names]
        cells = [f"{e['max_difference']:.1e}" if "max_difference" in e else "-" for e in entries]
        if set(cells) != {"-"}:
            lines.append((row["title"], *cells))
    return aligned(lines)


def aligned(lines: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first line is its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the table has no room for: workloads, absences, disagreements."""
    found: list[str] = []
    for row in rows:
        line = f"{row['title']}: {row['workload']}; time of {row['unit']}"
        overlap = row.get("overlap")
        if overlap:
            line += (
                f"; {overlap['active']:.1f} active and {overlap['effective']:.1f} effective"
                " components per row"
            )
        found.append(line)
        for name, entry in row["implementations"].items():
            if "disagrees" in entry:
                found.append(f"  {name} {entry['disagrees']}: no time is shown")
    missing = {
        (name, entry["missing"])
        for row in rows
        for name, entry in row["implementations"].items()
        if "missing" in entry
    }
    return found + [f"absent: {reason}" for _, reason in sorted(missing)]


def verdicts(rows: list[dict[str, Any]]) -> tuple[int, int, list[str]]:
    """(targets reached, targets, lines about those missed)."""
    reached, total, missed = 0, 0, []
    for row in rows:
        for peer, entry in row["ratios"].items():
            if entry["target"] is None:
                continue
            total += 1
            reached += entry["reached"]
            if not entry["reached"]:
                missed.append(
                    f"{row['title']}: {entry['ratio']:.2f} times as fast as {peer},"
                    f" target {entry['target']:.3g}"
                )
    return reached, total, missed


def unsteady(rows: list[dict[str, Any]], limit: float = 1.5) -> list[str]:
    """Times whose longest repeat is far from their median: the machine was not quiet."""
    return [
        f"{row['title']}, {name}: {seconds(s['min'])} to {seconds(s['max'])}"
        for row in rows
        for name, entry in row["implementations"].items()
        if (s := entry.get("seconds")) and s["max"] > limit * s["median"]
    ]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    implementations = row["implementations"]
    ours = implementations.get("fastgmm", {})
    peak = ours.get("fraction_of_peak")
    return (
        row["title"],
        _time(implementations, "fastgmm"),
        *[_time(implementations, peer) for peer in PEERS],
        *[_ratio(row, peer) for peer in PEERS],
        "-" if peak is None else f"{peak:.0%}",
    )


def _time(implementations: dict[str, Any], name: str) -> str:
    entry = implementations.get(name, {"missing": ""})
    if "seconds" in entry:
        return seconds(entry["seconds"]["median"])
    return "wrong" if "disagrees" in entry else "-"


def _ratio(row: dict[str, Any], peer: str) -> str:
    entry = row["ratios"].get(peer)
    target = row["targets"].get(peer)
    if entry is None:
        return "-" if target is None else f"? (>= {target:.3g})"
    if target is None:
        return f"{entry['ratio']:.2f}"
    return f"{entry['ratio']:.2f} (>= {target:.3g}) {'yes' if entry['reached'] else 'NO'}"
