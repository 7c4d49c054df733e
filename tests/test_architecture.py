"""Who may import whom, how long files may be, what an import may load; read from the sources."""

import ast
import os
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import fastgmm

ROOT = Path(__file__).resolve().parents[1]
TOP = {"selection", "io", "plot", "cli", "nn", "distributions"}
# What the command line is made of stands as high as it does.
UPPER = TOP | {
    "__main__",
    "cli_arguments",
    "demo",
    "demo_picture",
    "environment",
    "results",
    "tables",
}
HEAVY = ["torch", "triton", "matplotlib", "dask", "pandas", "polars", "pyarrow"]
# Who may reach up all the same, inside functions only.
LAZY = {"fastgmm": TOP, "fastgmm.convert": {"distributions", "io", "nn"}}


def module_name(path: Path) -> str:
    """Dotted name of a source file; kernels/ is a source root and no package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for root in ("fastgmm", "kernels/fastgmm_kernels")
    for path in sorted((ROOT / root).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """Every imported module of a source file, resolved, and whether it waits for a call."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]

    def walk(body: list[ast.stmt], lazy: bool) -> Iterator[tuple[str, bool]]:
        for node in body:
            if is_type_checking(node):
                continue
            if isinstance(node, ast.Import):
                yield from ((alias.name, lazy) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")
                base = parts[: len(parts) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    full = f"{origin}.{alias.name}"
                    yield (full if full in SOURCES else origin), lazy
            else:
                inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                    yield from walk(getattr(node, field, []), lazy or inner)

    return walk(TREES[name].body, False)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> str:
    """The part of fastgmm that a module belongs to: covariance for fastgmm.covariance.full."""
    return module.split(".")[1] if module.count(".") else ""


def test_sources_are_found():
    assert {"fastgmm", "fastgmm.mixture", "fastgmm.io", "fastgmm_kernels"} <= SOURCES.keys()


@pytest.mark.parametrize(
    ("package", "allowed"),
    # llvmlite is the half of Numba in which intrinsics are written.
    [("cpu", {"numpy", "numba", "llvmlite"}), ("gpu", {"torch", "triton"})],
)
def test_kernels_import_their_compiler_alone(package, allowed):
    here = f"fastgmm_kernels.{package}"
    for name in filter(lambda name: within(name, here), SOURCES):
        for target, _ in imports(name):
            root = target.partition(".")[0]
            assert root in allowed | sys.stdlib_module_names or within(target, here), (name, target)


def test_the_kernels_root_imports_nothing():
    assert list(imports("fastgmm_kernels")) == []


def test_only_backends_and_linear_algebra_import_kernels():
    users = ("fastgmm_kernels", "fastgmm.backends", "fastgmm.linalg")
    for name in SOURCES:
        if not any(within(name, user) for user in users):
            found = [target for target, _ in imports(name) if within(target, "fastgmm_kernels")]
            assert found == [], name


def test_nobody_below_imports_the_top():
    for name in SOURCES:
        if not within(name, "fastgmm") or layer(name) in UPPER:
            continue
        for target, lazy in imports(name):
            if within(target, "fastgmm") and layer(target) in UPPER:
                assert lazy, f"{name} imports {target} at module level"
                assert layer(target) in LAZY.get(name, set()), f"{name} imports {target}"


def test_the_core_does_not_know_the_estimator():
    for name in SOURCES:
        if name not in {"fastgmm", "fastgmm.mixture"} and layer(name) not in UPPER:
            assert "fastgmm.mixture" not in {target for target, _ in imports(name)}, name


def test_module_level_imports_have_no_cycle():
    graph = {
        name: {t for t, lazy in imports(name) if not lazy and t in SOURCES and t != name}
        for name in SOURCES
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_sizes():
    lengths = {name: len(path.read_bytes().splitlines()) for name, path in SOURCES.items()}
    assert statistics.median(lengths.values()) <= 200
    for folder in ("tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            lengths[str(path.relative_to(ROOT))] = len(path.read_bytes().splitlines())
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_assert_in_the_library():
    # python -O removes assert statements, and with them whatever they check.
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def python(code: str, **variables: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_is_light():
    # Where pandas and pyarrow are installed, scikit-learn itself loads them.
    code = f"""
import sys
import numba, sklearn.cluster, sklearn.mixture
before = set(sys.modules)
import fastgmm
fastgmm.GaussianMixture
print([name for name in {HEAVY} if name in set(sys.modules) - before])
print([name for name in {HEAVY[:4]} if name in sys.modules])
"""
    assert python(code).split("\n")[:2] == ["[]", "[]"]


def test_modules_are_there_without_an_import_of_their_own():
    code = """
import fastgmm, sys
print("torch" in sys.modules or "fastgmm.plot" in sys.modules)
print(fastgmm.plot.plot_components.__name__, fastgmm.io.load.__name__)
print({"autograd", "distributions", "functional", "nn", "plot"} <= set(dir(fastgmm)))
"""
    assert python(code).split() == ["False", "plot_components", "load", "True"]
    # The rest load torch.
    assert all(f"fastgmm.{name}" in SOURCES for name in fastgmm._LAZY)


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][e] for e in ("torch", "plot", "parquet", "dask")]
    core, optional = (
        {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in lines}
        for lines in (project["dependencies"], chain(*extras))
    )
    others = {"PIL": "pillow", "sklearn": "scikit_learn", "triton": "torch"}
    for name in SOURCES:
        for target, lazy in imports(name):
            root = target.partition(".")[0]
            if root not in {"fastgmm", "fastgmm_kernels", *sys.stdlib_module_names}:
                # Without torch no module that begins with its import is loaded.
                wanted = core | optional if lazy or root in {"torch", "triton"} else core
                assert others.get(root, root) in wanted, (name, root)


def test_import_prints_and_warns_nothing():
    assert python("import fastgmm", PYTHONWARNINGS="error::UserWarning") == ""


def test_checks_survive_optimisation():
    code = """
import numpy as np
import fastgmm
mixture = fastgmm.GaussianMixture(1, device="reference")
try:
    mixture.fit(np.full((5, 2), np.nan))
except ValueError:
    print("refused")
print(mixture.fit(np.eye(4)).weights_)
"""
    assert python(code, PYTHONOPTIMIZE="2").split("\n")[:2] == ["refused", "[1.]"]
