"""fastgmm beside its peers on one GPU: ``python -m benchmarks.gpu``."""
