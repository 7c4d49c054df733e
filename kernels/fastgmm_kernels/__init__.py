"""Compiled kernels for Gaussian mixtures, one package per device: ``cpu`` (Numba).

Kernels are dumb: arrays of the right kind in, pre-allocated arrays out, no checks, no fallback.
They know nothing of :mod:`fastgmm`; its ``backends`` package is their only caller.
"""
