"""No kernel may become slower: ratios to yardsticks in the same run, never times."""

from __future__ import annotations

import pytest

from benchmarks import gate


def test_no_kernel_has_become_slower():
    result = gate.run()
    if "absent" in result:
        pytest.skip(result["absent"])
    assert result["slower"] == [], gate.markdown(result)
    if result["unclear"]:
        pytest.skip("the machine is too busy to tell: " + gate.markdown(result))


def test_a_kernel_that_runs_twice_is_reported():
    sticks, name = gate.yardsticks(), "score full f32"
    call = gate.kernels((name,))[name]
    found = gate.measure({name: call}, sticks)
    if max(found["drift"].values()) > gate._DRIFT:
        pytest.skip("the machine is too busy to measure a reference")
    reference = found["ratios"]

    def twice():
        call()
        call()

    result = gate.judge(reference, gate.LIMIT, {name: twice}, sticks)
    # Where the machine is busy it says so in place of a verdict, but it does not pass.
    assert result["slower"] + result["unclear"] == [name]
    assert len(result["tries"]) == gate.TRIES
    assert result["loss"][name] > gate.LIMIT


def test_another_yardstick_alone_is_no_loss():
    reference = {"np.matmul": 1.0, "multiply-adds": 1.0}
    assert gate.loss({"np.matmul": 2.0, "multiply-adds": 1.1}, reference) == 1.1


def test_no_reference_no_verdict(monkeypatch, tmp_path):
    monkeypatch.setattr(gate, "REFERENCE", tmp_path / "none.json")
    assert "no reference" in gate.reference_for("AVX2")
    assert "no reference" in gate.reference_for(None)
