"""Save estimators to files and load them: safetensors and JSON, never pickle.

`fastgmm.model_file` has the format and all checks of what a file says; here are the estimator on
one side, and on the other the file system: reads that cannot be led astray, writes that are atomic.
"""

from __future__ import annotations

import errno
import inspect
import os
import stat
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgmm import covariance, model_file
from fastgmm.arrays import to_numpy, working_dtype
from fastgmm.atomic import replacing
from fastgmm.errors import InputError, ModelFileError
from fastgmm.model import MixtureModel
from fastgmm.model_file import BOUNDS, INIT, PARAMETERS, Document
from fastgmm.parameters import exact_weights

if TYPE_CHECKING:
    from fastgmm.mixture import GaussianMixture

__all__ = ["load", "save"]

PathLike = str | bytes | os.PathLike[str]


def save(estimator: GaussianMixture, path: PathLike) -> None:
    """Write an estimator, fitted or not, to a safetensors file.

    The file is written beside its destination, synced and moved into place: whatever interrupts
    the save, ``path`` holds either what it held before or the whole new model. (A process killed
    outright can leave a hidden ``.fastgmm.<random>.tmp`` beside it.)

    Parameters
    ----------
    estimator : GaussianMixture
        The estimator. A ``random_state`` that is a generator cannot be stored; None is stored in
        its place, with a UserWarning.
    path : str or os.PathLike
        The file. Its folder must exist; an existing file is replaced, a link is followed.

    Raises
    ------
    InputError
        The estimator holds something that `load` would refuse, such as NaN in its means.
    OSError
        The file cannot be written; the subclass and the path say why.

    See Also
    --------
    load : The way back.
    """
    data = model_file.encode(_document(estimator))
    try:
        # What load would refuse must not replace a file that it takes.
        _restore(model_file.decode(data, _defaults()))
    except ModelFileError as error:
        raise InputError(f"save: load would refuse this estimator: {error}") from None
    _write(os.fsdecode(path), data)


def load(path: PathLike) -> GaussianMixture:
    """Read an estimator from a file that `save` wrote.

    Everything in the file is checked before an estimator is built from it: sizes, names, shapes,
    types, and that the numbers are a mixture. A file may therefore come from anywhere. A
    UserWarning tells when another major or minor version wrote it.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    GaussianMixture
        The estimator, fitted if it was fitted when it was saved.

    Raises
    ------
    ModelFileError
        The file is damaged, inconsistent, or not a model of fastgmm.
    OSError
        The file cannot be read; the subclass and the path say why.

    See Also
    --------
    save : The way there.
    """
    name = os.fsdecode(path)
    try:
        document = model_file.decode(_read(name), _defaults())
        estimator = _restore(document)
    except ModelFileError as error:
        raise ModelFileError(
            f"load {_show(name)}: {error}. The file is damaged or not a model of fastgmm; "
            "save the model again"
        ) from None
    current = _version()
    if document.version.split(".")[:2] != current.split(".")[:2]:
        warnings.warn(
            f"The model was saved by fastgmm {document.version} and loaded by {current}; results "
            "may differ. Save it again with this version once it is checked.",
            UserWarning,
            stacklevel=3,
        )
    return estimator


# The estimator. Its module imports this one to save, so it is imported when called.


def _version() -> str:
    import fastgmm

    return fastgmm.__version__


def _defaults() -> dict[str, Any]:
    from fastgmm.mixture import GaussianMixture

    parameters = inspect.signature(GaussianMixture).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _document(estimator: GaussianMixture) -> Document:
    from fastgmm.mixture import GaussianMixture

    if not isinstance(estimator, GaussianMixture):
        raise InputError(
            f"save: expected a fastgmm.GaussianMixture, got {type(estimator).__name__}; "
            "GaussianMixture.from_sklearn takes over a model of scikit-learn"
        )
    tensors: dict[str, np.ndarray] = {}
    params: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=False).items():
        if name not in INIT:
            params[name] = _plain(name, value)
        elif value is not None:
            array = to_numpy(value)
            if name == "weights_init" and array.dtype == np.float32:
                # The sum of rounded weights is further from 1 than float64 may be.
                array = exact_weights(array, len(array))
            tensors[INIT[name]] = np.array(array, dtype=np.float64, order="C")
    if not hasattr(estimator, "means_"):
        return Document(_version(), params, None, tensors)
    # What the estimator computes with; its attributes are that in the precision of the data.
    model = estimator._current_model().on_host()
    for name in PARAMETERS:
        tensors[name] = np.array(getattr(model, name), dtype=np.float64, order="C")
    for name in BOUNDS:
        tensors[name] = np.array(getattr(estimator, name + "_"), dtype=np.float64)
    names = getattr(estimator, "feature_names_in_", None)
    fit = {
        "backend": str(estimator.backend_),
        "converged": bool(estimator.converged_),
        "dtype": working_dtype(estimator.means_.dtype).name,
        "feature_names": None if names is None else [str(name) for name in names],
        "n_iter": int(estimator.n_iter_),
        "n_jitter": int(estimator.n_jitter_),
    }
    return Document(_version(), params, fit, tensors)


def _plain(name: str, value: Any) -> bool | int | float | str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if name == "random_state":
        warnings.warn(
            f"save: random_state is a {type(value).__name__}, which a model file cannot hold; "
            "None is stored in its place. An int would be kept.",
            UserWarning,
            stacklevel=5,
        )
        return None
    raise InputError(
        f"save: parameter {name!r} should be None, a bool, a number or a str, "
        f"got {type(value).__name__}"
    )


def _restore(document: Document) -> GaussianMixture:
    from fastgmm.mixture import GaussianMixture

    tensors, fit = document.tensors, document.fit
    starts = {name: tensors.get(key) for name, key in INIT.items()}
    estimator = GaussianMixture(**{**document.params, **starts})
    try:
        estimator._check_settings()
    except ValueError as error:
        raise ModelFileError(f"expected parameters that can be used, got: {error}") from None
    if fit is None:
        return estimator
    # Not from_parameters, which chooses a device: a model from a GPU must load without one.
    structure = covariance.get(estimator.covariance_type)
    weights, means, covariances, factors = (tensors[name] for name in PARAMETERS)
    model = MixtureModel(weights, means, covariances, factors, structure)
    estimator._publish(model, np.dtype(fit["dtype"]), None)
    if fit["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(fit["feature_names"], dtype=object)
    estimator.backend_ = fit["backend"]
    estimator.converged_ = fit["converged"]
    estimator.n_iter_ = fit["n_iter"]
    estimator.n_jitter_ = fit["n_jitter"]
    estimator.lower_bound_ = float(tensors["lower_bound"])
    estimator.lower_bounds_ = tensors["lower_bounds"].tolist()
    return estimator


# The file system.


def _show(path: str) -> str:
    """The path, in characters that any terminal can print."""
    return ascii(path) if not path.isprintable() else repr(path)


def _error(error: OSError, path: str) -> OSError:
    """The same error about the user's path; OSError picks the subclass from the number."""
    return OSError(error.errno, error.strerror or str(error), path)


def _check_path(path: str) -> None:
    # open() raises ValueError for these, which says nothing of files.
    if "\0" in path:
        raise OSError(errno.EINVAL, "A path cannot hold a zero byte", path)


def _read(path: str) -> bytes:
    _check_path(path)
    try:
        # A pipe or a device would block or never end; checked before it is opened.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            # Before the rest is read: a large file of another kind costs no memory.
            head = prefix + file.read(model_file.header_size(prefix, size))
            model_file.check_size(head, size)
            return head + file.read()
    except OSError as error:
        raise _error(error, path) from error


def _write(path: str, data: bytes) -> None:
    _check_path(path)
    if os.path.isdir(os.path.realpath(path)) or path.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise _error(error, path) from error
