"""Fits that several processes share: started with torchrun on loopback, as users start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import fastgmm
import helpers
import streams
from fastgmm.distributed import Sharded
from fastgmm.errors import BackendUnavailableError

pytest.importorskip("torch")
PROGRAM = Path(__file__).parent / "programs" / "sharded.py"


def torchrun(folder, case, size, *, fails=False, **environment):
    """Run one case with some processes; what each of them told."""
    path = os.pathsep.join(p for p in (*sys.path, str(PROGRAM.parents[1])) if p)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr"),
            *("127.0.0.1", f"--nproc-per-node={size}", str(PROGRAM), str(folder), case),
        ],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr[-4000:]
    files = [folder / f"{case}-{rank}.json" for rank in range(size)]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def mixture(**params):
    return fastgmm.GaussianMixture(3, **{"random_state": 0, "tol": 0.0, "max_iter": 8} | params)


def assert_fit(found, model, tolerance=1e-9):
    helpers.assert_close(np.array(found["means"]), model.means_, tolerance)
    helpers.assert_close(np.array(found["covariances"]), model.covariances_, tolerance)
    helpers.assert_close(np.array(found["weights"]), model.weights_, tolerance)
    helpers.assert_close(found["bounds"], model.lower_bounds_, tolerance)


@pytest.fixture
def folder(tmp_path):
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    x = streams.rows(1201)
    np.save(tmp_path / "rows.npy", x)
    table = pa.table({name: x[:, j] for j, name in enumerate(streams.NAMES)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=150)
    (tmp_path / "damaged.ck").write_bytes(b"no checkpoint")
    return tmp_path


@pytest.mark.parametrize("size", [2, 4])
def test_shared_fits_are_those_of_all_rows(size, folder):
    x = streams.rows(1201)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, size=len(x))
    told = torchrun(folder, "fits", size)
    assert len(told) == size
    for structure in ("full", "tied"):
        model = mixture(covariance_type=structure, max_iter=3).fit(x)
        for found in told:
            assert_fit(found.pop(f"{structure} tensors"), model)
    for other in told[1:]:
        assert other == told[0], "every rank ends with the same bits"
    found = told[0]
    for structure in ("full", "tied", "diag", "tied_spherical"):
        model = mixture(covariance_type=structure).fit(x, sample_weight=weight)
        assert_fit(found[structure], model)
    for method in ("kmeans", "k-means++", "random", "random_from_data", "k-means||"):
        assert_fit(found[method], mixture(init_params=method).fit(x))
    plain = mixture().fit(x)
    for name in ("seeds", "rows.npy", "rows.parquet"):
        assert_fit(found[name], plain)
    for structure in ("full", "tied") if find_spec("triton") else ():
        model = mixture(covariance_type=structure, max_iter=2).fit(x[:90])
        assert_fit(found[f"{structure} on a device"], model)
    # The wire carries the statistics and no more.
    k, d = 3, 3
    assert found["bytes_per_iteration"] == 8 * (3 + k + k * d + k * d * d)
    end = mixture(tol=1e-9, max_iter=500).fit(x)
    assert found["warm_up"]["bounds"][-1] == pytest.approx(end.lower_bound_, abs=1e-6)


def test_case_67_errors_end_all_ranks_and_none_hangs(folder):
    told = torchrun(folder, "errors", 2)
    expected = {
        "nan": ("InputError", "Input X contains NaN"),
        "callback": ("KeyError", "boom"),
        "interrupt": ("KeyboardInterrupt", ""),
        "reader": ("OSError", "the disk is gone"),
        "file": ("FileNotFoundError", "missing.npy"),
        "value": ("InvalidParameterError", "max_iter"),
    }
    for name, (kind, text) in expected.items():
        own, other = told[1][name], told[0][name]
        assert own[0] == kind
        assert text in own[1]
        assert other[0] == "DistributedError"
        assert f"rank 1 failed: {kind}: " in other[1]
        assert text in other[1]
    for name, text in {
        "width": "rank 1 has rows with (features, dtype, names) (2,",
        "settings": "rank 1 fits with {'tol': 0.001}",
        "rank 0's checkpoint": "rank 1 fits with {'checkpoint': False}",
        "warm_up": "rank 1 fits with {'warm_up': 1}",
        "warm_start": "rank 1 fits with {'warm_start': False}",
        "stop": "3",
        "singular": "all 2 starts failed.\nstart 0: no step",
        **dict.fromkeys(("score", "predict", "bic", "partial_fit"), "this process's own rows"),
        "fit_predict": "this process's own rows",
        "none": "there are no rows",
    }.items():
        assert told[0][name] == told[1][name]
        assert text in told[0][name][1]
    assert told[0]["checkpoint"][0] == "CheckpointError"
    assert told[1]["checkpoint"][0] == "DistributedError"
    assert told[0]["good"] is None
    assert told[1]["good"] is None


def test_case_67_a_killed_rank_and_another_number_of_them(folder):
    whole = mixture().fit(streams.rows(1201))
    assert torchrun(folder, "resume", 2, fails=True, DIE="1") == []
    assert (folder / "fit.ck").exists()
    told = torchrun(folder, "resume", 3)
    assert len(told) == 3
    for found in told:
        assert found == told[0]
        assert found["first"] == 5
        assert_fit(found, whole)


def test_processes_must_know_each_other():
    with pytest.raises(BackendUnavailableError, match="torchrun"):
        Sharded(streams.rows(10))
