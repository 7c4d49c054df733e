"""Fault cases 53, 59, 60, 61: the environment, as far as a CPU goes."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import run_python

import fastgmm
import helpers
import oracle
from fastgmm.errors import BackendUnavailableError

# The smallest fit that compiles a kernel.
SMALL_FIT = """
import numpy as np, warnings
warnings.simplefilter("ignore")
import fastgmm
x = np.random.default_rng(0).standard_normal((300, 2))
model = fastgmm.GaussianMixture.from_parameters(
    [0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0], covariance_type="spherical")
print(repr(float(model.score(x))))
"""


def small_score():
    x = np.random.default_rng(0).standard_normal((300, 2))
    means = np.array([[0.0, 0.0], [1.0, 1.0]])
    mixture = oracle.Mixture("spherical", np.array([0.5, 0.5]), means, np.array([1.0, 2.0]))
    return mixture.score_samples(x).mean()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_case_53_explicit_cuda_is_refused_with_a_reason(device):
    x = np.random.default_rng(0).standard_normal((20, 2))
    model = fastgmm.GaussianMixture(2, device=device)
    with pytest.raises(BackendUnavailableError, match=r"(?i)cuda") as caught:
        model.fit(x)
    assert len(str(caught.value)) > 40
    assert not hasattr(model, "means_")


def test_case_53_auto_says_what_ran_and_why():
    x = np.random.default_rng(0).standard_normal((20, 2))
    model = fastgmm.GaussianMixture(1, device="auto").fit(x)
    assert "cpu" in model.backend_
    assert len(model.backend_) > len("cpu")
    plain = fastgmm.GaussianMixture(1, device="reference").fit(x)
    assert "reference" in plain.backend_


def test_case_53_import_loads_nothing_optional():
    out = run_python(
        """
        import sys
        import fastgmm
        heavy = {"torch", "triton", "matplotlib", "dask"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert out.strip() == "[]"


def test_case_53_arrays_never_load_torch():
    out = run_python(
        SMALL_FIT
        + """
import sys
fastgmm.GaussianMixture(2, covariance_type="spherical", max_iter=1, device="reference").fit(x)
print(sorted({"torch", "triton", "array_api_compat"} & set(sys.modules)))
"""
    )
    assert out.strip().splitlines()[-1] == "[]"


def test_case_53_what_tensors_need_is_named(monkeypatch):
    torch = pytest.importorskip("torch")
    from fastgmm import arrays

    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    monkeypatch.setattr(arrays, "_torch", arrays._torch.__wrapped__)
    x = torch.tensor(np.random.default_rng(0).standard_normal((20, 2)))
    with pytest.raises(BackendUnavailableError, match=r"fastgmm\[torch\]"):
        fastgmm.GaussianMixture(1, device="reference").fit(x)
    # The kernels of the CPU need nothing of it.
    model = fastgmm.GaussianMixture(1).fit(x)
    assert isinstance(model.predict(x), torch.Tensor)


@pytest.mark.slow
def test_case_59_no_place_for_a_cache(tmp_path):
    # A file where the folder should be: even root cannot write below it.
    blocked = tmp_path / "file"
    blocked.write_text("")
    out = run_python(
        SMALL_FIT, NUMBA_CACHE_DIR=blocked / "cache", HOME=None, XDG_CACHE_HOME=blocked / "x"
    )
    assert float(out) == pytest.approx(small_score(), rel=1e-12)


@pytest.mark.slow
def test_case_59_two_processes_compile_at_once(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(run_python, SMALL_FIT, NUMBA_CACHE_DIR=tmp_path) for _ in range(2)]
    for job in jobs:
        assert float(job.result()) == pytest.approx(small_score(), rel=1e-12)
    # What they left behind serves a third.
    assert float(run_python(SMALL_FIT, NUMBA_CACHE_DIR=tmp_path)) == float(jobs[0].result())


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the sizes of files")
def test_case_59_a_full_disk_costs_the_cache_and_nothing_else(tmp_path):
    (tmp_path / "tiny.py").write_text(
        "from fastgmm_kernels.cpu.jit import kernel\n\n\n"
        "@kernel\ndef twice(x):\n    return 2.0 * x\n"
    )
    begin = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom tiny import twice\n"
    # Files can be made and not filled: that a limit on their size and a full disk have in common.
    full = (
        "import logging, resource, signal\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
    )
    place, cache = {"NUMBA_CACHE_DIR": tmp_path / "cache"}, tmp_path / "cache"
    out = run_python(begin + full + "print(twice(21.0))\n", **place)
    assert "neither kept nor taken" in out
    assert out.splitlines()[-1] == "42.0"
    assert not [p for p in cache.rglob("*") if p.is_file()]
    # With room again it is kept, and taken from there without a word.
    count = "print(twice(21.0), sum(twice.stats.cache_hits.values()))\n"
    assert run_python(begin + count, **place).split() == ["42.0", "0"]
    assert run_python(begin + full + count, **place).split() == ["42.0", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "before", ["model.score(np.tile(x, (400, 1)))", "import numba; numba.set_num_threads(1)"]
)
def test_case_60_fork_after_threads_have_started(before):
    out = run_python(
        SMALL_FIT
        + """
import multiprocessing, sys
warnings.simplefilter("ignore")

def child(queue):
    try:
        queue.put((float(model.score(np.tile(x, (400, 1)))), threads._process.forked))
    except RuntimeError as error:
        queue.put((f"refused: {error}", threads._process.forked))

from fastgmm import threads
context = multiprocessing.get_context("fork")
"""
        + before
        + """
assert not threads._process.forked
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
answer, forked = queue.get(timeout=60)
process.join(60)
print(process.exitcode, forked, answer)
"""
    )
    exit_code, forked, answer = out.strip().splitlines()[-1].split(" ", 2)
    assert exit_code == "0"
    assert forked == "True"
    assert answer.startswith("refused") or float(answer) == pytest.approx(small_score(), rel=1e-12)


def test_case_60_threads_may_call_at_once():
    # In a process of its own: where this fails it aborts.
    out = run_python(
        SMALL_FIT
        + """
from concurrent.futures import ThreadPoolExecutor
x = np.tile(x, (60, 1))
one = model.score_samples(x)

def work(seed):
    same = all((model.score_samples(x) == one).all() for _ in range(5))
    fit = fastgmm.GaussianMixture(3, covariance_type="spherical", random_state=0, max_iter=3, tol=0)
    return same, fit.fit(x).means_.tobytes()

with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(work, range(8)))
print(all(a[0] for a in answers), len({a[1] for a in answers}))
"""
    )
    assert out.strip().splitlines()[-1] == "True 1"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_case_60_thread_count_is_honoured(threads):
    out = run_python(
        SMALL_FIT
        + "import numba\nmodel.score(np.tile(x, (400, 1)))\nprint(numba.get_num_threads())",
        NUMBA_NUM_THREADS=threads,
    )
    score, count = out.split()
    assert float(score) == pytest.approx(small_score(), rel=1e-12)
    assert count == threads


def dispatchers():
    cpu = importlib.import_module("fastgmm_kernels.cpu")
    for info in pkgutil.walk_packages(cpu.__path__, "fastgmm_kernels.cpu."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            # A driver keeps one dispatcher per signature that it has compiled.
            compiled = getattr(value, "_compiled", None)
            for part in compiled.values() if isinstance(compiled, dict) else [value]:
                options = getattr(part, "targetoptions", None)
                if options is not None:
                    yield f"{info.name}.{name}", options


def test_case_61_no_fast_mathematics_that_deletes_nan_and_infinity():
    found = dict(dispatchers())
    assert len(found) > 5
    for name, options in found.items():
        flags = options.get("fastmath", False)
        assert flags is not True, name
        assert not {"fast", "nnan", "ninf"} & set(flags or ()), name


def test_case_61_infinities_survive_the_kernels(structure, dtype):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    weights = np.array([1.0, 0.0, 0.0])
    alone = oracle.Mixture(structure, weights, mixture.means, mixture.covariances)
    x = mixture.sample(np.random.default_rng(1), 300)[0].astype(dtype)
    model = helpers.fitted(alone, "cpu")
    assert np.isneginf(model.predict_log_proba(x)[:, 1:]).all()
    np.testing.assert_array_equal(model.predict(x), 0)
    assert np.isfinite(model.score_samples(x)).all()
