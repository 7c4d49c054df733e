"""Every GPU kernel compiles for GPUs that are not there: no spills, little enough shared memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_compile

for _name in ("torch", "triton"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"{_name} is not installed", allow_module_level=True)

# Shared memory that a program may have, KiB; of 8.x the least, for all take the same rows.
SHARED = {"80": 99, "90": 227, "100": 227, "120": 99, "gfx942": 64}
# All cases for one target; for the others those whose sizes or code differ.
CHOSEN = {
    "90": range(len(gpu_compile.CASES)),
    "80": [0, 4, 7, 8, 14, 15, 18, 20, 21, 24, 28, 36],
    "100": [0, 4, 7, 8, 12, 14, 15, 18, 20, 21, 24, 28, 29, 36],
    "120": [0, 4, 7, 8, 14, 15, 18, 28, 36],
    "gfx942": [0, 4, 7, 8, 15, 18, 28],
}
PRODUCTS = ("expect_full", "moments_full", "pull_full", "expect_product", "moments_product")


@pytest.fixture(scope="module")
def processes():
    """One process per target, all at once; none of them may see that this one interprets."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), str(root / "kernels")])
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    variables |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started = {
        target: subprocess.Popen(
            [sys.executable, gpu_compile.__file__, target, *map(str, cases)],
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for target, cases in CHOSEN.items()
    }  # fmt: skip
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def compiled(processes):
    """What a target's kernels take, by target."""
    known = {}

    def of(target):
        if target not in known:
            out, err = processes[target].communicate(timeout=600)
            assert processes[target].returncode == 0, err[-3000:]
            known[target] = [json.loads(line) for line in out.splitlines()]
        return known[target]

    return of


@pytest.mark.parametrize("target", CHOSEN)
def test_no_spills_and_shared_memory_within_the_limit(compiled, target):
    lines = compiled(target)
    wrong = [
        line
        for line in lines
        if line.get("stack", 0) or line.get("local", 0) or line.get("spills", 0)
        or line["shared"] > 1024 * SHARED[target]
    ]  # fmt: skip
    assert wrong == []
    assert {line["kernel"] for line in lines} >= {
        "load_rows", "expect_full", "expect_small", "expect_diag", "expect_spherical",
        "combine", "finish", "respond", "moments_full", "moments_diag",
        "update_closest", "candidate_potentials", "summarise",
        "pull_full", "few_score", "few_backward", "colour_rows",
        "expect_product", "moments_product",
    }  # fmt: skip


def test_chunks_of_another_length_take_the_same_kernels(compiled):
    assert [line for line in compiled("90") if line["again"]] == []


def test_every_structure_and_precision_is_compiled(compiled):
    cases = {tuple(line["case"]) for line in compiled("90")}
    assert {case[0] for case in cases} >= {"full", "diag", "spherical", "tied", "tied_diag"}
    assert {case[1] for case in cases} == {"float16", "bfloat16", "float32", "float64"}
    precisions = {line["constants"]["PRECISION"] for line in compiled("90")
                  if line["kernel"] in PRODUCTS}  # fmt: skip
    assert precisions == {"tf32x3", "bf16x3", "tf32", "ieee"}


def test_products_run_on_the_matrix_unit(compiled):
    for line in compiled("90"):
        if line["kernel"] in PRODUCTS:
            # wgmma takes float32 and 64 lines of a result at least.
            lines = {"moments_full": "B_D", "moments_product": "B_K"}.get(line["kernel"], "B_N")
            few = line["constants"][lines] < 64 and line["kernel"] != "pull_full"
            kind = "mma" if few or line["case"][1] == "float64" else "wgmma"
            assert line[kind] > 0, line
    for target in ("80", "100", "gfx942"):
        for line in compiled(target):
            # Capability 100 has no matrix unit for float64 that Triton uses.
            if line["kernel"] in PRODUCTS and line["case"][1] == "float32":
                assert line["mma"] > 0, line
