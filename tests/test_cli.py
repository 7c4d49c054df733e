"""Tests of the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import fastgmm
from fastgmm import cli, tables


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-3, 1, (120, 2)), rng.normal(3, 0.5, (80, 2))])


@pytest.fixture
def folder(tmp_path, rows, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows)
    np.savez("x.npz", a=rows, b=rows[:50])
    (tmp_path / "folder.safetensors").mkdir()
    np.savetxt("x.csv", rows, delimiter=",", header="height,girth", comments="")
    return tmp_path


@pytest.fixture
def model(folder):
    line = "fit x.csv -k 2 --seed 0 -q -o model.safetensors"
    assert cli.main(line.split()) == 0
    return "model.safetensors"


def call(capsys, line, code=0):
    capsys.readouterr()
    assert cli.main(line.split()) == code
    return capsys.readouterr()


def fails(capsys, line, pattern, code=1):
    """The command fails with one line on stderr and nothing on stdout."""
    out, err = call(capsys, line, code)
    assert out == ""
    assert re.fullmatch(r"fastgmm: error: [^\n]*\n", err), err
    assert re.search(pattern, err), err


# fit


def test_fit_prints_one_json_object_and_saves_the_model(folder, rows, capsys):
    out, err = call(capsys, "fit x.npy -k 2 --seed 0 --json -o model.safetensors")
    facts = json.loads(out)
    assert facts["rows"] == 200
    assert facts["converged"] is True
    assert sorted(facts["weights"]) == pytest.approx([0.4, 0.6], abs=1e-6)
    assert "200 rows, 2 features, float64" in err
    loaded = fastgmm.load("model.safetensors")
    assert loaded.lower_bound_ == facts["lower_bound"]
    assert "log_likelihood" not in facts


def test_fit_is_that_of_the_estimator(folder, rows, capsys):
    line = "fit x.npy -k 3 --covariance diag --max-iter 7 --tol 0 --reg-covar 1e-3 --init random"
    call(capsys, line + " --n-init 2 --seed 5 -q -o m.safetensors")
    same = fastgmm.GaussianMixture(
        3,
        covariance_type="diag",
        max_iter=7,
        tol=0,
        reg_covar=1e-3,
        init_params="random",
        n_init=2,
        random_state=5,
    ).fit(rows)
    loaded = fastgmm.load("m.safetensors")
    np.testing.assert_array_equal(loaded.means_, same.means_)
    np.testing.assert_array_equal(loaded.covariances_, same.covariances_)


def test_quiet_fit_says_nothing_on_stderr(folder, capsys):
    out, err = call(capsys, "fit x.npy -k 2 --seed 0 -q")
    assert err == ""
    assert "lower_bound" in out
    assert "Initialization" not in out


@pytest.mark.parametrize(
    "structure", ["full", "tied", "diag", "spherical", "tied_diag", "tied_spherical"]
)
def test_every_structure_fits_scores_and_predicts(folder, capsys, structure):
    call(capsys, f"fit x.npy -k 2 --seed 0 --covariance {structure} -q -o m.safetensors")
    assert json.loads(call(capsys, "score m.safetensors x.npy --json").out)["rows"] == 200
    counts = json.loads(call(capsys, "predict m.safetensors x.npy --json").out)["counts"]
    assert sorted(counts) == [80, 120]


def test_float32_and_npz_and_columns(folder, capsys):
    out, err = call(
        capsys, "fit x.npz --key b -k 1 --dtype float32 --columns 1 --json -o m.safetensors"
    )
    assert json.loads(out)["features"] == 1
    assert "50 rows, 1 features, float32" in err
    assert fastgmm.load("m.safetensors").means_.dtype == np.float32


def test_names_of_a_csv_file_become_feature_names(folder, capsys):
    facts = json.loads(
        call(capsys, "fit x.csv -k 2 --columns girth,height --json -o m.safetensors").out
    )
    assert facts["feature_names"] == ["girth", "height"]
    assert list(fastgmm.load("m.safetensors").feature_names_in_) == ["girth", "height"]


def test_weights_of_zero_and_two_remove_and_duplicate_rows(folder, rows, capsys):
    weights = np.where(np.arange(200) < 120, 2.0, 0.0)
    np.save("w.npy", weights)
    facts = json.loads(call(capsys, "fit x.npy -k 1 --weights w.npy --json -o m.safetensors").out)
    assert facts["rows"] == 200
    np.testing.assert_allclose(fastgmm.load("m.safetensors").means_[0], rows[:120].mean(axis=0))
    weighted = json.loads(call(capsys, "score m.safetensors x.npy --weights w.npy --json").out)
    np.save("twice.npy", np.concatenate([rows[:120]] * 2))
    twice = json.loads(call(capsys, "score m.safetensors twice.npy --json").out)
    for name in ("log_likelihood", "aic", "bic"):
        assert weighted[name] == pytest.approx(twice[name])


def test_warnings_are_one_line_and_in_the_json(folder, capsys):
    out, err = call(capsys, "fit x.npy -k 2 --max-iter 1 --tol 0 --seed 0 -q --json")
    assert err.startswith("fastgmm: warning: ")
    assert "converge" in json.loads(out)["warnings"][0]


# score and predict


def test_score_gives_what_the_estimator_gives(model, rows, capsys):
    facts = json.loads(call(capsys, f"score {model} x.npy --json -o s.npy").out)
    loaded = fastgmm.load(model)
    loaded.__dict__.pop("feature_names_in_")
    assert facts["log_likelihood"] == pytest.approx(loaded.score(rows))
    assert facts["aic"] == pytest.approx(loaded.aic(rows))
    assert facts["bic"] == pytest.approx(loaded.bic(rows))
    np.testing.assert_array_equal(np.load("s.npy"), loaded.score_samples(rows))


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_predict_writes_labels_and_probabilities(model, rows, capsys, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    loaded = fastgmm.load(model)
    loaded.__dict__.pop("feature_names_in_")
    out, err = call(capsys, f"predict {model} x.csv -o labels.{suffix} -q")
    assert err == ""
    assert re.search(r"counts +\d+ \d+", out)
    np.testing.assert_array_equal(
        tables.read_vector(f"labels.{suffix}") if suffix != "npy" else np.load("labels.npy"),
        loaded.predict(rows),
    )
    call(capsys, f"predict {model} x.csv --proba -o proba.{suffix}")
    table = tables.read(f"proba.{suffix}")
    np.testing.assert_allclose(table.values, loaded.predict_proba(rows), rtol=1e-12)
    if suffix != "npy":
        assert table.names == ("component_0", "component_1")


def test_predict_without_output_writes_csv_to_stdout(model, capsys):
    lines = call(capsys, f"predict {model} x.csv -q").out.splitlines()
    assert lines[0] == "label"
    assert sorted({lines[1], lines[-1]}) == ["0", "1"]
    assert len(lines) == 201


def test_columns_are_found_by_the_names_in_the_model(model, rows, capsys):
    np.savetxt(
        "more.csv",
        np.c_[rows[:, 1], np.arange(200), rows[:, 0]],
        delimiter=";",
        header="girth;id;height",
        comments="",
    )
    expected = call(capsys, f"score {model} x.csv --json").out
    assert json.loads(call(capsys, f"score {model} more.csv --json").out) == json.loads(expected)
    fails(
        capsys,
        f"score {model} more.csv --columns height,width -q",
        "no column 'width'; the file has columns girth, id, height",
    )
    np.savetxt("other.csv", rows, delimiter=",", header="height,width", comments="")
    fails(capsys, f"predict {model} other.csv -q", "no column 'girth'")


# errors


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("fit missing.npy -k 2", "missing.npy: No such file"),
        ("fit x.npy -k 0 -q", "n_components"),
        ("fit x.npy -k 300 -q", "300"),
        ("fit x.npy -k 2 -q --device cuda", "cuda"),
        ("fit x.npy -k 2 -q --tol -1", "tol"),
        ("fit x.npz -k 2 -q", "2 arrays; choose one of them by its key: a, b"),
        ("fit x.npz --key c -k 2 -q", "no array 'c'"),
        ("fit x.npy --key c -k 2 -q", "npz"),
        ("fit x.npy --columns 5 -k 2 -q", "no column '5'; the file has columns 0 to 1"),
        ("fit x.npy -k 2 -o model.pkl -q", "expected the output to end in .safetensors"),
        ("fit x.npy -k 2 -o none/m.safetensors -q", "no such folder"),
        ("fit x.npy -k 2 -o folder.safetensors -q", "is a folder"),
        ("fit x.txt -k 2 -q", "unknown kind of file"),
        ("score x.npy x.npy -q", "x.npy"),
        ("predict none.safetensors x.npy -q", "none.safetensors: No such file"),
    ],
)
def test_errors_are_one_line(folder, capsys, line, pattern):
    fails(capsys, line, pattern)


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("", "COMMAND"),
        ("fit x.npy", "-k"),
        ("fit x.npy -k two", "invalid int value: 'two'"),
        ("fit x.npy -k 2 --covariance round", "invalid choice: 'round'"),
        ("fit x.npy -k 2 --columns a,,b", "commas between"),
        ("bake", "invalid choice"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(folder, capsys, line, pattern):
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"fastgmm: error: [^\n]*--help\)\n", err)
    assert pattern in err


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("nan.npy", "row 17, column 1"),
        ("nan.csv", "row 17, column 1 .'girth'."),
        ("nan.csv --columns girth,height", "row 17, column 0 .'girth'."),
    ],
)
def test_nan_is_named_by_its_place(folder, rows, capsys, line, pattern):
    broken = rows.copy()
    broken[17, 1] = np.nan
    np.save("nan.npy", broken)
    np.savetxt("nan.csv", broken, delimiter=",", header="height,girth", comments="")
    fails(capsys, f"fit {line} -k 2 -q", f"NaN.*{pattern}")


@pytest.mark.parametrize(
    ("error", "code", "pattern"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("8 GiB"), 1, "not enough memory: 8 GiB"),
        (
            OSError(28, "No space left on device", "model.safetensors"),
            1,
            "model.safetensors: No space left",
        ),
        (ValueError("one\n  two"), 1, "one two"),
    ],
)
def test_faults_during_a_fit_have_their_exit_codes(
    folder, capsys, monkeypatch, error, code, pattern
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(fastgmm.GaussianMixture, "fit", fail)
    fails(capsys, "fit x.npy -k 2 -q", pattern, code)


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    """Only what a user can do something about becomes one line."""
    monkeypatch.setitem(cli.COMMANDS, "info", lambda args: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["info"])


# info, and the process as a whole


def test_info_names_versions_processor_and_gpu(capsys):
    facts = json.loads(call(capsys, "info --json").out)
    assert fastgmm.__version__ in facts["fastgmm"]
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["threads"]["layer"]
    assert facts["cpu"]["simd"]
    assert facts["gpu"]["devices"] or facts["gpu"]["reason"]
    text = call(capsys, "info").out
    for name in (
        "numpy",
        "numba",
        "llvmlite",
        "scikit-learn",
        "torch",
        "cpu model",
        "gpu",
        "cache",
    ):
        assert re.search(rf"^{name}", text, re.MULTILINE), name


def test_demo_prints_the_table_or_json(folder, capsys):
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib")
    line = "demo --step 32 -k 2 --iterations 2 --no-sklearn"
    out, err = call(capsys, line)
    assert "spherical" in out
    assert "warming up" in err
    assert (folder / "demo.png").exists()
    facts = json.loads(call(capsys, line + " --json -o other.png").out)
    assert facts["output"] == "other.png"


def test_the_process_ends_quietly_when_its_reader_has_gone(model):
    code = "import sys; from fastgmm.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", model, "x.csv", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert error == ""


def test_version_and_help(capsys):
    for option, text in (("--version", fastgmm.__version__), ("--help", "examples:")):
        with pytest.raises(SystemExit) as stop:
            cli.main([option])
        assert stop.value.code == 0
        assert text in capsys.readouterr().out
