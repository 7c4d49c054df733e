"""Processes that do not come, or go: the others end within the limit of their group."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

PROGRAM = """
import sys, time
from datetime import timedelta
import numpy as np
import torch.distributed as dist
import fastgmm
from fastgmm.distributed import Sharded
rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=4)
)
x = np.random.default_rng(rank).normal(size=(500, 2))

def late(state):
    if rank == 1 and state.iteration == 3:
        time.sleep(12)

model = fastgmm.GaussianMixture(2, max_iter=9, tol=0, random_state=0)
try:
    model.fit(Sharded(x), callback=late)
except fastgmm.errors.DistributedError as error:
    print(error)
sys.stdout.flush()
# The group cannot be ended in order any more.
import os
os._exit(0)
"""


def test_case_67_a_rank_that_does_not_come_is_named_by_the_others(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "group")],
            env={**env, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in ranks]
    for rank, text in enumerate(told):
        assert f"rank {rank} of 2: the processes of this fit have lost each other" in text
    assert "time" in told[0].lower()
