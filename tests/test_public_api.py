"""The public names, their signatures beside scikit-learn's, and their docstrings."""

import ast
import importlib
import inspect
import tomllib
from pathlib import Path

import pytest
from sklearn import mixture

import fastgmm

ROOT = Path(__file__).resolve().parents[1]
THEIRS = mixture.GaussianMixture
OURS = fastgmm.GaussianMixture

NAMES = {
    "fastgmm": {"GaussianMixture", "__version__", "em", "functional", "load"},
    "fastgmm.functional": {
        "covariances",
        "log_prob",
        "m_step",
        "precisions_cholesky",
        "predict",
        "responsibilities",
        "row_scatter",
        "sample",
        "score_samples",
        "sufficient_statistics",
    },
    "fastgmm.em": {"EMResult", "fit"},
    "fastgmm.autograd": {
        "component_log_prob",
        "log_responsibilities",
        "mixture_log_prob",
        "responsibilities",
    },
    "fastgmm.distributions": {"GaussianMixture", "MixtureSameFamily", "kl_monte_carlo"},
    "fastgmm.nn": {"GMM", "MLP"},
    "fastgmm.covariance": {"get", "names", "register"},
    "fastgmm.io": {"load", "save"},
    "fastgmm.distributed": {"Sharded", "shard"},
    "fastgmm.sources": {"Joined", "Source", "read_npy", "read_parquet"},
    "fastgmm.plot": {"plot_components", "plot_convergence", "plot_density"},
    "fastgmm.errors": {
        "BackendUnavailableError",
        "CheckpointError",
        "DegenerateDataWarning",
        "DeviceMemoryError",
        "DistributedError",
        "FastGMMError",
        "InputError",
        "ModelFileError",
        "NotFiniteError",
        "PrecisionWarning",
        "SingularCovarianceError",
    },
}
BEYOND_SKLEARN = {
    "component_log_prob",
    "from_parameters",
    "from_responsibilities",
    "from_sklearn",
    "n_parameters",
    "predict_log_proba",
    "save",
    "to_distribution",
    "to_module",
    "to_sklearn",
}


def public_methods(cls):
    return {
        name: member
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("module", NAMES)
def test_names(module):
    names = importlib.import_module(module)
    for name in NAMES[module]:
        assert hasattr(names, name), f"{module}.{name}"
    exported = getattr(names, "__all__", None)
    if exported is not None:
        assert len(set(exported)) == len(exported)
        assert all(hasattr(names, name) for name in exported)
        assert NAMES[module] <= set(exported)


def test_every_error_is_one_of_ours():
    from fastgmm import errors

    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert len(kinds) > 6
    assert all(issubclass(kind, errors.FastGMMError) for kind in kinds)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fastgmm.no_such_name


def test_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert fastgmm.__version__ == project["version"]


def test_constructor_begins_with_scikit_learns():
    theirs = list(inspect.signature(THEIRS).parameters.values())
    ours = list(inspect.signature(OURS).parameters.values())
    describe = [[(p.name, p.kind, p.default) for p in params] for params in (ours, theirs)]
    assert describe[0][: len(theirs)] == describe[1]
    assert [p.name for p in ours[len(theirs) :]] == ["empty", "device", "batch_size", "precision"]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[1:])


def test_methods():
    names = public_methods(OURS).keys()
    assert BEYOND_SKLEARN - names == set()
    assert public_methods(THEIRS).keys() - names == set()


@pytest.mark.parametrize(
    "name",
    [n for n in public_methods(THEIRS) if getattr(OURS, n).__module__.startswith("fastgmm.")],
)
def test_methods_take_what_scikit_learns_take(name):
    theirs = inspect.signature(getattr(THEIRS, name)).parameters
    ours = inspect.signature(getattr(OURS, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for parameter in theirs.values():
        assert ours[parameter.name].default == parameter.default
    # What we add has a default, or calls written for scikit-learn would break.
    for added in list(ours.values())[len(theirs) :]:
        assert added.default is not added.empty


def public_face():
    """Every function, class and method that users are meant to call."""
    for module in NAMES:
        names = importlib.import_module(module)
        for name in sorted(NAMES[module]):
            value = getattr(names, name)
            if callable(value):
                yield f"{module}.{name}", value
    for name, method in public_methods(OURS).items():
        if getattr(method, "__module__", "").startswith("fastgmm"):
            yield f"GaussianMixture.{name}", method


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in public_face()]
)
def test_docstrings_have_their_sections(name, value):
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    first = text.split("\n")[0]
    assert first.endswith(".")
    assert len(first) <= 100
    if inspect.isclass(value):
        if value is OURS:
            assert section(text, "Parameters")
            assert section(text, "Attributes")
            documented = section(text, "Parameters")
            missing = [p for p in inspect.signature(OURS).parameters if p not in documented]
            assert missing == []
        return
    signature = inspect.signature(value)
    taken = [p for p in signature.parameters if p not in {"self", "cls"}]
    if taken:
        documented = section(text, "Parameters")
        assert documented, f"{name} takes {taken} and has no Parameters"
        assert [p for p in taken if p not in documented] == []
    returned = signature.return_annotation
    if returned not in (None, "None", signature.empty):
        assert section(text, "Returns"), f"{name} returns {returned} and has no Returns"


def section(text, title):
    """The text of a numpydoc section; empty where there is none."""
    lines = text.split("\n")
    starts = [i for i in range(len(lines) - 1) if lines[i] == title and set(lines[i + 1]) == {"-"}]
    if not starts:
        return ""
    body = lines[starts[0] + 2 :]
    rules = [i for i, line in enumerate(body) if line and set(line) == {"-"}]
    return "\n".join(body[: rules[0] - 1] if rules else body)


def test_everything_public_in_the_sources_has_a_docstring():
    missing = []
    for path in sorted((ROOT / "fastgmm").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT)
        if path.name != "__init__.py" or tree.body:
            missing += [str(where)] * (ast.get_docstring(tree) is None)
        missing += [f"{where}:{name}" for name in undocumented(tree)]
    assert missing == []


def undocumented(tree):
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in undocumented_methods(node))


def undocumented_methods(cls):
    # A method that carries out a documented one of a base class is documented there.
    if all(ast.unparse(base) in {"Protocol", "object"} for base in cls.bases):
        for node in cls.body:
            public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if public and ast.get_docstring(node) is None:
                yield node.name
