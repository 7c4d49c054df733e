"""The least time that counted work needs on a device, and how much of that speed is reached."""

from __future__ import annotations

from typing import Any

from ..timing import nominal_flops
from .ceilings import rate
from .rows import STATED_FLOORS


def counted(row: dict[str, Any], mode: str, rates: dict[str, float]) -> float:
    """Seconds of the nominal arithmetic, or of reading the rows once, whichever is more."""
    n, k, d = row["shape"]
    flops = nominal_flops(row["task"], row["structure"], n, k, d)
    size = 8 if row["precision"] == "float64" else 4
    unit = rate(rates, row["structure"], row["precision"], mode)
    return max(flops / unit, n * d * size / rates["copy"])


def set_floors(
    rows: list[dict[str, Any]], rates: dict[str, float], published: dict[str, float] | None
) -> None:
    """Add floors and fractions to fastgmm's entries, by measured and by published rates.

    Without rates, which may have failed to be measured, there are no floors by them.
    Where a floor was stated beforehand for a row it counts as the published one. Targets, which
    speak of published rates, are judged where there are any.
    """
    for row in rows:
        for entry in row["implementations"].values():
            if "mode" not in entry or not entry.get("own"):
                continue
            mode = entry["mode"]
            if rates:
                entry["floor_seconds"] = counted(row, mode, rates)
            if published is not None:
                stated = STATED_FLOORS.get(row["name"], {}).get(mode)
                entry["published_floor_seconds"] = (
                    counted(row, mode, published) if stated is None else stated
                )
            if "seconds" not in entry:
                continue
            median = entry["seconds"]["median"]
            if rates:
                entry["fraction"] = entry["floor_seconds"] / median
            if published is not None:
                entry["published_fraction"] = entry["published_floor_seconds"] / median
                target = row["targets"].get(mode)
                if target is not None:
                    entry["target"] = target
                    entry["reached"] = entry["published_fraction"] >= target
