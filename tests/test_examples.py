"""The examples of the documentation at a small size: they learn, and draw."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check_picture(path):
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_three_gaussians(tmp_path):
    pytest.importorskip("matplotlib")
    example = load("three_gaussians")
    mixture, x, states = example.fit(n_rows=1500)
    bounds = [state.lower_bound for state in states]
    assert bounds == mixture.lower_bounds_
    assert example.error(mixture) < 0.2
    example.draw(mixture, x, states, tmp_path / "three.png")
    check_picture(tmp_path / "three.png")


def test_two_moons(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    example = load("two_moons")
    mixture, x, history = example.train(n_rows=800, steps=40)
    assert np.mean(history[-5:]) > np.mean(history[:5]) + 0.05
    example.draw(mixture, x, tmp_path / "moons.png")
    check_picture(tmp_path / "moons.png")


def test_one_to_many(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    example = load("one_to_many")
    mixture, history = example.train(n_rows=1000, steps=60)
    assert np.mean(history[-5:]) > np.mean(history[:5]) + 0.2
    example.draw(mixture, tmp_path / "many.png")
    check_picture(tmp_path / "many.png")


def test_flow_base(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    example = load("flow_base")
    scores = {}
    results = []
    for components in (1, 4):
        flow, x, scores[components] = example.train(components, n_rows=800, steps=60)
        results.append((f"{components}", flow, scores[components]))
    assert scores[4] > scores[1] + 0.2
    z = flow.base().sample((50,))
    back = z
    for layer in reversed(flow.layers):
        back = layer.inverse(back)
    for layer in flow.layers:
        back, _ = layer(back)
    assert torch.allclose(back, z, atol=1e-4)
    example.draw(results, x, tmp_path / "flow.png")
    check_picture(tmp_path / "flow.png")


def test_em_then_gradient(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    example = load("em_then_gradient")
    result = example.train(n_rows=1500, steps=60)
    assert 0.9 < result.before < result.after
    example.draw(result, tmp_path / "tuned.png")
    check_picture(tmp_path / "tuned.png")
