"""The README's figures: ``python -m benchmarks.figures CPU.json LARGE_K.json -o DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .rows import TARGETS
from .small import GROUP

_OURS, _PEER, _OTHER = "#0072b2", "#999999", "#e69f00"


def main(arguments: list[str] | None = None) -> int:
    """Write cpu.svg and large-k.svg."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("cpu", type=Path, help="what benchmarks.cpu --json wrote")
    parser.add_argument("large_k", type=Path, help="what benchmarks.cpu --large-k --json wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "fastgmm", "font.size": 10})
    for name, draw, path in (
        ("cpu.svg", _ratios, options.cpu),
        ("large-k.svg", _large_k, options.large_k),
    ):
        figure = draw(json.loads(path.read_text()))
        figure.savefig(options.output / name, bbox_inches="tight", metadata={"Date": None})
        print(f"wrote {options.output / name}")
    return 0


def _origin(result: dict[str, Any]) -> str:
    origin = result["provenance"]
    return f"{origin['cpu']}, {origin['cores']} cores, {origin['date'][:10]}"


def _ratios(result: dict[str, Any]) -> Any:
    """How many times faster than each peer, row by row, on a logarithmic axis."""
    from matplotlib import pyplot as plt

    # Of a full run those with targets, and small data.
    rows = [row for row in result["rows"] if row["ratios"] and row["group"] in (TARGETS, GROUP)]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(rows) + 1))
    labelled = set()
    for place, row in enumerate(rows):
        for name, colour, shift in (("scikit-learn", _OURS, -0.18), ("oneDAL", _OTHER, 0.18)):
            found = row["ratios"].get(name)
            if found is not None:
                ratio = found["ratio"]
                label = None if name in labelled else f"than {name}"
                labelled.add(name)
                axes.barh(place + shift, ratio, 0.34, color=colour, label=label)
                axes.text(ratio * 1.04, place + shift, f"{ratio:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times faster, same start, same iterations")
    axes.set_title(_origin(result), fontsize=9)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _large_k(result: dict[str, Any]) -> Any:
    """Seconds of one EM iteration against K, a panel for each distance of the clusters."""
    from matplotlib import pyplot as plt

    tables = result["tables"]
    figure, panels = plt.subplots(1, len(tables), figsize=(8.5, 3.4), sharey=True)
    styles = {
        "skipping": (_OURS, "o", "fastgmm"),
        "visiting all": (_PEER, "s", "fastgmm, nothing skipped"),
        "oneDAL": (_OTHER, "^", "oneDAL"),
    }
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        for key, (colour, marker, label) in styles.items():
            rows = [row for row in table["rows"] if key in row["seconds"]]
            ks = [row["K"] for row in rows]
            times, low, high = (
                [row["seconds"][key][what] for row in rows] for what in ("median", "min", "max")
            )
            axes.plot(ks, times, color=colour, marker=marker, label=label)
            # from the fastest to the slowest; the difference of two fits may be noise alone
            axes.fill_between(
                ks, [max(value, 1e-4) for value in low], high, color=colour, alpha=0.15
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("components K")
        axes.set_title(f"{name} clusters", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds per EM iteration")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"full, float32, N=200,000 D=32, random row order; {_origin(result)}", fontsize=9
    )
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(main())
