"""Errors and warnings of fastgmm, one family under `FastGMMError`.

A message states four facts: what was being done, what was expected, what was got (shape, dtype,
device, index of the first bad row) and what to do about it.
`NotFittedError` and `ConvergenceWarning` are scikit-learn's own classes.
"""

__all__ = [
    "BackendUnavailableError",
    "CheckpointError",
    "DegenerateDataWarning",
    "DeviceMemoryError",
    "DistributedError",
    "EmptyComponentError",
    "FastGMMError",
    "InputError",
    "ModelFileError",
    "NotFiniteError",
    "PrecisionWarning",
    "SingularCovarianceError",
]


class FastGMMError(Exception):
    """Base class of every error that fastgmm raises itself."""


class InputError(FastGMMError, ValueError):
    """Data or a parameter cannot be used: wrong shape, type, range or content."""


class EmptyComponentError(InputError):
    """No row belongs to a component, and `empty="error"` was asked for, or to any component."""


class NotFiniteError(InputError):
    """A fit has led to NaN: its rows, their weights or its parameters are not finite."""


class SingularCovarianceError(FastGMMError, ValueError):
    """A covariance or precision is not positive definite; the message names its component."""


class BackendUnavailableError(FastGMMError, RuntimeError):
    """The device or engine that was asked for cannot run here; the message gives the reason."""


class DeviceMemoryError(FastGMMError, MemoryError):
    """The memory of a device does not hold even a small chunk of rows with what a pass needs."""


class DistributedError(FastGMMError, RuntimeError):
    """Another process that shares the fit has failed; the message has its rank and its error."""


class CheckpointError(FastGMMError, ValueError):
    """A checkpoint belongs to other data or settings, or is damaged; the message says which."""


class ModelFileError(FastGMMError, ValueError):
    """A model file is damaged, inconsistent, or was not written by `fastgmm`'s `save`."""


class DegenerateDataWarning(UserWarning):
    """The data leaves parameters undetermined: empty components, constant features, duplicates."""


class PrecisionWarning(UserWarning):
    """Numbers cannot be represented, or lose digits, in the precision that is used."""
