"""Which weight? Short runs that differ in the weight of one term, compared by what they reach; no run is made here."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stec.comparison.essence import essence
from stec.errors import DataError, UsageError
from stec.report.curves import read_curves
from stec.report.dynamics import at_the_end
from stec.stored import from_json, from_yaml

KNN, LINEAR, BITS = "eval/knn/top1", "eval/linear/top1", "eval/action_bits/"
NOISE = 0.005
"""Taken for the standard error of a share if the number of test samples is not known."""
_SHARE = "train/grad_share_manip"
# More keys than these tell nobody in what two runs differ.
_MOST = 8
_WEIGHT = re.compile(r"(identity|manipulation)\.(\w+\.)?weight")

HOW = (
    "stec-train -m recipe=RECIPE data=PATH manipulation.binned.weight=0,0.3,1,3 seed=0,1 training.epochs=20 "
    "'run_dir=runs/scan/${manipulation.binned.weight}-${seed}'"
)


class Short(NamedTuple):
    """A finished run: its seed, what makes its recipe and all weights {dotted key: value}, the trained row of its
    table, the gradient's share at its end (None if there are not two kinds of terms), the number of samples tested on,
    and the fingerprint of those learnt from; None and "": not known."""

    folder: Path
    seed: Any
    config: Mapping[str, Any]
    row: Mapping[str, float]
    grad_share: float | None
    num_test: int | None
    data: str = ""


class Line(NamedTuple):
    """One weight, over its seeds, sorted: {metric: mean}, the metric that decides and its standard error over seeds
    (NaN with one), the mean bits of the components and the gradient's share (NaN if there is none)."""

    weight: float
    seeds: tuple[Any, ...]
    row: Mapping[str, float]
    score: float
    deviation: float
    bits: float
    grad_share: float


class Choice(NamedTuple):
    """The key that differs, a line for each of its values, rising; the one recommended, the best, and the noise between
    them: shares, with the words that say where it is from."""

    key: str
    lines: tuple[Line, ...]
    taken: Line
    best: Line
    noise: float
    noise_words: str


def read(folder: Path) -> Short:
    """UsageError if it is no finished run, DataError if a file of it is damaged."""
    for name in ("config.yaml", "table.json"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is no finished run: there is no {name} in it.")
    try:
        config = from_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
        table = from_json((folder / "table.json").read_text(encoding="utf-8"))
        row = {str(name): float(value) for name, value in table["rows"]["trained"].items()}
        num = None if table.get("num_test") is None else int(table["num_test"])
        data = str((table.get("data") or {}).get("fingerprint", ""))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{folder}: config.yaml or table.json is damaged ({type(error).__name__}).") from error
    if not isinstance(config, dict):
        raise DataError(f"{folder}/config.yaml is not the configuration of a run.")
    share = read_curves(folder / "metrics.jsonl").get(_SHARE)
    told = {**essence(config), **dict(_weights(config))}
    end = None if share is None else at_the_end(share)
    return Short(folder, config.get("seed"), told, row, end, num, data)


def _weights(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The weights of all terms, also those that are what they are if nobody says anything."""
    for group in ("identity", "manipulation"):
        for name, term in (config.get(group) or {}).items():
            if isinstance(term, Mapping) and "weight" in term:
                yield f"{group}.{name}.weight", term["weight"]


def differing(runs: Sequence[Short]) -> str:
    """The weight that the runs differ in; UsageError, which names the keys, unless it is one weight and nothing else.

    A run without the term altogether (manipulation=none) is one of weight 0.
    """
    keys = sorted({key for run in runs for key in run.config})
    different = [key for key in keys if len({_same(run.config.get(key)) for run in runs}) > 1]
    weights = [key for key in different if _WEIGHT.fullmatch(key)]
    if len(weights) == 1:
        term = weights[0].removesuffix("weight")
        having = [run for run in runs if weights[0] in run.config]
        for key in [key for key in different if key.startswith(term) and key != weights[0]]:
            if len({_same(run.config.get(key)) for run in having}) == 1:
                different.remove(key)
    if not different:
        raise UsageError("these runs differ in no key but their seed: runs with different weights are compared.")
    if len(weights) != 1 or len(different) > 1:
        more = f" and {len(different) - _MOST} more" if len(different) > _MOST else ""
        raise UsageError(
            f"these runs differ in {', '.join(different[:_MOST])}{more}: runs are compared that differ in one weight"
            " (such as manipulation.binned.weight) and in their seeds alone."
        )
    return weights[0]


def _same(value: Any) -> str:
    """What is the same for equal values: 1 is 1.0, and no key at all is null."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return repr(float(value) if number else value)


def choose(runs: Sequence[Short], metric: str = KNN, noise: float | None = None) -> Choice:
    """The largest weight whose metric is within the noise of the best. noise: a share; None: the binomial standard
    error on the test samples (NOISE if their number is not known), or that over seeds if it is larger."""
    if len(runs) < 2:
        raise UsageError(
            f"one run shows no choice: at least two that differ in a weight are needed. To make some: {HOW}"
        )
    key = differing(runs)
    _apart(runs, key)
    shares = sorted({name for run in runs for name in run.row if name.endswith(("/top1", "/acc"))})
    for run in runs:
        if metric not in run.row or metric not in shares:
            known = ", ".join(shares) or "no share of samples at all"
            raise UsageError(f"{run.folder} has no {metric} that could decide: choose --metric among {known}.")
    lines = tuple(_line(weight, same, metric) for weight, same in sorted(_by_weight(runs, key).items()))
    best = max(lines, key=lambda line: line.score)
    if noise is None:
        noise, words = _noise(runs, lines, best)
    else:
        words = "as --noise says"
    taken = max((line for line in lines if line.score >= best.score - noise), key=lambda line: line.weight)
    return Choice(key, lines, taken, best, noise, words)


def _apart(runs: Sequence[Short], key: str) -> None:
    """UsageError if a run is there twice, or if runs learnt from different samples."""
    met: dict[Any, Path] = {}
    for run in runs:
        folder, draw = run.folder.absolute(), (_same(run.config.get(key, 0.0)), _same(run.seed))
        if folder in met:
            raise UsageError(f"{run.folder} is named twice: a run counts once.")
        if draw in met:
            raise UsageError(
                f"{met[draw]} and {run.folder} are both runs of seed {run.seed} at {key}={run.config.get(key, 0.0)}:"
                " one draw counts once."
            )
        met |= {folder: run.folder, draw: run.folder}
    if len({run.data for run in runs if run.data}) > 1:
        raise UsageError("these runs learnt from different samples: the fingerprints of their data differ.")


def _by_weight(runs: Sequence[Short], key: str) -> dict[float, list[Short]]:
    found: dict[float, list[Short]] = {}
    for run in runs:
        try:
            found.setdefault(float(run.config.get(key, 0.0)), []).append(run)
        except (TypeError, ValueError):
            raise DataError(f"{run.folder}/config.yaml: {key}={run.config[key]!r} is no number.") from None
    return found


def _line(weight: float, runs: Sequence[Short], metric: str) -> Line:
    names = [name for name in runs[0].row if all(name in run.row for run in runs)]
    row = {name: float(np.mean([run.row[name] for run in runs])) for name in names}
    scores = [run.row[metric] for run in runs]
    deviation = float(np.std(scores, ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else math.nan
    bits = [value for name, value in row.items() if name.startswith(BITS)]
    shares = [run.grad_share for run in runs if run.grad_share is not None]
    mean_bits, share = (float(np.mean(found)) if found else math.nan for found in (bits, shares))
    seeds = tuple(sorted((run.seed for run in runs), key=str))
    return Line(weight, seeds, row, row[metric], deviation, mean_bits, share)


def _noise(runs: Sequence[Short], lines: Sequence[Line], best: Line) -> tuple[float, str]:
    # All runs are tested on the same samples, so that seeds do not make these more.
    nums = [run.num_test for run in runs if run.num_test]
    if nums:
        noise = math.sqrt(best.score * (1 - best.score) / min(nums))
        words = f"the standard error on {min(nums):,} test samples"
    else:
        noise, words = NOISE, "taken for the standard error: the number of test samples is not known"
    # Pooled over the weights: two or three seeds of one weight alone say little.
    spread = [line.deviation for line in lines if not math.isnan(line.deviation)]
    over_seeds = math.sqrt(sum(d**2 for d in spread) / len(spread)) if spread else 0.0
    return (over_seeds, "the standard error over seeds") if over_seeds > noise else (noise, words)
