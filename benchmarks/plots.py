"""Figures of measured rows: ratios as dots, series of rows as lines."""

from __future__ import annotations

import io
import re
from typing import Any

from .report import own, ratio

#: colours of Okabe and Ito, which the colour-blind can tell apart, and a shape for each
STYLES = {
    "fastgmm": ("#000000", "o"),
    "scikit-learn": ("#0072b2", "o"),
    "oneDAL": ("#e69f00", "s"),
    "plain PyTorch": ("#009e73", "^"),
    "torch.distributions": ("#56b4e9", "D"),
    "torchgmm": ("#d55e00", "v"),
    "gmmx": ("#cc79a7", "P"),
    "pomegranate": ("#8a6d00", "X"),
    "zuko": ("#7f7f7f", "*"),
    "fastgmm reference": ("#b0b0b0", "p"),
    "np.matmul": ("#4d4d4d", "|"),
}
_SPARE = ("#999999", ".")


def style(name: str) -> tuple[str, str]:
    """Colour and marker of an implementation, whatever its precision."""
    return STYLES.get(name.split(",")[0], _SPARE)


def ratios(rows: list[dict[str, Any]], title: str) -> Any:
    """How many times as long as fastgmm every peer takes, a line of dots for each row.

    The thin line is the spread of the peer's repeats over fastgmm's median.
    """
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["ratios"]]
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(rows) + 1.5))
    labelled: dict[str, Any] = {}
    for place, row in enumerate(rows):
        ours = own(row)["seconds"]["median"]
        for name, entry in row["ratios"].items():
            colour, marker = style(name)
            spread = row["implementations"][name]["seconds"]
            ends = [max(spread[end], 1e-12) / ours for end in ("min", "max")]
            axes.plot(ends, [place, place], color=colour, linewidth=1, alpha=0.7)
            (dot,) = axes.plot(
                [max(entry["ratio"], 1e-3)], [place], marker, color=colour, markersize=6,
                markeredgecolor=colour if marker in "|*" else "white", markeredgewidth=0.6,
            )  # fmt: skip
            labelled.setdefault(name, dot)
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    low = min(axes.get_xlim()[0], 0.7)
    axes.set_xlim(low, max(axes.get_xlim()[1], 2))
    axes.axvspan(low, 1, color="#000000", alpha=0.05, linewidth=0)
    axes.set_xlabel("time over fastgmm's: right of 1 fastgmm is faster")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", which="major", alpha=0.3)
    _clean(axes)
    _ticks(axes.xaxis)
    _legend(axes, labelled)
    return figure


def curves(rows: list[dict[str, Any]], title: str) -> Any:
    """Seconds of every implementation along a series of rows; the band is the spread."""
    from matplotlib import pyplot as plt

    axis = rows[0]["axis"]
    place = "NKD".index(axis)
    rows = sorted(rows, key=lambda row: row["shape"][place])
    figure, axes = plt.subplots(figsize=(7, 3.8))
    labelled: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row["implementations"]):
        found = [
            (row["shape"][place], row["implementations"][name]["seconds"])
            for row in rows
            if "seconds" in row["implementations"].get(name, {})
        ]
        if not found:
            continue
        colour, marker = style(name)
        sizes = [size for size, _ in found]
        wide = 2.4 if name.startswith("fastgmm") and name != "fastgmm reference" else 1.2
        (line,) = axes.plot(
            sizes, [t["median"] for _, t in found], color=colour, marker=marker, markersize=5,
            linewidth=wide,
        )  # fmt: skip
        axes.fill_between(
            sizes, [t["min"] for _, t in found], [t["max"] for _, t in found], color=colour,
            alpha=0.15, linewidth=0,
        )  # fmt: skip
        labelled[name] = line
    sizes = [row["shape"][place] for row in rows]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel({"N": "rows N", "K": "components K", "D": "features D"}[axis])
    axes.set_ylabel(f"seconds, {rows[0]['unit']}")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    _clean(axes)
    _legend(axes, labelled)
    return figure


def memory(result: dict[str, Any]) -> Any:
    """Megabytes beyond the input of every implementation, a line of dots for each case."""
    from matplotlib import pyplot as plt

    cases = [case for case in result["cases"] if "failed" not in case]
    labels = list(dict.fromkeys(f"{case['task']}, {case['structure']}" for case in cases))
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(labels) + 1.5))
    labelled: dict[str, Any] = {}
    for case in cases:
        name = case["implementation"]
        colour, marker = style(name)
        place = labels.index(f"{case['task']}, {case['structure']}")
        # nothing at all cannot be drawn on a logarithmic axis
        value = max(case["beyond_input_mb"], 0.1)
        (dot,) = axes.plot([value], [place], marker, color=colour, markersize=6)
        labelled.setdefault(name, dot)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("megabytes beyond the input at the peak")
    axes.grid(axis="x", alpha=0.3)
    _clean(axes)
    _ticks(axes.xaxis)
    _legend(axes, labelled)
    return figure


def svg(figure: Any, name: str) -> str:
    """The figure as an element of a page: text stays text, ids begin with this name."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastgmm"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # figures of one page must not use each other's parts
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)


def _ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: ratio(value)))


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _legend(axes: Any, handles: dict[str, Any]) -> None:
    if handles:
        # one order in all figures, whichever row was the first to have a dot
        places = {name: place for place, name in enumerate(STYLES)}
        names = sorted(handles, key=lambda name: places.get(name.split(",")[0], len(places)))
        axes.legend(
            [handles[name] for name in names], names, frameon=False, fontsize=8, loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )  # fmt: skip
