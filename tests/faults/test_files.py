"""Cases 63 and 64: model files that are absent, out of reach or cut short. 62 is beside it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm import GaussianMixture
from fastgmm.errors import ModelFileError

ROOT = Path(__file__).resolve().parents[2]


def fitted(structure="full", dtype=np.float64):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 2)) + 4 * rng.integers(0, 2, size=(50, 1))).astype(dtype)
    return GaussianMixture(3, covariance_type=structure, random_state=0, max_iter=3).fit(x)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# ---- 63: the path


def is_about(caught, path):
    assert caught.value.filename == str(path)
    assert str(path) in str(caught.value)


def test_63_absent(path):
    for target in (path, path / "below"):
        with pytest.raises(FileNotFoundError) as caught:
            fastgmm.load(target)
        is_about(caught, target)
    with pytest.raises(FileNotFoundError) as caught:
        GaussianMixture().save(path / "below")
    is_about(caught, path / "below")


def test_63_folder(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        fastgmm.load(tmp_path)
    is_about(caught, tmp_path)
    with pytest.raises(IsADirectoryError) as caught:
        GaussianMixture().save(tmp_path)
    is_about(caught, tmp_path)
    with pytest.raises(IsADirectoryError):
        GaussianMixture().save(str(tmp_path / "new") + os.sep)
    assert list(tmp_path.iterdir()) == []


def test_63_a_file_as_folder(path):
    path.touch()
    for call in (fastgmm.load, GaussianMixture().save):
        with pytest.raises(NotADirectoryError) as caught:
            call(path / "below")
        is_about(caught, path / "below")


def test_63_zero_in_the_path(path):
    bad = f"{path}\0.txt"
    for call in (fastgmm.load, GaussianMixture().save):
        with pytest.raises(OSError, match="zero byte") as caught:
            call(bad)
        assert caught.value.filename == bad


def test_63_path_that_is_no_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"
    try:
        GaussianMixture(2).save(name)
    except OSError:
        pytest.skip("the file system takes Unicode only")
    assert fastgmm.load(name).n_components == 2
    Path(os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"udcff"):
        fastgmm.load(name)


def test_63_path_too_long(tmp_path):
    target = tmp_path / ("x" * 300)
    for call in (fastgmm.load, GaussianMixture().save):
        with pytest.raises(OSError, match="too long") as caught:
            call(target)
        is_about(caught, target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
class TestPosix:
    def test_63_links_that_lead_nowhere(self, path, tmp_path):
        path.symlink_to(path)
        with pytest.raises(OSError, match="symbolic links"):
            fastgmm.load(path)
        dangling = tmp_path / "dangling"
        dangling.symlink_to(tmp_path / "absent" / "model")
        with pytest.raises(FileNotFoundError) as caught:
            fastgmm.load(dangling)
        is_about(caught, dangling)
        with pytest.raises(FileNotFoundError) as caught:
            GaussianMixture().save(dangling)
        is_about(caught, dangling)

    def test_63_pipe_does_not_block(self, path):
        os.mkfifo(path)
        with pytest.raises(OSError, match="Not a regular file") as caught:
            fastgmm.load(path)
        is_about(caught, path)

    def test_63_device(self):
        with pytest.raises(OSError, match="Not a regular file"):
            fastgmm.load("/dev/zero")

    @pytest.mark.skipif(
        hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read and write everything"
    )
    def test_63_no_permission(self, path, tmp_path):
        fitted().save(path)
        path.chmod(0)
        with pytest.raises(PermissionError) as caught:
            fastgmm.load(path)
        is_about(caught, path)
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError) as caught:
            fitted().save(path)
        is_about(caught, path)
        tmp_path.chmod(0o700)


# ---- 64: a save that does not end


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_64_failure_keeps_the_old_file(path, monkeypatch, function):
    fitted().save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        fitted("diag").save(path)
    is_about(caught, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_64_interrupt_keeps_the_old_file(path, monkeypatch):
    fitted().save(path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted("diag").save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_64_the_data_is_on_disk_before_the_name(path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), sync(file))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a))[1])
    fitted().save(path)
    assert calls[:2] == ["fsync", "replace"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_64_killed_between_write_and_replace(path):
    fitted().save(path)
    before = path.read_bytes()
    code = """
import os, sys, time
import fastgmm
def stay(*_):
    print("written", flush=True)
    time.sleep(600)
os.replace = stay
fastgmm.GaussianMixture(5).save(sys.argv[1])
"""
    search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": search},
    ) as process:
        assert process.stdout.readline().strip() == "written"
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert fastgmm.load(path).n_components == 3
    fitted("diag").save(path)
    assert fastgmm.load(path).covariance_type == "diag"


def test_64_savers_side_by_side(path):
    """Readers see one whole model or the other, however many write."""
    code = """
import sys
import fastgmm
for _ in range(50):
    fastgmm.GaussianMixture(int(sys.argv[2])).save(sys.argv[1])
"""
    GaussianMixture(1).save(path)
    search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(k)],
            env=os.environ | {"PYTHONPATH": search},
        )
        for k in (2, 3)
    ]
    try:
        while any(writer.poll() is None for writer in writers):
            assert fastgmm.load(path).n_components in (1, 2, 3)
            time.sleep(0.001)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert list(path.parent.iterdir()) == [path]
