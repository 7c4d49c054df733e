"""What got faster or slower between two runs: ``python -m benchmarks compare A.json B.json``.

Machines have moods, so a change counts where fastgmm's medians differ by more than the tolerance,
both spreads are apart, and what the peers did in the same runs does not explain it. Files that
pytest-benchmark wrote are compared by pytest-benchmark's own command.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .report import aligned, own, seconds


def main(arguments: list[str]) -> int:
    """Print the comparison; 1 when a row got slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument(
        "--tolerance", type=float, default=0.1, help="change of a median that may be noise (0.1)"
    )
    options = parser.parse_args(arguments)
    before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    if "benchmarks" in before and "benchmarks" in after:
        return _by_pytest_benchmark(options.before, options.after)
    lines = changes(before, after, options.tolerance)
    print(text(before, after, lines))
    return int(any(line["verdict"] == "slower" for line in lines))


def changes(
    before: dict[str, Any], after: dict[str, Any], tolerance: float = 0.1
) -> list[dict[str, Any]]:
    """One entry per row that both runs have at the same shape, in the order of the second.

    ``change`` is fastgmm's median after over before, ``peers`` the median of the same of all peers,
    ``corrected`` the first over the second.
    """
    earlier = {row["name"]: row for row in before["rows"]}
    found = []
    for row in after["rows"]:
        old = earlier.get(row["name"])
        if old is None or old["workload"] != row["workload"]:
            continue
        a, b = own(old).get("seconds"), own(row).get("seconds")
        if a is None or b is None:
            continue
        change, peers = b["median"] / a["median"], _peers(old, row)
        corrected = change / peers
        apart = a["max"] < b["min"] or b["max"] < a["min"]
        verdict = "same"
        # as much by itself as beside the peers, and in the same direction
        least = min(abs(math.log(change)), abs(math.log(corrected)))
        if apart and (change > 1) == (corrected > 1) and least > math.log1p(tolerance):
            verdict = "slower" if change > 1 else "faster"
        found.append(
            {
                "row": row["title"],
                "before": a["median"],
                "after": b["median"],
                "change": change,
                "peers": peers,
                "corrected": corrected,
                "verdict": verdict,
            }
        )
    return found


def text(before: dict[str, Any], after: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """The table, with where the two come from."""
    head = ("row", "before", "after", "after / before", "of the peers", "corrected", "")
    table = [
        (
            line["row"],
            seconds(line["before"]),
            seconds(line["after"]),
            *(f"{line[key]:.2f}" for key in ("change", "peers", "corrected")),
            line["verdict"],
        )
        for line in lines
    ]
    slower = [line["row"] for line in lines if line["verdict"] == "slower"]
    faster = [line["row"] for line in lines if line["verdict"] == "faster"]
    origins = [
        f"{name}: " + ", ".join(r["provenance"][key] for key in ("commit", "date", "cpu"))
        for name, r in (("before", before), ("after", after))
    ]
    if before["provenance"]["cpu"] != after["provenance"]["cpu"]:
        origins.append("the processors differ: times say nothing, the corrected ratios little")
    return "\n".join(
        [*origins, "", aligned([head, *table]), "",
         f"slower: {', '.join(slower) or 'none'}", f"faster: {', '.join(faster) or 'none'}"]
    )  # fmt: skip


def _peers(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How the peers' medians changed, which is the machine's doing and not fastgmm's."""
    found = [
        entry["seconds"]["median"] / old["implementations"][name]["seconds"]["median"]
        for name, entry in new["implementations"].items()
        if name in new["ratios"] and name in old["ratios"] and not name.startswith("fastgmm")
    ]
    return statistics.median(found) if found else 1.0


def _by_pytest_benchmark(before: Path, after: Path) -> int:
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(before), str(after)]
    command += ["--group-by=fullname", "--columns=min,median,max,rounds"]
    return subprocess.run(command, check=False).returncode
