"""Checkpoints of a fit: one safetensors file, replaced as a whole, from which the fit goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from fastgmm.arrays import to_numpy
from fastgmm.atomic import replacing
from fastgmm.covariance import CovarianceStructure
from fastgmm.em import EMResult
from fastgmm.errors import CheckpointError, InputError
from fastgmm.model import ARRAYS, MixtureModel
from fastgmm.survey import Survey

FORMAT = "fastgmm-checkpoint"
FORMAT_VERSION = 1
# Means, variances and weights of the same rows, added in another order or by other processes.
_SAME = 1e-6


@dataclass
class Stage:
    """How far a fit has come.

    Parameters
    ----------
    init : int
        Number of the start under way.
    random_state : dict
        As ``RandomState.get_state(legacy=False)`` gives, for what is still to be drawn.
    model : MixtureModel or None
        After the iterations of ``bounds``; None if the start has not been made yet.
    bounds : list of float
        Lower bounds of this start's iterations.
    best : EMResult or None
        Of the starts before.
    failures : list of str
        What failed starts said.
    n_jitter : int
        Covariances repaired in this start's iterations.
    done : bool
        Whether ``best`` is the outcome.
    """

    init: int
    random_state: dict[str, Any]
    model: MixtureModel | None = None
    bounds: list[float] = field(default_factory=list)
    best: EMResult | None = None
    failures: list[str] = field(default_factory=list)
    n_jitter: int = 0
    done: bool = False


def data_facts(survey: Survey, projected: np.ndarray, dtype: np.dtype) -> dict[str, Any]:
    """What tells one set of rows from another; ``projected`` as the survey's function gives."""
    return {
        "n_rows": survey.n_read,
        "n_features": len(survey.mean),
        "dtype": dtype.name,
        "minimum": survey.minimum.tolist(),
        "maximum": survey.maximum.tolist(),
        "mean": survey.mean.tolist(),
        "variance": survey.variance.tolist(),
        "projected": projected.tolist(),
        "largest_weight": survey.largest,
        "weight": survey.weight,
    }


def digest(array: Any) -> str | None:
    """A short name of an array's numbers; None for None."""
    if array is None:
        return None
    numbers = np.ascontiguousarray(to_numpy(array), dtype=np.float64)
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


class Checkpoint:
    """Where the stages of one fit are kept.

    Parameters
    ----------
    path : path-like
    every : int
        Iterations between writes.
    settings : mapping
        What a fit that goes on must have in common with the one that wrote: names and plain values.
    data : mapping
        As :func:`data_facts` gives.
    structure : CovarianceStructure
    writes : bool
        Whether this process is the one that writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int,
        settings: Mapping[str, Any],
        data: Mapping[str, Any],
        structure: CovarianceStructure,
        writes: bool,
    ) -> None:
        self._path, self.every = Path(path), every
        # As they will be when they have been read again.
        self._settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self._data: dict[str, Any] = json.loads(json.dumps(dict(data)))
        self._structure, self._writes = structure, writes
        if not self._path.absolute().parent.is_dir():
            raise InputError(f"checkpoint: no such folder: {self._path.absolute().parent}")

    def write(self, stage: Stage) -> None:
        """Replace the file; where that fails the fit goes on with a warning."""
        if not self._writes:
            return
        try:
            with replacing(self._path) as file:
                file.write(self._encode(stage))
        except OSError as error:
            warnings.warn(
                f"checkpoint {self._path}: not written at iteration {len(stage.bounds)} of start "
                f"{stage.init}: {error.strerror or error}. The fit goes on; the file is as it was.",
                UserWarning,
                stacklevel=3,
            )

    def read(self) -> Stage | None:
        """The stage to go on from; None where there is no file.

        Raises
        ------
        CheckpointError
            If the file is damaged, or of other data or settings; the message says which.
        OSError
            If it cannot be read.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            arrays = {k: np.array(v) for k, v in safetensors.numpy.load(raw).items()}
            size = int.from_bytes(raw[:8], "little")
            document = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"][FORMAT])
            version = document["format_version"]
            if version != FORMAT_VERSION:
                raise self._refusal(f"it has format {version}, this fastgmm reads {FORMAT_VERSION}")
            self._compare(document)
            return self._stage(document["stage"], arrays)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise self._refusal(f"it is no checkpoint of fastgmm, or damaged ({error})") from error

    def _refusal(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint {self._path}: {reason}. Pass another path, or delete the file to begin "
            "anew."
        )

    def _compare(self, document: Mapping[str, Any]) -> None:
        for name in sorted(self._settings.keys() | document["settings"].keys()):
            was, now = document["settings"].get(name), self._settings.get(name)
            if was != now:
                raise self._refusal(f"it was written with {name}={was!r}, this fit has {now!r}")
        was, now = document["data"], self._data
        spread = np.sqrt(np.maximum(now["variance"], 0)) + np.spacing(np.abs(now["mean"]))
        units = {"mean": spread, "variance": spread**2}
        units |= {name: now[name] for name in ("largest_weight", "weight")}
        units["projected"] = 1 + np.abs(now["projected"])
        for name, value in now.items():
            if name in units:
                unit = units[name]
                same = len(np.ravel(was[name])) == len(np.ravel(value)) and bool(
                    np.all(np.abs(np.subtract(was[name], value)) <= _SAME * unit)
                )
            else:
                same = was[name] == value
            if not same:
                shown = f"{name} was {was[name]}, is {value}"
                raise self._refusal(f"it belongs to other data: {shown[:300]}")

    def _encode(self, stage: Stage) -> bytes:
        arrays: dict[str, np.ndarray] = {"bounds": np.array(stage.bounds)}
        if stage.model is not None:
            arrays |= _arrays_of(stage.model, "model")
        best = None
        if stage.best is not None:
            arrays |= _arrays_of(stage.best.model, "best")
            arrays["best.bounds"] = np.array(stage.best.lower_bounds)
            arrays["best.bound"] = np.array(stage.best.lower_bound)
            arrays["best.counts"] = np.array(to_numpy(stage.best.counts))
            best = {
                "converged": bool(stage.best.converged),
                "n_iter": stage.best.n_iter,
                "n_jitter": stage.best.n_jitter,
            }
        document = {
            "format_version": FORMAT_VERSION,
            "settings": self._settings,
            "data": self._data,
            "stage": {
                "init": stage.init,
                "begun": stage.model is not None,
                "random_state": _plain(stage.random_state),
                "best": best,
                "failures": stage.failures,
                "n_jitter": stage.n_jitter,
                "done": stage.done,
            },
        }
        return safetensors.numpy.save(arrays, {FORMAT: json.dumps(document)})

    def _stage(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Stage:
        best = None
        if facts["best"] is not None:
            best = EMResult(
                self._model(arrays, "best"),
                facts["best"]["converged"],
                facts["best"]["n_iter"],
                arrays["best.bounds"].tolist(),
                float(arrays["best.bound"]),
                arrays["best.counts"],
                facts["best"].get("n_jitter", 0),
            )
        return Stage(
            facts["init"],
            _unplain(facts["random_state"]),
            self._model(arrays, "model") if facts["begun"] else None,
            arrays["bounds"].tolist(),
            best,
            list(facts["failures"]),
            facts.get("n_jitter", 0),
            facts["done"],
        )

    def _model(self, arrays: Mapping[str, np.ndarray], prefix: str) -> MixtureModel:
        parts = {name: arrays[f"{prefix}.{name}"] for name in ARRAYS}
        n_features = self._data["n_features"]
        shape = (self._settings["n_components"], n_features)
        matrices = self._structure.shape(*shape)
        wanted = {"means": shape, "weights": shape[:1]}
        for name, array in parts.items():
            if array.shape != wanted.get(name, matrices) or not np.all(np.isfinite(array)):
                raise self._refusal(f"its {prefix}.{name} is damaged (shape {array.shape})")
        return MixtureModel(**parts, structure=self._structure)


def _arrays_of(model: MixtureModel, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": np.array(to_numpy(getattr(model, name))) for name in ARRAYS}


def random_stage(random_state: np.random.RandomState) -> dict[str, Any]:
    """The state of a random stream, to be kept."""
    state: Any = random_state.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise InputError(
            f"checkpoint: random_state is a Generator ({state['bit_generator']}), whose stream "
            "cannot be kept. Pass an int or a RandomState."
        )
    return state


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}}


def _unplain(state: Mapping[str, Any]) -> dict[str, Any]:
    key = np.array(state["state"]["key"], dtype=np.uint32)
    if key.shape != (624,) or not math.isfinite(state["gauss"]):
        raise KeyError("random_state")
    return {**state, "state": {**state["state"], "key": key}}
