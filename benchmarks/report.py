"""What a reader wants to see of measured rows, as aligned Markdown and as lines."""

from __future__ import annotations

from typing import Any

from .adapters import ADAPTERS

#: why there is no time, by the entry's key, and the word in its place
WORDS = {"disagrees": "wrong", "failed": "failed", "skipped": "not run", "slow": "too slow"}


def seconds(value: float) -> str:
    """Three digits and a unit; differences of noisy times can be negative."""
    if value < 0:
        return f"-{seconds(-value)}"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def ratio(value: float) -> str:
    """Three digits, without powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def peers(rows: list[dict[str, Any]]) -> list[str]:
    """Names other than fastgmm that any of the rows has more of than a reason for absence."""
    names: dict[str, None] = {}
    for row in rows:
        for name, entry in row["implementations"].items():
            if "missing" not in entry and not entry.get("own") and name != "fastgmm":
                names[name] = None
    order = [kind.name for kind in ADAPTERS]
    return sorted(names, key=lambda name: [*order, name].index(name.split(",")[0]))


def table(rows: list[dict[str, Any]]) -> str:
    """One line per row: times, ratios with targets, fraction of the peak."""
    head, lines = cells(rows)
    return aligned([tuple(head), *(tuple(line) for line in lines)])


def cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table of these rows, a column for each implementation."""
    names = peers(rows)
    fractions = any(_fraction(row) != "-" for row in rows)
    head = ["row", "fastgmm", *names] + (["FMA peak"] if fractions else [])
    lines = []
    for row in rows:
        line = [row["title"], time_of(own(row)), *(_peer(row, name) for name in names)]
        lines.append(line + ([_fraction(row)] if fractions else []))
    return head, lines


def own(row: dict[str, Any]) -> dict[str, Any]:
    """The entry of fastgmm, in the first of its precisions."""
    entries = row["implementations"]
    found = [entry for entry in entries.values() if entry.get("own")]
    return dict(found[0] if found else entries.get("fastgmm", {"missing": ""}))


def time_of(entry: dict[str, Any]) -> str:
    """The median, or a word for why there is none."""
    if "seconds" in entry:
        return seconds(entry["seconds"]["median"])
    return next((word for key, word in WORDS.items() if key in entry), "-")


def error_of(entry: dict[str, Any]) -> str:
    """The difference from the oracle: nats (root mean square), parameters, or share of labels."""
    for key in ("rms_nats", "max_difference", "other_labels"):
        if entry.get(key) is not None:
            return f"{entry[key]:.1e}"
    return "-"


def differences(rows: list[dict[str, Any]]) -> str:
    """Difference from the float64 oracle of every implementation, timed or not."""
    names = ["fastgmm", *peers(rows)]
    lines: list[tuple[str, ...]] = [("difference from float64", *names)]
    for row in rows:
        found = [error_of(row["implementations"].get(name, {})) for name in names]
        if set(found) != {"-"}:
            lines.append((row["title"], *found))
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
        found += [line, *(f"  {reason}" for reason in reasons(row))]
    return found + absences(rows)


def reasons(row: dict[str, Any]) -> list[str]:
    """Why implementations have no time in this row, beyond being absent."""
    return [
        f"{name}: {entry[key]}" + (", so no time is shown" if key == "disagrees" else "")
        for name, entry in row["implementations"].items()
        for key in WORDS
        if key in entry
    ]


def absences(rows: list[dict[str, Any]]) -> list[str]:
    """What is not installed, each reason once; what is not offered shows as a dash."""
    missing = {
        (name, entry["missing"])
        for row in rows
        for name, entry in row["implementations"].items()
        if "missing" in entry and not entry.get("installed")
    }
    return [f"absent: {reason}" for _, reason in sorted(missing)]


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


def standing(rows: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Comparisons in which fastgmm is ahead, level and behind; a row with two names counts once.

    Level are those whose repeats overlap: the slowest of one is not faster than the fastest of the
    other.
    """
    counts = {"ahead": 0, "level": 0, "behind": 0}
    for row in rows:
        for peer, entry in row["ratios"].items():
            if not is_peer(peer) or "same_as" in row:
                continue
            ours, theirs = own(row)["seconds"], row["implementations"][peer]["seconds"]
            meet = theirs["min"] <= ours["max"] and ours["min"] <= theirs["max"]
            ahead = "ahead" if entry["ratio"] > 1 else "behind"
            counts["level" if meet else ahead] += 1
    return counts["ahead"], counts["level"], counts["behind"]


def behind(rows: list[dict[str, Any]]) -> list[str]:
    """Where a peer is faster, and by how much."""
    return [
        f"{row.get('group') or 'row'}, {row['title']}: {peer} takes"
        f" {seconds(row['implementations'][peer]['seconds']['median'])}, fastgmm"
        f" {time_of(own(row))}: {ratio(1 / entry['ratio'])} times as long"
        for row in rows
        for peer, entry in row["ratios"].items()
        if 0 < entry["ratio"] < 1 and is_peer(peer)
    ]


def is_peer(name: str) -> bool:
    """Whether it is another implementation: neither a yardstick nor fastgmm's own reference."""
    return name != "np.matmul" and not name.startswith("fastgmm")


def unsteady(rows: list[dict[str, Any]], limit: float = 1.5) -> list[str]:
    """Times whose longest repeat is far from their median: the machine was not quiet."""
    return [
        f"{row['title']}, {name}: {seconds(s['min'])} to {seconds(s['max'])}"
        for row in rows
        for name, entry in row["implementations"].items()
        if (s := entry.get("seconds")) and s["max"] > limit * s["median"]
    ]


def _fraction(row: dict[str, Any]) -> str:
    found = own(row).get("fraction_of_peak")
    return "-" if found is None else f"{found:.0%}"


def _peer(row: dict[str, Any], name: str) -> str:
    text = time_of(row["implementations"].get(name, {}))
    entry, target = row["ratios"].get(name), row["targets"].get(name)
    if entry is not None:
        text += f", {ratio(entry['ratio'])} x"
    if target is not None:
        verdict = "?" if entry is None else "yes" if entry["reached"] else "NO"
        text += f" (>= {target:.3g}) {verdict}"
    return text
