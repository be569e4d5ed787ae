"""metrics.jsonl -> curves."""

import json
from pathlib import Path

import numpy as np

from stec.report.facts import Curve

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
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict) or not isinstance(record.get(_STEP), int):
            continue
        for name, value in record.items():
            if name != _STEP and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, {})[record[_STEP]] = float(value)
    return {
        name: Curve(np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in found.items()
    }
