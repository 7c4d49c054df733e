"""The command line on files that need not fit in memory, alone and under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastgmm
import helpers
import streams
from fastgmm.cli import main

ARGUMENTS = ("-k", "3", "--seed", "0", "--max-iter", "5", "--tol", "0", "-q", "--json")


def fit(capsys, *arguments):
    assert main(["fit", *map(str, arguments), *ARGUMENTS]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def model():
    return fastgmm.GaussianMixture(3, random_state=0, max_iter=5, tol=0.0).fit(streams.rows())


@pytest.mark.parametrize("place", ["npy", "parquet", "parquet_folder"])
@pytest.mark.parametrize("size", ["700", "9kB"])
def test_rows_are_read_in_chunks(place, size, model, tmp_path, capsys):
    data = streams.PLACES[place](streams.rows(), tmp_path)
    told = fit(capsys, data, "--batch-size", size, "-o", tmp_path / "m.safetensors")
    assert told["rows"] == 2500
    assert told["log_likelihood"] == pytest.approx(model.lower_bound_, rel=1e-10)
    loaded = fastgmm.load(tmp_path / "m.safetensors")
    helpers.assert_close(loaded.means_, model.means_, 1e-9)
    assert (told["feature_names"] is None) == (place == "npy")


def test_a_checkpoint_is_gone_on_from(model, tmp_path, capsys):
    data = streams.npy(streams.rows(), tmp_path)
    for _ in range(2):
        told = fit(capsys, data, "--checkpoint", tmp_path / "fit.ck")
        assert told["log_likelihood"] == pytest.approx(model.lower_bound_, rel=1e-10)
    assert (tmp_path / "fit.ck").exists()
    assert main(["fit", str(data), "-k", "4", "--checkpoint", str(tmp_path / "fit.ck")]) == 1
    assert "written with max_iter=5, this fit has 100" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "many", "-5", "3TB"])
def test_sizes_that_are_none(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "x.npy", "-k", "3", f"--batch-size={size}"])
    assert "--batch-size" in capsys.readouterr().err


def test_folders_have_no_keys(tmp_path, capsys):
    assert main(["fit", str(tmp_path), "-k", "3", "--key", "a"]) == 1
    assert "--key" in capsys.readouterr().err


def test_torchrun_runs_it_unchanged(model, tmp_path):
    pytest.importorskip("torch")
    data = streams.npy(streams.rows(), tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr"),
            *("127.0.0.1", "--nproc-per-node=2", "-m", "fastgmm", "fit", str(data), *ARGUMENTS),
            *("-o", str(tmp_path / "m.safetensors")),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(told) == 1
    assert told[0]["log_likelihood"] == pytest.approx(model.lower_bound_, rel=1e-10)
    loaded = fastgmm.load(tmp_path / "m.safetensors")
    np.testing.assert_allclose(loaded.means_, model.means_, atol=1e-9)
