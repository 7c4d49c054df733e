"""Runs a snippet in a fresh interpreter that finds the library as this one did."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(code, *flags, timeout=240, **environment):
    """stdout of the snippet; AssertionError with its stderr where it fails.

    A variable given as None is removed from the child's environment.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for name, value in environment.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = str(value)
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"exit status {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout
