"""A table of four rows, a line of its ledger, and a run directory such as stec-train leaves behind."""

import json
from pathlib import Path
from typing import Any

import yaml

from stec.comparison.ledger import Line

NODE: dict[str, Any] = {
    "title": "A table",
    "source": "nobody",
    "metric": "eval/linear/top1",
    "effect": 0.5,
    "spread": 0.4,
    "scales": {"paper": {"hours": 10}, "small": {"words": ["training.epochs=2"], "hours": 0.1, "about": "tiny"}},
    "rows": [
        {"id": "base", "label": "Base", "recipe": "plain", "paper": {"mean": 60.0, "std": 0.3}},
        {
            "id": "more",
            "label": "More",
            "recipe": {"paper": "large", "small": "little"},
            "overrides": ["a=1"],
            "paper": {"mean": 61.5, "std": 0.4},
            "against": "base",
        },
        {"id": "only", "label": "Only", "recipe": {"paper": "large"}, "paper": None, "against": "base"},
        {
            "id": "last",
            "label": "Last",
            "recipe": "plain",
            "scales": {"small": ["training.epochs=3"]},
            "against": "only",
        },
    ],
}

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": "here",
    "run_dir": "runs/x",
    "resume": "auto",
    "batch_size": 8,
    "hardware": {"device": "cpu"},
    "dataset": {"name": "d", "packer": {"name": "p", "labels": None, "subset": None}},
    "training": {"epochs": 2, "log_every": 10, "checkpoint_every": 5, "keep": 2, "stop_after": None},
    "identity": {"simclr": {"name": "simclr", "weight": 2.0}},
    "manipulation": {},
    "evaluation": {"baselines": {}, "raw_input": True, "train_samples": 10},
}


def made(folder: Path, config: dict[str, Any] = CONFIG, metrics: dict[str, float] | None = None) -> Path:
    """A run directory, as stec-train leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = {"untrained": {"eval/linear/top1": 0.1}, "trained": metrics or {"eval/linear/top1": 0.5}}
    (folder / "table.json").write_text(json.dumps({"rows": rows, "protocol": {}}))
    (folder / "finished").write_text("step 3\n")
    (folder / "train.log").write_text(
        "2026-11-24T21:35:43Z INFO data: a few\n"
        "2026-11-24T21:35:49Z INFO machine: cpu (2 cores), fp32, 0 loading processes\n"
        "2026-11-24T21:37:13Z INFO report: there\n"
    )
    return folder


def line(row: str = "a", seed: int = 0, hash: str = "h", **more: Any) -> Line:
    plain = {"table": "t", "scale": "small", "recipe": [], "version": "1", "device": "cpu", "hardware": "", "date": ""}
    return Line(**{**plain, "seconds": 60.0, "metrics": {}, "row": row, "seed": seed, "hash": hash, **more})
