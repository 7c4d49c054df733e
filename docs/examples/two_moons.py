"""Density of two moons, learnt by gradient: ``python docs/examples/two_moons.py moons.png``.

A mixture of 12 Gaussians starts at random rows and is trained by Adam on batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import make_moons

from fastgmm.nn import GMM


def train(n_rows: int = 4000, steps: int = 300, seed: int = 0) -> tuple[GMM, torch.Tensor, list]:
    """Return the mixture, the rows, and the mean log-likelihood of each batch."""
    torch.manual_seed(seed)
    x = torch.from_numpy(make_moons(n_rows, noise=0.06, random_state=seed)[0]).float()
    mixture = GMM(features=2, components=12)
    mixture.initialize(x, "random")
    optimiser = torch.optim.Adam(mixture.parameters(), lr=0.02)
    history = []
    for _ in range(steps):
        batch = x[torch.randint(n_rows, (512,))]
        log_likelihood = mixture().log_prob(batch).mean()
        optimiser.zero_grad()
        (-log_likelihood).backward()
        optimiser.step()
        history.append(log_likelihood.item())
    return mixture, x, history


def draw(mixture: GMM, x: torch.Tensor, path: Path) -> None:
    """Rows and samples side by side, over the density."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across, up = torch.linspace(-1.6, 2.6, 240), torch.linspace(-1.1, 1.6, 180)
    grid = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)
    with torch.no_grad():
        distribution = mixture()
        density = distribution.log_prob(grid).exp()
        drawn = distribution.sample((len(x),))
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 3.6), sharex=True, sharey=True, layout="constrained"
    )
    for axis, points, title in zip(axes, (x, drawn), ("data", "samples"), strict=True):
        axis.contourf(across, up, density, levels=24, cmap="Blues")
        axis.scatter(*points[:1000].T, s=3, color="#d95f02", alpha=0.6, linewidths=0)
        axis.set_title(f"{title}, and the density of the mixture")
        axis.set_aspect("equal")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, say what came out, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    path = parser.parse_args().picture
    mixture, x, history = train()
    with torch.no_grad():
        score = mixture().log_prob(x).mean()
    print(f"log-likelihood per row: {history[0]:.3f} at the start, {score:.3f} at the end")
    draw(mixture, x, path)


if __name__ == "__main__":
    main()
