"""A mixture density network on a relation that is not a function.

``python docs/examples/one_to_many.py one_to_many.png``: rows lie on x = y + 0.3 sin(2 pi y) and
noise, so that one x has up to three y. Least squares would give their average, the mixture all.
Bishop (1994), Mixture density networks.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from fastgmm.nn import GMM


def rows(n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Context x and target y, (N, 1) each."""
    y = torch.rand(n_rows, 1)
    x = y + 0.3 * torch.sin(2 * math.pi * y) + 0.04 * torch.randn(n_rows, 1)
    return x, y


def train(n_rows: int = 4000, steps: int = 1200, seed: int = 0) -> tuple[GMM, list]:
    """Return the conditional mixture p(y | x), and the mean log-likelihood of each batch."""
    torch.manual_seed(seed)
    x, y = rows(n_rows)
    mixture = GMM(features=1, context=1, components=5, hidden_features=(64, 64), epsilon=1e-5)
    mixture.initialize(y, "kmeans++")
    optimiser = torch.optim.Adam(mixture.parameters(), lr=3e-3)
    history = []
    for _ in range(steps):
        batch = torch.randint(n_rows, (512,))
        # 512 contexts are 512 mixtures of one row each, in one call.
        log_likelihood = mixture(x[batch]).log_prob(y[batch]).mean()
        optimiser.zero_grad()
        (-log_likelihood).backward()
        optimiser.step()
        history.append(log_likelihood.item())
    return mixture, history


def draw(mixture: GMM, path: Path) -> None:
    """The rows, the conditional density with the mean, and samples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across, up = torch.linspace(-0.1, 1.1, 200)[:, None], torch.linspace(-0.1, 1.1, 200)
    with torch.no_grad():
        distribution = mixture(across)
        density = distribution.log_prob(up[:, None, None]).exp()
        mean = distribution.mean
        contexts, targets = rows(1500)
        drawn = mixture(contexts).sample()
    figure, axes = plt.subplots(
        1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained"
    )
    axes[0].scatter(contexts, targets, s=4, color="#333333", linewidths=0)
    axes[0].set_title("data")
    axes[1].pcolormesh(
        across[:, 0].numpy(), up.numpy(), density.sqrt().numpy(), cmap="Blues", shading="auto"
    )
    axes[1].plot(across, mean, color="#d95f02", label="mean: what least squares gives")
    axes[1].legend(loc="upper left", frameon=False)
    axes[1].set_title("p(y | x), root scale")
    axes[2].scatter(contexts, drawn, s=4, color="#d95f02", linewidths=0)
    axes[2].set_title("samples")
    for axis in axes:
        axis.set(xlabel="x", xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    axes[0].set_ylabel("y")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, say what came out, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    path = parser.parse_args().picture
    mixture, history = train()
    last = sum(history[-50:]) / 50
    print(f"log-likelihood per row: {history[0]:.3f} at the start, {last:.3f} at the end")
    draw(mixture, path)


if __name__ == "__main__":
    main()
