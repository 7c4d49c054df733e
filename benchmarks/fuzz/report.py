"""What a run of the fuzzer found, as Markdown and as a figure."""

from __future__ import annotations

from typing import Any

from ..report import aligned


def markdown(result: dict[str, Any]) -> str:
    """Cases by backend, comparisons by check, every failure with the seed that gives it again."""
    cases = ", ".join(f"{count:,} on {name}" for name, count in result["cases"].items())
    lines: list[tuple[str, ...]] = [
        ("comparison", "number", "failures", "median error / bound", "99 %", "largest")
    ]
    for name, found in result["checks"].items():
        quantiles = found["quantiles"]
        numbers = (quantiles["0.5"], quantiles["0.99"], found["largest_error_over_bound"])
        lines.append(
            (
                name,
                f"{found['comparisons']:,}",
                str(found["failures"]),
                *(f"{number:.1e}" for number in numbers),
            )
        )
    seeds = f"seeds {result['first_seed']} to {result['next_seed'] - 1}"
    head = f"{result['seconds']:.0f} s, {seeds}: {cases}; {result['n_failures']} failures"
    text = [head, "", aligned(lines), ""]
    text += [f"absent: {name}, {reason}" for name, reason in result["absent"].items()]
    for failure in result["failures"]:
        where = f"`--case {failure['seed']}`, {failure['engine']}, {failure['check']}"
        text.append(f"- {where}: {failure['message']} ({failure.get('case', '')})")
    return "\n".join(text)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Errors in units of their bounds: median, 99 % and the largest of every comparison."""
    from matplotlib import pyplot as plt

    checks = {n: c for n, c in result["checks"].items() if c["largest_error_over_bound"] > 0}
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(checks) + 1))
    places = range(len(checks))
    for label, marker, values in (
        ("median", "|", [c["quantiles"]["0.5"] for c in checks.values()]),
        ("99 %", "o", [c["quantiles"]["0.99"] for c in checks.values()]),
        ("largest", "x", [c["largest_error_over_bound"] for c in checks.values()]),
    ):
        axes.plot([max(v, 1e-8) for v in values], places, marker, label=label)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(places, list(checks), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("error over its bound")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return {"fuzz": figure}
