"""Covariance structures, one file each, and their registry."""

from fastgmm.covariance.base import CovarianceStructure, get, names, register
from fastgmm.covariance.diag import Diag
from fastgmm.covariance.full import Full
from fastgmm.covariance.spherical import Spherical
from fastgmm.covariance.tied import Tied, TiedDiag, TiedSpherical

__all__ = [
    "CovarianceStructure",
    "Diag",
    "Full",
    "Spherical",
    "Tied",
    "TiedDiag",
    "TiedSpherical",
    "get",
    "names",
    "register",
]

for _structure in (Full(), Tied(), Diag(), Spherical(), TiedDiag(), TiedSpherical()):
    register(_structure)
