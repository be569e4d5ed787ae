"""metrics.jsonl -> curves."""

from pathlib import Path

import numpy as np

from stec.report.facts import Curve
from stec.stored import from_json

_STEP = "step"


def read_curves(path: str | Path) -> dict[str, Curve]:
    """{metric: Curve} of a metrics.jsonl: one JSON object a line, with "step" and numbers by name.

    A missing file gives no curves; a line cut short (a run that was killed while writing) or without a step is passed
    over; a step written twice counts as written last.
    """
    found: dict[str, dict[int, float]] = {}
    path = Path(path)
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            record = from_json(line)
        except ValueError:
            continue
        if not isinstance(record, dict) or type(step := record.get(_STEP)) is not int or step >= 2**63:
            continue
        for name, value in record.items():
            if name != _STEP and (isinstance(value, float) or (type(value) is int and abs(value) < 2**63)):
                found.setdefault(name, {})[step] = float(value)
    return {
        name: Curve(np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in found.items()
    }
