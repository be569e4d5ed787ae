"""Arms of an experiment: means over seeds, and paired differences to the first arm with 95 % intervals (Student's t).

    python tools/paired.py simclr='runs/cifar100_small_simclr/seed-*' stec='runs/cifar100_small_simclr_stec/seed-*'

Each NAME=GLOB names the run directories of one arm; a NAME that comes again adds to it, so that the shell may spell
them out: fast=runs/fast-{0,1,2}. Runs are paired by the seed in their config.yaml. The numbers are the "trained" rows
of their table.json. Output: a Markdown table.
"""

import argparse
import json
import statistics
import sys
from glob import glob
from pathlib import Path

import yaml
from scipy import stats

METRICS = ("eval/knn/top1", "eval/linear/top1")
ACTION = "eval/action_bits/"


def arm(pattern: str) -> dict[int, dict[str, float]]:
    """{seed: {metric: value}} of all finished runs that a glob names."""
    found = {}
    for folder in map(Path, sorted(glob(pattern))):
        table = folder / "table.json"
        if table.is_file():
            seed = yaml.safe_load((folder / "config.yaml").read_text())["seed"]
            found[seed] = json.loads(table.read_text())["rows"]["trained"]
    return found


def interval(values: list[float]) -> str:
    """mean with the half-width of its 95 % interval; the mean alone if there is one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.2f} ± {half:.2f}"


def scaled(metric: str, value: float) -> float:
    """Accuracies in per cent, bits as they are."""
    return value if metric.startswith(ACTION) else 100 * value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+", metavar="NAME=GLOB")
    arms: dict[str, dict[int, dict[str, float]]] = {}
    for name, _, pattern in (text.partition("=") for text in parser.parse_args().arms):
        arms.setdefault(name, {}).update(arm(pattern))
    if empty := [name for name, runs in arms.items() if not runs]:
        print(f"no finished run for the arm {empty[0]}.", file=sys.stderr)
        return 2
    first, base = next(iter(arms.items()))
    metrics = [*METRICS, *(m for m in next(iter(base.values())) if m.startswith(ACTION))]
    print("| arm | seeds | " + " | ".join(m.removeprefix("eval/").removesuffix("/top1") for m in metrics) + " |")
    print("|---" * (len(metrics) + 2) + "|")
    for name, runs in arms.items():
        means = (statistics.fmean(scaled(m, row[m]) for row in runs.values()) for m in metrics)
        print(f"| {name} | {len(runs)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    for name, runs in list(arms.items())[1:]:
        seeds = sorted(base.keys() & runs.keys())
        if seeds:
            each = (interval([scaled(m, runs[s][m]) - scaled(m, base[s][m]) for s in seeds]) for m in metrics)
            print(f"| {name} - {first} | {len(seeds)} paired | " + " | ".join(each) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
