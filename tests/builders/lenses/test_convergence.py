"""The rows of `lens_training`."""

from __future__ import annotations

import pytest

from builders.lenses.convergence import LENS_TRAINING, end_slope, training_rows


def check(step: int, layer: int, kl: float | None) -> dict[str, object]:
    """Return what one check found: 1,000 tokens a step."""
    known = {"train_kl": None if step == 0 else 9.0, "held_out_se": 0.5, "lr": 0.1}
    return {"step": step, "layer": layer, "tokens": 1000 * step, "held_out_kl": kl, **known}


def test_the_best_step_of_each_layer_is_kept() -> None:
    """Each layer keeps its own lowest divergence, the first of equal ones, and a divergence that overflowed is never the best."""
    curves = {0: [5.0, 3.0, 3.0, 4.0], 1: [2.0, None, 3.0, 2.5]}
    checks = [check(step, layer, curves[layer][step]) for step in range(4) for layer in curves]
    rows = training_rows("m", "tuned", checks, 77)
    LENS_TRAINING.validate(rows)
    assert [(row["step"], row["layer"]) for row in rows.to_pylist() if row["kept"]] == [(0, 1), (1, 0)]
    assert set(rows["held_out_tokens"].to_pylist()) == {77}


def test_the_slope_is_that_of_the_last_third() -> None:
    """A curve that is straight over its last third has that slope, per million tokens, whatever came before."""
    curve = [9.0, 7.0, 1.0, 8.0, 2.0, 5.0, 4.0, 3.0, 2.0]
    rows = training_rows("m", "tuned", [check(step, 0, kl) for step, kl in enumerate(curve)], 1).to_pylist()
    assert rows[-1]["slope"] == pytest.approx(-1000)
    assert [row["slope"] for row in rows[:-1]] == [None] * 8


def test_a_slope_needs_five_rows() -> None:
    """Fewer than five checks, or one that overflowed among the last three, have no slope; five have that of the last three."""
    curve = [9.0, 8.0, 1.0, 0.5, 0.0]
    assert end_slope([check(step, 0, kl) for step, kl in enumerate(curve[1:])]) is None
    assert end_slope([check(step, 0, kl) for step, kl in enumerate([*curve[:3], None, 0.0])]) is None
    assert end_slope([check(step, 0, kl) for step, kl in enumerate(curve)]) == pytest.approx(-500)
