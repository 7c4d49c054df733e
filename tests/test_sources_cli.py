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
from fastgmm import cli
from fastgmm.backends.cpu import CPUBackend
from fastgmm.cli import main
from fastgmm.errors import InputError

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
    assert told["lower_bound"] == pytest.approx(model.lower_bound_, rel=1e-10)
    loaded = fastgmm.load(tmp_path / "m.safetensors")
    helpers.assert_close(loaded.means_, model.means_, 1e-9)
    assert (told["feature_names"] is None) == (place == "npy")


def test_a_checkpoint_is_gone_on_from(model, tmp_path, capsys):
    data = streams.npy(streams.rows(), tmp_path)
    for _ in range(2):
        told = fit(capsys, data, "--checkpoint", tmp_path / "fit.ck")
        assert told["lower_bound"] == pytest.approx(model.lower_bound_, rel=1e-10)
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
    assert told[0]["lower_bound"] == pytest.approx(model.lower_bound_, rel=1e-10)
    loaded = fastgmm.load(tmp_path / "m.safetensors")
    np.testing.assert_allclose(loaded.means_, model.means_, atol=1e-9)


@pytest.mark.parametrize(("device", "taken"), [("cuda", [1]), ("cuda:0", []), ("cpu", [])])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(device, taken, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _: None)
    monkeypatch.setattr(cli.atexit, "register", lambda _: None)
    monkeypatch.setattr(cli, "shard", lambda _: (_ for _ in ()).throw(InputError("as far as here")))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_RANK", "3")
    data = streams.npy(streams.rows(), tmp_path)
    assert main(["fit", str(data), "--device", device, *ARGUMENTS]) == 1
    assert seen == taken


def call(capsys, *arguments):
    assert main([*map(str, arguments), "-q", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", skiprows=1)
    return pytest.importorskip("pandas").read_parquet(path).to_numpy()


@pytest.mark.parametrize("place", ["npy", "parquet", "parquet_folder"])
@pytest.mark.parametrize("kind", [".npy", ".parquet", ".csv"])
def test_scores_and_labels_are_written_as_they_come(
    place, kind, model, tmp_path, capsys, monkeypatch
):
    x = streams.rows()
    data = streams.PLACES[place](x, tmp_path)
    model.save(tmp_path / "m.safetensors")
    sizes, compute = [], CPUBackend.score_samples
    monkeypatch.setattr(
        CPUBackend, "score_samples", lambda s, p, x: sizes.append(len(x)) or compute(s, p, x)
    )
    out, chunks = (
        tmp_path / f"out{kind}",
        () if place == "parquet_folder" else ("--batch-size", 700),
    )
    told = call(capsys, "score", tmp_path / "m.safetensors", data, *chunks, "-o", out)
    assert sizes == ([700, 700, 700, 400] if chunks else [2500])
    assert told["rows"] == 2500
    assert told["log_likelihood"] == pytest.approx(model.score(x), rel=1e-12)
    assert told["bic"] == pytest.approx(model.bic(x), rel=1e-12)
    assert told["aic"] == pytest.approx(model.aic(x), rel=1e-12)
    np.testing.assert_allclose(read(out).ravel(), model.score_samples(x), rtol=1e-14)
    told = call(capsys, "predict", tmp_path / "m.safetensors", data, *chunks, "-o", out)
    assert told["counts"] == np.bincount(model.predict(x)).tolist()
    np.testing.assert_array_equal(read(out).ravel(), model.predict(x))
    told = call(capsys, "predict", tmp_path / "m.safetensors", data, *chunks, "--proba", "-o", out)
    assert told["counts"] == np.bincount(model.predict(x)).tolist()
    np.testing.assert_allclose(read(out), model.predict_proba(x), rtol=1e-14)


def test_columns_of_a_folder_are_found_by_name(tmp_path, capsys):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x = streams.rows()
    folder = streams.parquet_folder(x, tmp_path)
    fit(capsys, folder, "-o", tmp_path / "m.safetensors")
    (tmp_path / "other").mkdir()
    more = {"extra": x[:, 0], "c": x[:, 2], "b": x[:, 1], "a": x[:, 0]}
    pq.write_table(pa.table(more), tmp_path / "other" / "0.parquet")
    told = [
        call(capsys, "score", tmp_path / "m.safetensors", data)["log_likelihood"]
        for data in (folder, tmp_path / "other")
    ]
    assert told[0] == pytest.approx(told[1], rel=1e-14)
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "other" / "0.parquet")
    assert main(["score", str(tmp_path / "m.safetensors"), str(tmp_path / "other")]) == 1
    assert "no column ['c']" in capsys.readouterr().err


def test_weights_of_rows_that_are_read_in_chunks(model, tmp_path, capsys):
    data = streams.npy(streams.rows(), tmp_path)
    weights = np.random.default_rng(0).integers(4, size=2500)
    np.save(tmp_path / "w.npy", weights)
    model.save(tmp_path / "m.safetensors")
    line = ("score", tmp_path / "m.safetensors", data, "--weights", tmp_path / "w.npy")
    whole, chunks = call(capsys, *line), call(capsys, *line, "--batch-size", "9kB")
    for name in ("rows", "log_likelihood", "aic", "bic"):
        assert chunks[name] == pytest.approx(whole[name], rel=1e-12)
    np.save(tmp_path / "twice.npy", np.repeat(streams.rows(), weights, axis=0))
    twice = call(capsys, "score", tmp_path / "m.safetensors", tmp_path / "twice.npy")
    for name in ("log_likelihood", "aic", "bic"):
        assert chunks[name] == pytest.approx(twice[name], rel=1e-12)


def test_labels_on_stdout_have_one_header(model, tmp_path, capsys):
    data = streams.npy(streams.rows(), tmp_path)
    model.save(tmp_path / "m.safetensors")
    arguments = ["predict", str(tmp_path / "m.safetensors"), str(data), "--batch-size", "300", "-q"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.split()
    assert lines[0] == "label"
    np.testing.assert_array_equal(np.array(lines[1:], int), model.predict(streams.rows()))


@pytest.mark.parametrize("command", ["score", "predict"])
def test_chunks_have_no_keys_and_a_failure_leaves_the_old_output(command, model, tmp_path, capsys):
    data = streams.npy(streams.rows(), tmp_path)
    model.save(tmp_path / "m.safetensors")
    out = tmp_path / "out.npy"
    line = [command, str(tmp_path / "m.safetensors"), str(tmp_path), "--dtype", "float32"]
    assert main(line) == 1
    assert "--dtype cannot be had of folders" in capsys.readouterr().err
    out.write_bytes(b"old")
    bad = streams.rows()
    bad[2000, 1] = np.nan
    np.save(data, bad)
    line = [command, str(tmp_path / "m.safetensors"), str(data), "--batch-size", "300"]
    assert main([*line, "-o", str(out)]) == 1
    assert "row 2000 of all" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
