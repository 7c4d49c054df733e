"""Fit by EM, fine-tune by gradient, score by kernel.

``python docs/examples/em_then_gradient.py tuned.png``: EM gives the density of each of two classes;
the gradient then makes them better at telling the classes apart, which is not what EM asks for.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import fastgmm
from fastgmm.nn import GMM


class Result(NamedTuple):
    """Share of right labels on rows that were not seen, before and after the gradient."""

    before: float
    after: float
    start: list[fastgmm.GaussianMixture]
    tuned: list[fastgmm.GaussianMixture]
    x: np.ndarray
    labels: np.ndarray


def spirals(n_rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved spirals: rows (N, 2), float32, and labels."""
    labels = rng.integers(2, size=n_rows)
    angle = 3.5 * np.pi * np.sqrt(rng.uniform(0.02, 1, n_rows))
    turned = angle + np.pi * labels
    x = np.stack([angle * np.cos(turned), angle * np.sin(turned)], axis=1) / 4
    return (x + 0.12 * rng.standard_normal(x.shape)).astype(np.float32), labels


def accuracy(mixtures: list[fastgmm.GaussianMixture], x: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose own class gives them the larger density."""
    scores = np.stack([m.score_samples(x) for m in mixtures], axis=1)
    return float((scores.argmax(axis=1) == labels).mean())


def train(n_rows: int = 3000, steps: int = 250, seed: int = 0) -> Result:
    """Fit one mixture per class by EM, then both by the gradient of the class's log-probability."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, labels = spirals(n_rows, rng)
    unseen, unseen_labels = spirals(n_rows, rng)
    start = [
        fastgmm.GaussianMixture(6, random_state=seed, max_iter=300, tol=1e-3).fit(x[labels == k])
        for k in (0, 1)
    ]
    modules = torch.nn.ModuleList([GMM.from_estimator(m, epsilon=1e-3) for m in start])
    rows, targets = torch.from_numpy(x), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(modules.parameters(), lr=0.02)
    for _ in range(steps):
        batch = torch.randint(n_rows, (512,))
        joint = torch.stack([m().log_prob(rows[batch]) for m in modules], -1)
        loss = torch.nn.functional.cross_entropy(joint, targets[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tuned = [m.to_estimator() for m in modules]
    before, after = (accuracy(m, unseen, unseen_labels) for m in (start, tuned))
    return Result(before, after, start, tuned, unseen, unseen_labels)


def draw(result: Result, path: Path) -> None:
    """The border between the classes before and after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    line = np.linspace(-3.2, 3.2, 300, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 5), sharex=True, sharey=True, layout="constrained"
    )
    stages = (("EM", result.start, result.before), ("then gradient", result.tuned, result.after))
    for axis, (title, mixtures, share) in zip(axes, stages, strict=True):
        first, second = (m.score_samples(grid).reshape(300, 300) for m in mixtures)
        axis.contourf(
            line, line, second - first, levels=[-1e9, 0, 1e9], colors=["#cfe0f3", "#fbe0c8"]
        )
        colours = np.where(result.labels[:1200] == 0, "#1f5fa8", "#d95f02")
        axis.scatter(*result.x[:1200].T, s=4, c=colours, linewidths=0)
        axis.set_title(f"{title}: {share:.1%} of new rows right")
        axis.set_aspect("equal")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Fit, tune, say what came out, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    path = parser.parse_args().picture
    result = train()
    print(f"right labels on new rows: {result.before:.3f} by EM, {result.after:.3f} after")
    draw(result, path)


if __name__ == "__main__":
    main()
