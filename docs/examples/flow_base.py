"""A mixture as base of a small flow: ``python docs/examples/flow_base.py flow.png``.

Two coupling layers bend the plane; what they cannot do, to tear it into several clusters, the
mixture at their base does. All are trained together.
Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from fastgmm.nn import GMM, MLP


class Coupling(nn.Module):
    """One feature is scaled and shifted by what a network makes of the other."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self.network = MLP(1, 2, hidden_features=(32, 32), activation=nn.Tanh)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data towards the base: values, and the log-determinant of the Jacobian."""
        kept, moved = x[:, self.first], x[:, 1 - self.first]
        log_scale, shift = self.network(kept[:, None]).unbind(-1)
        log_scale = torch.tanh(log_scale)
        moved = moved * log_scale.exp() + shift
        pair = (kept, moved) if self.first == 0 else (moved, kept)
        return torch.stack(pair, -1), log_scale

    def inverse(self, z: Tensor) -> Tensor:
        """From the base towards data."""
        kept, moved = z[:, self.first], z[:, 1 - self.first]
        log_scale, shift = self.network(kept[:, None]).unbind(-1)
        moved = (moved - shift) * (-torch.tanh(log_scale)).exp()
        pair = (kept, moved) if self.first == 0 else (moved, kept)
        return torch.stack(pair, -1)


class Flow(nn.Module):
    """Coupling layers over a mixture, or over one Gaussian."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.base = GMM(features=2, components=components)
        self.layers = nn.ModuleList([Coupling(0), Coupling(1)])

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of rows (N, 2)."""
        total = torch.zeros(len(x))
        for layer in self.layers:
            x, log_determinant = layer(x)
            total = total + log_determinant
        return self.base().log_prob(x) + total

    def sample(self, n_rows: int) -> Tensor:
        """Rows (N, 2)."""
        z = self.base().sample((n_rows,))
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z


def arcs(n_rows: int) -> Tensor:
    """Four bent clusters on two rings."""
    label = torch.randint(4, (n_rows,))
    angle = label * math.pi / 2 + 0.45 * torch.randn(n_rows)
    radius = 1.0 + 1.2 * (label % 2) + 0.06 * torch.randn(n_rows)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def train(
    components: int, n_rows: int = 4000, steps: int = 800, seed: int = 0
) -> tuple[Flow, Tensor, float]:
    """Return the flow, the rows, and the mean log-likelihood of all rows at the end."""
    torch.manual_seed(seed)
    x = arcs(n_rows)
    flow = Flow(components)
    flow.base.initialize(x, "kmeans")
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = -flow.log_prob(x[torch.randint(n_rows, (512,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return flow, x, flow.log_prob(x).mean().item()


def draw(results: list[tuple[str, Flow, float]], x: Tensor, path: Path) -> None:
    """The rows, and samples of each flow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 1 + len(results), figsize=(12, 4.2), sharex=True, sharey=True, layout="constrained"
    )
    axes[0].scatter(*x[:2000].T, s=3, color="#333333", linewidths=0)
    axes[0].set_title("data")
    for axis, (title, flow, score) in zip(axes[1:], results, strict=True):
        with torch.no_grad():
            axis.scatter(*flow.sample(2000).T, s=3, color="#d95f02", linewidths=0)
        axis.set_title(f"{title}: {score:.2f} nats per row")
    for axis in axes:
        axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train over one Gaussian and over four, say what came out, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    path = parser.parse_args().picture
    results = []
    for components, title in ((1, "one Gaussian as base"), (4, "mixture of four as base")):
        flow, x, score = train(components)
        print(f"{title}: {score:.3f} nats per row")
        results.append((title, flow, score))
    draw(results, x, path)


if __name__ == "__main__":
    main()
