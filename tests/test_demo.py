"""Tests of fastgmm.demo on a small copy of the photograph."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import fastgmm
from fastgmm import demo

pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    pytest.importorskip("matplotlib")
    lines: list[str] = []
    path = tmp_path_factory.mktemp("demo") / "demo.png"
    return demo.run(path, k=4, iterations=3, step=16, log=lines.append), lines, path


def test_both_libraries_agree(small):
    result, _, _ = small
    assert [c.covariance for c in result.comparisons] == ["full", "tied", "diag", "spherical"]
    for comparison in result.comparisons:
        assert comparison.log_likelihood_difference < 1e-3
        assert comparison.fastgmm_error < 1e-5
        assert comparison.agreement > 0.99
        assert comparison.speed_up == comparison.sklearn_seconds / comparison.fastgmm_seconds


def test_the_picture_is_written(small):
    from PIL import Image

    with Image.open(small[2]) as picture:
        assert picture.size == (1540, 1100)
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[0] == 255).all()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_it_says_what_it_is_doing(small):
    text = "\n".join(small[1])
    assert "27 x 40 = 1,080 pixels" in text
    assert "4 Gaussians, 3 EM iterations" in text
    assert "warming up" in text


def test_the_table_has_a_line_per_covariance(small):
    lines = demo.format_table(small[0].comparisons).splitlines()
    assert len(lines) == 2 + 4 + 1
    assert len({len(line) for line in lines[:-1]}) == 1
    assert "speed-up" in lines[0]
    assert lines[2].startswith("full")


def test_the_result_goes_to_json(small):
    facts = json.loads(json.dumps(small[0].as_dict()))
    assert facts["rows"] == 27 * 40
    assert facts["comparisons"][0]["covariance"] == "full"


def test_without_scikit_learn(tmp_path):
    pytest.importorskip("matplotlib")
    result = demo.run(tmp_path / "alone.png", k=3, iterations=2, step=16, compare=False)
    assert all(c.sklearn_seconds is None for c in result.comparisons)
    assert "scikit-learn" not in demo.format_table(result.comparisons)
    assert (tmp_path / "alone.png").stat().st_size > 10_000


def test_without_picture():
    assert demo.run(None, k=2, iterations=1, step=32, compare=False).output is None


def test_pixel_features_are_lab_and_position():
    """White, mid-grey and the primaries, against published Lab values for D65."""
    image = np.array(
        [[[255, 255, 255], [119, 119, 119], [255, 0, 0]], [[0, 255, 0], [0, 0, 255], [0, 0, 0]]],
        dtype=np.uint8,
    )
    rows = demo.pixel_features(image)
    assert rows.shape == (6, 5)
    assert rows.dtype == np.float32
    lab = rows[:, :3] * [25, 12, 12] + [50, 0, 0]
    expected = [
        [100, 0, 0],
        [50.03, 0, 0],
        [53.24, 80.09, 67.20],
        [87.74, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(lab, expected, atol=0.06)
    np.testing.assert_allclose(
        rows[:, 3:], [[-1, -0.5], [0, -0.5], [1, -0.5], [-1, 0.5], [0, 0.5], [1, 0.5]]
    )


@pytest.mark.parametrize("wrong", [{"k": 0}, {"iterations": 0}, {"step": 0}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(fastgmm.errors.InputError, match="at least 1"):
        demo.run(None, **wrong)


def test_a_missing_folder_is_found_before_the_work():
    with pytest.raises(fastgmm.errors.InputError, match="no such folder"):
        demo.run("/nowhere/at/all/demo.png")


@pytest.mark.parametrize("module", ["matplotlib", "PIL"])
def test_a_missing_package_is_named(monkeypatch, module, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "fastgmm\[plot\]"'):
        demo.run(tmp_path / "demo.png", step=32)
