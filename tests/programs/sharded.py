"""What each rank of the tests of shared fits runs; results go to files that pytest reads."""

import json
import os
import signal
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import fastgmm
import streams
from fastgmm import stepwise
from fastgmm.distributed import Sharded, shard

warnings.simplefilter("ignore")
folder, case = Path(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
x = streams.rows(1201)
weight = np.random.default_rng(1).uniform(0.1, 3.0, size=len(x))


def mixture(**params):
    return fastgmm.GaussianMixture(3, **{"random_state": 0, "tol": 0.0, "max_iter": 8} | params)


def part(array, uneven):
    """Rows of this rank: shares of equal or of unequal length, none on the last rank."""
    edges = np.linspace(0, len(array), size + 1).astype(int)
    if uneven:
        edges = np.r_[0, np.linspace(7, len(array), size - 1).astype(int), len(array)]
    return array[edges[rank] : edges[rank + 1]]


def tell(**facts):
    (folder / f"{case}-{rank}.json").write_text(json.dumps(facts))


def learnt(model):
    return {
        "means": model.means_.tolist(),
        "covariances": model.covariances_.tolist(),
        "weights": model.weights_.tolist(),
        "bounds": model.lower_bounds_,
    }


def fits():
    """All structures and starts, on equal and unequal shares."""
    found = {}
    for structure in ("full", "tied", "diag", "tied_spherical"):
        rows = Sharded(part(x, uneven=True), part(weight, uneven=True))
        found[structure] = learnt(mixture(covariance_type=structure).fit(rows))
    for method in ("kmeans", "k-means++", "random", "random_from_data", "k-means||"):
        rows = Sharded(part(x, uneven=False))
        found[method] = learnt(mixture(init_params=method).fit(rows))
    # A seed of its own on every rank: that of the first counts.
    found["seeds"] = learnt(mixture(random_state=rank).fit(Sharded(part(x, uneven=False))))
    for name in ("rows.npy", "rows.parquet"):
        found[name] = learnt(mixture(batch_size=100).fit(shard(folder / name)))
    taken = []
    for max_iter in (3, 8):
        rows = Sharded(part(x, uneven=False))
        mixture(max_iter=max_iter).fit(rows)
        taken.append(rows.reduced_bytes)
    found["bytes_per_iteration"] = (taken[1] - taken[0]) / 5
    found["warm_up"] = learnt(
        mixture(tol=1e-9, max_iter=500).fit(Sharded(part(x, False)), warm_up=1)
    )
    # Tensors, and no row on the last rank, which computes with arrays.
    some = None if rank == size - 1 else torch.tensor(np.array_split(x, size - 1)[rank])
    for structure in ("full", "tied"):
        model = mixture(covariance_type=structure, device="reference", max_iter=3)
        found[f"{structure} tensors"] = learnt(model.fit(Sharded(some)))
    # Arrays whose sums are tensors, and again no row on the last of four ranks.
    device = "cuda" if torch.cuda.is_available() else "interpreter"
    for structure in ("full", "tied") if find_spec("triton") else ():
        model = mixture(covariance_type=structure, device=device, max_iter=2)
        found[f"{structure} on a device"] = learnt(model.fit(Sharded(part(x[:90], uneven=True))))
    tell(**found)


def errors():
    """One rank cannot go on, for many reasons; the others must not wait for it."""
    last, told = size - 1, {}

    def attempt(name, fit):
        try:
            fit()
            told[name] = None
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            told[name] = [type(error).__name__, str(error)]

    def boom(state):
        if rank == last and state.iteration == 3:
            raise KeyError("boom")

    def interrupt(state):
        if rank == last and state.iteration == 2:
            raise KeyboardInterrupt

    def breaks():
        yield x[:300]
        if rank == last and broken:
            raise OSError("the disk is gone")
        yield x[300:600]

    def breaks_later(state):
        broken.append(state)

    def fit(**arguments):
        return mixture().fit(Sharded(x[rank::size]), **arguments)

    def counted(**arguments):
        raise KeyError(fit(**arguments).n_iter_)

    def singular(*args, **kwargs):
        raise fastgmm.errors.SingularCovarianceError("no step")

    fitted = mixture().fit(x)
    warm = mixture(warm_start=True)
    if rank == 0:
        warm.fit(x)
    bad = x[rank::size].copy()
    if rank == last:
        bad[3, 1] = np.nan
    width = x[:, :2] if rank == last else x
    path = folder / ("rows.npy" if rank != last else "missing.npy")
    broken = []
    attempt("nan", lambda: mixture().fit(Sharded(bad)))
    attempt("callback", lambda: mixture().fit(Sharded(x[rank::size]), callback=boom))
    attempt("interrupt", lambda: mixture().fit(Sharded(x[rank::size]), callback=interrupt))
    attempt("reader", lambda: mixture().fit(Sharded(breaks), callback=breaks_later))
    attempt("file", lambda: mixture().fit(Sharded(path)))
    attempt("width", lambda: mixture().fit(Sharded(width)))
    settings = {"tol": 1e-3 if rank == last else 0.0}
    attempt("settings", lambda: mixture(**settings).fit(Sharded(x[rank::size])))
    attempt("none", lambda: mixture().fit(Sharded(None)))
    attempt("checkpoint", lambda: mixture().fit(Sharded(x), checkpoint=folder / "damaged.ck"))
    attempt("rank 0's checkpoint", lambda: fit(checkpoint=None if rank else folder / "one.ck"))
    attempt("warm_up", lambda: fit(warm_up=rank))
    attempt("warm_start", lambda: warm.fit(Sharded(x[rank::size])))
    attempt("stop", lambda: counted(callback=lambda state: rank == 0 and state.iteration == 3))
    for method in ("score", "predict", "bic", "partial_fit", "fit_predict"):
        attempt(method, lambda method=method: getattr(fitted, method)(Sharded(x[rank::size])))
    advance, stepwise.advance = stepwise.advance, singular
    attempt("singular", lambda: mixture(n_init=2).fit(Sharded(x[rank::size]), warm_up=1))
    stepwise.advance = advance
    attempt("value", lambda: mixture(max_iter=-rank).fit(Sharded(x[rank::size])))
    attempt("good", lambda: mixture().fit(Sharded(x[rank::size])))
    tell(**told)


def resume():
    """A fit with a checkpoint; in its first life one rank is killed."""

    def die(state):
        if rank == size - 1 and state.iteration == 5 and os.environ.get("DIE") == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    seen = []

    def callback(state):
        seen.append(state.iteration)
        die(state)

    rows = Sharded(part(x, uneven=False))
    model = mixture().fit(rows, checkpoint=folder / "fit.ck", checkpoint_every=2, callback=callback)
    tell(first=seen[0], **learnt(model))


{"fits": fits, "errors": errors, "resume": resume}[case]()
dist.destroy_process_group()
