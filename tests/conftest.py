"""Fixtures that every test of the library shares."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

import oracle
from layouts import LAYOUTS

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _cuda():
    """Whether torch finds a CUDA device. Without one, GPU kernels run in Triton's interpreter."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


CUDA = _cuda()
# Read when triton is imported, so before any test.
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")
DEVICES = ("reference", "cpu")
# The device of tensors and that of the estimator that gets them.
TENSORS = (
    ("cpu", "reference"),
    pytest.param(
        ("cuda:0", "cuda"),
        marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="there is no CUDA device")],
    ),
)
DTYPES = (np.float32, np.float64)


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """The small products of the oracle gain nothing from BLAS threads, and wait on busy cores."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(20240613)


@pytest.fixture(params=[0, 1, 2])
def seed(request):
    return request.param


@pytest.fixture(params=oracle.STRUCTURES)
def structure(request):
    return request.param


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(params=[*DEVICES, *TENSORS], ids=lambda p: p if isinstance(p, str) else "-".join(p))
def place(request):
    """A device, or a pair of the device of tensors and that of the estimator that gets them."""
    if not isinstance(request.param, str):
        pytest.importorskip("torch")
    return request.param


@pytest.fixture(params=["numpy", "torch"])
def kind(request):
    """A function that returns an array's numbers as an array of one kind."""
    return np.asarray if request.param == "numpy" else pytest.importorskip("torch").tensor


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


@pytest.fixture(params=[*LAYOUTS, "memmap"])
def layout(request, tmp_path):
    """A function that returns an array with the same values laid out differently."""
    if request.param != "memmap":
        return LAYOUTS[request.param]

    def on_disk(x):
        path = tmp_path / f"rows-{x.dtype.name}-{x.shape[0]}x{x.shape[1]}.npy"
        np.save(path, x)
        return np.load(path, mmap_mode="r")

    return on_disk


# Where the kernels of GPUs run: on a device if there is one, else in Triton's interpreter.
WHERE = (
    pytest.param(
        "cpu", marks=pytest.mark.skipif(CUDA, reason="a device is there: no interpreter"),
        id="interpreter",
    ),
    pytest.param(
        "cuda:0",
        id="cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="there is no CUDA device")],
    ),
)  # fmt: skip


@pytest.fixture(params=WHERE)
def where(request):
    """The device whose tensors the kernels of GPUs get."""
    return pytest.importorskip("torch").device(request.param)


@pytest.fixture
def _unwritten_memory_is_nan(monkeypatch):
    """A kernel that leaves something out shows: what it should have written is NaN."""
    import torch

    plain = torch.empty

    def poisoned(*args, **kwargs):
        result = plain(*args, **kwargs)
        if result.dtype.is_floating_point:
            return result.fill_(torch.nan)
        return result.fill_(torch.iinfo(result.dtype).max // 2)

    monkeypatch.setattr(torch, "empty", poisoned)
