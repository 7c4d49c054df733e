"""The arithmetic of the page about scaling, and the verdicts of the benchmark behind it."""

from __future__ import annotations

import numpy as np
import pytest

from fastgmm import covariance
from fastgmm.statistics import SufficientStatistics

pytest.importorskip("resource", reason="what benchmarks ask of the system")

from benchmarks import large_data, workers
from benchmarks.large_child import start_of, statistics_bytes
from benchmarks.workloads import make


def cost(**changes):
    return workers.Cost(**{"d": 16, "pair": 2e-9, "component": 1e-5} | changes)


def run():
    """A run in which all that is asked for is reached, by little."""

    def file(how, size, seconds, peak):
        found = {"how": how, "bytes": size, "seconds": {"median": seconds}, "limit": 10**9}
        return found | {"anonymous_peak": peak}

    both = {"one batch": {"median": 1.0}, "batches": {"median": 1.09}}
    wire = {"statistics_bytes": 10.0, "expected_bytes": 10}
    return {
        "provenance": {"cpu": "a CPU", "date": "2026-01-01T00:00:00", "commit": "abc"},
        "files": [
            file("memory", 1e9, 1.0, 2e9),
            file("map", 1e9, 1.2, 100e6),
            file("map", 8e9, 10.3, 130e6),
            file("read", 1e9, 1.2, 100e6),
            file("read", 8e9, 10.3, 90e6),
        ],
        "batching": {"seconds": {"overlapping": both}},
        "processes": [
            {"processes": 1, "seconds": {"median": 1.0}},
            {"processes": 2, "seconds": {"median": 1.14}, **wire},
        ],
        "scaling": {
            "d": 16,
            "rows": 2_000_000,
            "components": 64,
            "threads": 2,
            "pair_seconds": 2e-9,
            "component_seconds": 1e-5,
            "m_step_components": 2048,
        },
    }


def test_the_wire_takes_the_statistics():
    structure = covariance.get("full")
    second = np.zeros(structure.shape(5, 16))
    sums = SufficientStatistics(np.zeros(5), np.zeros((5, 16)), second, np.zeros((5, 16)), 0, 0, 0)
    assert statistics_bytes(5, 16) == sums.to_buffer().nbytes


def test_one_worker_reduces_nothing_and_many_share_the_pass():
    c = cost()
    assert c.all_reduce(64, 1) == 0
    assert c.iteration(10**8, 64, 1) == pytest.approx(10**8 * 64 * 2e-9 + 64e-5)
    assert c.passing(10**8, 64, 10) == pytest.approx(c.passing(10**8, 64, 1) / 10)
    # A ring sends nearly twice the statistics, however many take part.
    slow = cost(latency=0.0)
    size = statistics_bytes(1000, 16)
    assert slow.all_reduce(1000, 10**6) == pytest.approx(2 * size / 1.25e9, rel=1e-5)
    # Where there are few components the rows cannot be read as fast as they are computed.
    assert c.passing(10**9, 1, 1) == pytest.approx(10**9 * 64 / 1e9)


@pytest.mark.parametrize("n", workers.ROWS)
@pytest.mark.parametrize("k", workers.COMPONENTS)
def test_the_turning_point_is_the_first_of_its_kind(n, k):
    c = cost()
    p = c.turning_point(n, k)
    assert c.all_reduce(k, p) > c.passing(n, k, p)
    assert c.all_reduce(k, p - 1) <= c.passing(n, k, p - 1)


def test_rows_per_worker_at_the_turning_point_of_many_components():
    c = cost(latency=0.0)
    n, k = 10**9, 10**5
    assert n / c.turning_point(n, k) == pytest.approx(c.rows_at_turning_point(), rel=0.01)


def test_the_page_has_what_was_measured():
    text = workers.page(run())
    for part in ("a CPU", "abc", "2 ns per row", "10 us per component", "| rows ", "2.18 MB"):
        assert part in text
    assert max(map(len, text.partition("| rows")[0].splitlines())) <= 100
    assert workers.duration(90.0) == "90 s"
    assert workers.duration(7200.0) == "2 h"


def test_targets_are_reached_by_little_and_missed_by_little():
    found = run()
    assert all(target["reached"] for target in large_data.targets(found))
    found["files"][2]["seconds"]["median"] = 10.5
    found["files"][4]["anonymous_peak"] = 140e6
    found["batching"]["seconds"]["overlapping"]["batches"]["median"] = 1.11
    found["processes"][1] |= {"seconds": {"median": 1.16}, "statistics_bytes": 18.0}
    missed = [t["name"] for t in large_data.targets(found) if not t["reached"]]
    assert len(missed) == 5
    assert "NO" in large_data.report(found | {"targets": large_data.targets(found)})


def test_processes_start_near_the_rows_that_they_read():
    workload = make("full", 500, 4, 3, "float32")
    start = start_of(4, 3)
    labels = ((workload.x[:, None] - start.means) ** 2).sum(axis=2).argmin(axis=1)
    assert set(labels) == set(range(4))
    np.testing.assert_allclose(start.means, workload.start.means, atol=1.0)
