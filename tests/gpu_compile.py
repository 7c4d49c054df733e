"""Compiles every kernel that passes launch, for GPUs that are not there.

``python tests/gpu_compile.py TARGET [CASE ...]`` writes one line of JSON per kernel, with
``--table`` the table of kernels/README.md.
The passes themselves run, on CPU tensors whose content does not matter, with each launch replaced
by a compilation: so exactly what they launch is compiled, with the sizes of the launch table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# (structure, dtype, K, D, precision, kind): every kernel, and every row of the launch table. Kinds
# are "fit", "row" for one row, "ordered" where rows are read by label, and "mixtures" for many and
# their gradients.
CASES = [
    ("full", "float32", 64, 5, "highest", "fit"),
    ("full", "float64", 64, 5, "highest", "fit"),
    ("full", "float32", 64, 16, "highest", "fit"),
    ("full", "float32", 64, 32, "highest", "fit"),
    ("full", "float32", 64, 64, "highest", "fit"),
    ("full", "float32", 64, 64, "high", "fit"),
    ("full", "float32", 64, 64, "medium", "fit"),
    ("full", "float32", 64, 128, "highest", "fit"),
    ("full", "float32", 1024, 64, "highest", "ordered"),
    ("full", "float32", 1024, 128, "highest", "ordered"),
    ("full", "float64", 64, 16, "highest", "fit"),
    ("full", "float64", 64, 32, "highest", "fit"),
    ("full", "float64", 64, 64, "highest", "fit"),
    ("full", "float64", 64, 128, "highest", "fit"),
    ("full", "float64", 1024, 64, "highest", "ordered"),
    ("diag", "float32", 64, 16, "highest", "fit"),
    ("diag", "float64", 64, 16, "highest", "fit"),
    ("diag", "float32", 1024, 64, "highest", "ordered"),
    ("spherical", "float32", 1024, 128, "highest", "fit"),
    ("spherical", "float64", 64, 16, "highest", "fit"),
    ("spherical", "float32", 1024, 64, "highest", "ordered"),
    ("tied", "float32", 64, 64, "highest", "fit"),
    ("tied", "float64", 64, 64, "highest", "fit"),
    ("tied_diag", "float32", 64, 3, "highest", "fit"),
    # So few components that nothing is skipped.
    ("full", "float32", 8, 64, "highest", "fit"),
    ("full", "float64", 8, 64, "highest", "fit"),
    ("diag", "float32", 8, 16, "highest", "fit"),
    ("full", "float32", 8, 300, "highest", "fit"),
    ("full", "float32", 8, 64, "highest", "mixtures"),
    ("full", "float64", 8, 64, "highest", "mixtures"),
    ("diag", "float32", 8, 16, "highest", "mixtures"),
    ("diag", "float64", 8, 16, "highest", "mixtures"),
    ("full", "float32", 8, 5, "highest", "mixtures"),
    ("full", "float64", 8, 128, "highest", "mixtures"),
    ("tied", "float32", 8, 32, "highest", "mixtures"),
    ("spherical", "float32", 64, 128, "medium", "fit"),
    ("spherical", "float64", 128, 128, "highest", "ordered"),
    ("spherical", "float32", 16, 64, "highest", "fit"),
    # Triton compiles numbers that are 1 into the code; and half precision is read as stored.
    ("full", "float32", 1, 1, "highest", "row"),
    ("diag", "float64", 1, 1, "highest", "row"),
    ("spherical", "float32", 1, 1, "highest", "row"),
    ("full", "float16", 64, 64, "highest", "fit"),
    ("diag", "bfloat16", 64, 16, "highest", "fit"),
]
# What Triton compiles for, and the version that torch tells of such a device.
TARGETS = {str(n): (("cuda", n, 32), divmod(n, 10)) for n in (80, 90, 100, 120)}
TARGETS["gfx942"] = (("hip", "gfx942", 64), (9, 4))


class _Driver:
    """As much of a driver as compiling asks for."""

    def __init__(self, target):
        self.target = target

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def _usage(cubin):
    """REG, STACK, SHARED and LOCAL of machine code."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", run.stdout)
    return dict(
        zip(("registers", "stack", "static", "local"), map(int, found.groups()), strict=True)
    )


def _describe(function, kernel, case):
    constants = {
        p.name: v for p, v in zip(function.params, kernel["args"], strict=False) if p.is_constexpr
    }
    compiled = kernel["compiled"]
    text = compiled.asm.get("ptx", compiled.asm.get("amdgcn", ""))
    strides = {p.name: v for p, v in zip(function.params, kernel["args"], strict=False)}
    line = {
        "kernel": function.__name__.removeprefix("_"),
        "case": case,
        "mixtures": any(strides.get(name) is not None for name in ("s_zb", "s_lb")),
        "constants": {name: value for name, value in constants.items() if value is not None},
        "again": kernel.get("again", False),
        "warps": compiled.metadata.num_warps,
        "shared": compiled.metadata.shared,
        "wgmma": text.count("wgmma.mma_async"),
        "mma": text.count("mma.sync") + text.count("tcgen05.mma") + text.count("v_mfma"),
    }
    if "cubin" in compiled.asm:
        line |= _usage(compiled.asm["cubin"])
    else:
        counts = {"registers": r"\.vgpr_count:\s+(\d+)", "spills": r"\.vgpr_spill_count:\s+(\d+)"}
        for name, pattern in counts.items():
            line[name] = int(re.search(pattern, text).group(1))
    return line


def _run_mixtures(target, structure, dtype, k, d):
    """Three mixtures of many rows, then of few, forward and backward; and their samples."""
    import torch

    from fastgmm.backends import batched_gpu, few_gpu

    n_factors = 1 if structure.startswith("tied") else k
    square = (d, d) if structure in ("full", "tied") else (d,)
    shapes = ((3, 200, d), (3, k), (3, k, d), (3, n_factors, *square))
    x, constants, means, factors = (torch.ones(s, dtype=getattr(torch, dtype)) for s in shapes)
    batched_gpu.score(target, x, constants, means, factors)
    batched_gpu.per_component(target, x, constants, means, factors)
    batched_gpu.backward(target, x[..., 0].contiguous(), x, constants, means, factors)
    few_gpu.backward(target, x[:, :16, 0], x[:, :16], constants, means, factors)
    few_gpu.colour(target, torch.zeros(3, 200, dtype=torch.int64), x, means, factors)


def compile_all(target_name, cases):
    """One description per kernel that the cases launch."""
    import numpy as np
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    import oracle
    from fastgmm import covariance
    from fastgmm.backends import gpu, launch
    from fastgmm.model import MixtureModel
    from fastgmm_kernels import gpu as kernels

    names, version = TARGETS[target_name]
    triton.runtime.driver.set_active(_Driver(GPUTarget(*names)))
    compiled, original = {}, JITFunction.run

    def run(self, *args, grid, warmup, **options):
        kernel = original(self, *args, grid=grid, warmup=True, **options)
        compiled.setdefault(kernel.hash, (self, {"compiled": kernel, "args": args}, case))

    JITFunction.run = run
    # What kernels would have written is noise here.
    gpu.settle_unreachable = lambda model, x: torch.zeros(len(x), dtype=torch.int64)
    rng = np.random.default_rng(0)
    capability = launch.capability_of(names[0], *version)
    for case in cases:
        structure, dtype, k, d, precision, kind = case
        backend = gpu.GPUBackend(torch.device("cpu"))
        backend.target = dataclasses.replace(
            backend.target,
            capability=capability,
            programs=264,
            precision=kernels.input_precision(precision, names[0], capability),
        )
        if kind == "mixtures":
            _run_mixtures(backend.target, structure, dtype, k, d)
            continue
        means = rng.standard_normal((k, d))
        covariances = np.broadcast_to(
            np.eye(d) if structure in ("full", "tied") else np.float64(1),
            oracle.covariance_shape(structure, k, d),
        )
        model = MixtureModel(
            np.full(k, 1 / k), means, covariances, covariances, covariance.get(structure)
        )
        x = torch.zeros((1 if kind == "row" else 2048, d), dtype=getattr(torch, dtype))
        prepared = backend.prepare(model, x.dtype)
        if kind == "ordered":
            order = backend.new_order()
            order.labels = torch.zeros(len(x), dtype=torch.int32)
            backend.accumulate(prepared, x, torch.ones(len(x)), None, order)
            continue
        backend.score_samples(prepared, x)
        backend.accumulate(prepared, x, None)
        if kind == "fit":
            # Another chunk, whose numbers of rows and tiles are not multiples of 16.
            known = set(compiled)
            backend.score_samples(prepared, x[:1111])
            backend.accumulate(prepared, x[:1111], None)
            for key in compiled.keys() - known:
                compiled[key][1]["again"] = True
        backend.responsibilities(prepared, x)
        backend.predict(prepared, x)
        backend.kmeans_step(x, None, means)
        backend.summarise(x)
        backend.potentials(x, None, means[:3], backend.closest(x, means[0], None))
        loose = covariance.get("full" if structure == "tied" else "diag")
        backend.accumulate_given(x, None, loose, means, labels=np.zeros(len(x), np.int64))
    return [_describe(*entry) for entry in compiled.values()]


def table(lines):
    """What kernels take, in Markdown: the most of each where there are several."""
    rows = {}
    for line in lines:
        c = line["constants"]
        product = f", {c['PRECISION']}" if line["wgmma"] or line["mma"] else ""
        width = f", D' = {c['D']}" if "D" in c else ""
        what = "".join(f", {name.lower()}" for name in ("SKIP", "LABELS", "SECOND") if c.get(name))
        what += ", mixtures" if line["mixtures"] else ""
        key = f"{line['kernel']}, {line['case'][1]}{width}{product}{what}"
        sizes = " x ".join(str(c[name]) for name in ("B_N", "B_D", "B_K") if name in c)
        unit = "wgmma" if line["wgmma"] else "mma" if line["mma"] else ""
        rows[key] = max(
            rows.get(key, ()), (line["registers"], line["shared"], line["warps"], sizes, unit)
        )
    print("| kernel | block | warps | registers | shared, bytes | matrix unit |")
    print("|---|---|---|---|---|---|")
    for key, (registers, shared, warps, sizes, unit) in sorted(rows.items()):
        print(f"| {key} | {sizes} | {warps} | {registers} | {shared} | {unit} |")


def main():
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "kernels")]
    os.environ.pop("TRITON_INTERPRET", None)
    target, *rest = sys.argv[1:]
    cases = [CASES[int(i)] for i in rest if i != "--table"] or CASES
    lines = compile_all(target, cases)
    if "--table" in rest:
        table(lines)
    else:
        for line in lines:
            print(json.dumps(line))


if __name__ == "__main__":
    main()
