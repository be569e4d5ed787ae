"""The first 20 losses of every model, as they were when it was written: a change of one is a change of the method.

PYTHONPATH=tests python tests/test_golden.py      # writes them anew
"""

import json
from pathlib import Path

import pytest
import torch
from toy_terms import IDENTITY, MANIPULATION, MULTI_CROP, objective, toy_views

CURVES = Path(__file__).parent / "golden.json"
CASES = [*((name, None) for name in IDENTITY), *(("simclr", name) for name in MANIPULATION)]


def label(case: tuple[str, str | None]) -> str:
    return case[0] if case[1] is None else f"{case[0]}+{case[1]}"


def curve(case: tuple[str, str | None], steps: int = 20) -> list[float]:
    """Losses of so many steps of plain SGD in float64, batch statistics and teachers and all."""
    stec = objective(*case)
    optimizer = torch.optim.SGD([p for p in stec.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(steps):
        stec.before_step(step, steps)
        frame = "augself" if case[1] == "augself" else "ego"
        out = stec(toy_views(step, frame=frame, small=2 if case[0] in MULTI_CROP else 0))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(out.loss.detach()))
    return losses


@pytest.mark.parametrize("case", CASES, ids=label)
def test_the_first_losses_are_those_of_before(case):
    golden = json.loads(CURVES.read_text())[label(case)]
    assert len(golden) == 20
    assert len(set(golden)) == 20  # it moves
    assert curve(case) == pytest.approx(golden, rel=1e-6)


def test_there_is_a_curve_for_every_model_and_no_other():
    assert json.loads(CURVES.read_text()).keys() == {label(case) for case in CASES}


if __name__ == "__main__":
    found = {label(case): [round(loss, 10) for loss in curve(case)] for case in CASES}
    CURVES.write_text(json.dumps(found, indent=1) + "\n")
