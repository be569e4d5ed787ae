"""`stec-report pick RUN RUN ...`: which weight? Compares short runs that differ in the weight of one term."""

import argparse
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stec.comparison import pick
from stec.comparison.pick import HOW, KNN, LINEAR, Choice, Line
from stec.errors import UsageError
from stec.report.text import shown


def run(words: list[str]) -> int:
    """Print a line for each weight and a recommendation."""
    parser = argparse.ArgumentParser(
        prog="stec-report pick",
        description=__doc__,
        epilog=f"short runs are made by such a line (a run_dir of its own for each):\n  {HOW}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run directory; seeds are averaged")
    parser.add_argument("--metric", default=KNN, help="the share of samples that decides; default: %(default)s")
    parser.add_argument(
        "--noise",
        type=float,
        metavar="POINTS",
        help="differences below this many points count for nothing; default: the standard error on the test samples",
    )
    arguments = parser.parse_args(words)
    if arguments.noise is not None and not 0 <= arguments.noise < 100:
        raise UsageError(f"--noise {arguments.noise:g} must be at least 0 points and below 100.")
    noise = None if arguments.noise is None else arguments.noise / 100
    choice = pick.choose([pick.read(folder) for folder in arguments.runs], arguments.metric, noise)
    _show(choice, arguments.metric)
    if len({line.seeds for line in choice.lines}) > 1:
        told = "; ".join(f"{line.weight:g}: {', '.join(map(str, line.seeds))}" for line in choice.lines)
        print(f"The seeds are not the same at all weights, so that draws are compared too ({told}).")
    print(sentence(choice, arguments.metric))
    return 0


def sentence(choice: Choice, metric: str) -> str:
    """What is recommended, and why."""
    taken, best = choice.taken, choice.best
    noise, last = f"{100 * choice.noise:.2g} points, {choice.noise_words}", taken is choice.lines[-1]
    if taken is not best:
        why = (
            f"the largest weight whose {metric} ({shown(taken.score, '%')}) is within the noise ({noise}) of the best"
            f" ({shown(best.score, '%')} at {best.weight:g})"
        )
        end = ". It is the largest of these: larger ones may do as well." if last else "."
    elif last:
        why = f"the best {metric} ({shown(best.score, '%')})"
        end = f" and the largest of these weights: larger ones may be better still (noise: {noise})."
    else:
        why = f"the best {metric} ({shown(best.score, '%')})"
        end = f", and all larger weights are below it by more than the noise ({noise})."
    return f"Take {choice.key}={taken.weight:g}: {why}{end}"


def _show(choice: Choice, metric: str) -> None:
    table = Table(title=choice.key)
    shares = {KNN: "k-NN", LINEAR: "linear", metric: {KNN: "k-NN", LINEAR: "linear"}.get(metric, metric)}
    shares = {name: title for name, title in shares.items() if any(name in line.row for line in choice.lines)}
    for title in ("weight", "seeds", *shares.values(), "bits, mean", "gradient's share"):
        table.add_column(title, justify="right")
    for line in choice.lines:
        table.add_row(*_cells(line, list(shares), metric), style="bold" if line is choice.taken else None)
    Console().print(table)


def _cells(line: Line, shares: list[str], metric: str) -> list[str]:
    cells = [f"{line.weight:g}", str(len(line.seeds))]
    for name in shares:
        text = shown(line.row[name], "%") if name in line.row else "–"
        known = name == metric and not math.isnan(line.deviation)
        cells.append(f"{text} ± {100 * line.deviation:.1f}" if known else text)
    return [*cells, shown(line.bits, "bits"), shown(line.grad_share)]
