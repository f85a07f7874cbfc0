"""What a scored task says of itself in `failures`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contexts import windows_of

from builders.scorers.judging import Judged, Task, nans
from pipelines.parts.judging import Scored, failure_reason


@pytest.mark.parametrize(
    ("measures", "reason"),
    [
        ({"status": "ok", "score": 0.3}, None),
        ({"status": "constant prediction", "score": 0.0}, None),
        ({"status": "constant truth"}, "no score: constant truth"),
    ],
)
def test_what_has_a_score_is_no_failure(measures: dict[str, Any], reason: str | None) -> None:
    """A simulation that never varies scores 0 and has failed in nothing; a task without a score says why."""
    examples = windows_of(0, np.ones((2, 3), dtype=np.int32), np.zeros((2, 3), dtype=np.float32))
    judged = Judged(examples.number, examples.activating, np.full(2, "ok"), nans(2), nans(2), nans(2), measures)

    assert failure_reason(Scored(Task(examples), judged, [])) == reason
