"""Compiled kernels for Gaussian mixtures: ``cpu`` (Numba) and, where torch and triton exist, ``gpu``.

Kernels are dumb: arrays of the right kind in, pre-allocated arrays out, no checks, no fallback.
They know nothing of :mod:`fastgmm`; its ``backends`` package is their only caller.
"""
