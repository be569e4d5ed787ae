"""Facts -> report.html: one file without scripts, links or fonts from elsewhere."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from stec import __version__
from stec.report.charts import NUM_COLOURS, class_name, colour, confusion, lines, scatter
from stec.report.facts import Column, Curve, Facts, Map, Predicted
from stec.report.style import STYLE
from stec.report.text import escape, shown
from stec.whole import write_whole

# What is shown of the run, in this order: title, metric (ending in "/": all below it), unit, what to make of it.
_PANELS = (
    ("Identity loss", "train/loss_id", "nats", "Is it the same thing?"),
    ("Manipulation loss", "train/loss_manip", "nats", "What was done? Mean over components."),
    ("Action bits, while training", "train/action_bits/", "bits", "Above chance: the action is seen."),
    ("Online probe", "probe/online/top1", "%", "Top-1 of a linear probe on detached features."),
    ("Spread of the embeddings", "train/z_std", "", "A fall to 0 is collapse."),
    ("Effective rank", "train/rankme", "", "RankMe: how many dimensions are in use."),
)
# Of several terms these are the weighted sum, and each term has a panel of its own.
_SUMS = ("train/loss_id", "train/loss_manip")
_LEGEND = 20
# Bytes of pictures: with base64's third on top and the rest of the page, a report stays below 3 MB.
_PICTURES = 2_000_000

# Nothing may be loaded or run, whatever a class name or a path in the page says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_page(path: str | Path, facts: Facts) -> None:
    """Write the page, whole or not at all."""
    # Names of files need not be text: what cannot be written is shown as a question mark.
    write_whole(Path(path), page(facts).encode("utf-8", errors="replace"))


def page(facts: Facts) -> str:
    """The whole page as HTML."""
    sections = (_heading, _table, _pairs, _predicted, _curves, _maps, _commands)
    body = "\n".join(text for section in sections if (text := section(facts)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(facts.name)}: report</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
<footer>Written by stec {escape(__version__)}. It needs no other file and no network.</footer>
</main>
</body>
</html>
"""


def _heading(facts: Facts) -> str:
    details = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.details.items())
    parts = [f"<h1>{escape(facts.name)}</h1>", f'<p class="lead">{escape(facts.trained)}</p>']
    parts += [f'<p class="warning">{escape(warning)}</p>' for warning in facts.warnings]
    if details:
        parts.append(f'<dl class="details">{details}</dl>')
    if facts.objective:
        parts.append(f'<p class="objective mono">{escape(facts.objective)}</p>')
    return "\n".join(parts)


def _table(facts: Facts) -> str:
    if not facts.columns or not facts.rows:
        return ""
    best = {column.key: _best(facts, column) for column in facts.columns}
    lines_of_table = []
    for name, row in facts.rows.items():
        cells = "".join(_cell(column, row.get(column.key), best[column.key]) for column in facts.columns)
        dress = ' class="last"' if name == list(facts.rows)[-1] else ""
        lines_of_table.append(f'<tr{dress}><th scope="row">{escape(name)}</th>{cells}</tr>')
    if any(column.chance is not None for column in facts.columns):
        cells = "".join(
            f"<td>{'' if column.chance is None else shown(column.chance, column.unit)}</td>" for column in facts.columns
        )
        lines_of_table.append(f'<tr class="chance"><th scope="row">chance</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{_breakable(column.label)}</th>' for column in facts.columns)
    how = "".join(f"<dt>{escape(what)}</dt><dd>{escape(words)}</dd>" for what, words in facts.protocol.items())
    protocol = f'<dl class="protocol">{how}</dl>' if how else ""
    return f"""<section>
<h2>What was learnt</h2>
<p class="hint">The best of each column in bold, if it is above chance. The upright mark on a bar is chance.</p>
<div class="wide"><table style="min-width:{150 + 90 * len(facts.columns)}px">
<thead>{_groups(facts.columns)}<tr><th></th>{head}</tr></thead>
<tbody>{"".join(lines_of_table)}</tbody></table></div>
{protocol}
</section>"""


def _groups(columns: Sequence[Column]) -> str:
    """The row above the heads, in which neighbours of one group share a cell; nothing if there are no groups."""
    if not any(column.group for column in columns):
        return ""
    runs = [(name, len(list(run))) for name, run in groupby(columns, key=lambda column: column.group)]
    cells = "".join(f'<th scope="colgroup" colspan="{size}">{escape(name)}</th>' for name, size in runs)
    return f'<tr class="groups"><th></th>{cells}</tr>'


def _breakable(name: str) -> str:
    """A name that may be broken after its underscores rather than anywhere."""
    return escape(name).replace("_", "_<wbr>")


def _best(facts: Facts, column: Column) -> float:
    values = [row[column.key] for row in facts.rows.values() if column.key in row]
    return max((value for value in values if np.isfinite(value)), default=float("nan"))


def _cell(column: Column, value: float | None, best: float) -> str:
    if value is None or not np.isfinite(value):
        return "<td>–</td>"
    most = best if column.most is None else column.most
    share = 100 * min(max(value / most, 0), 1) if most > 0 else 0
    mark = ""
    if column.chance is not None and most > 0:
        mark = f'<b style="left:{100 * min(max(column.chance / most, 0), 1):.1f}%"></b>'
    # Equal as shown is equal: a bold figure beside the same figure would claim a difference that is not there.
    text = shown(value, column.unit)
    above = column.chance is None or value > column.chance
    dress = ' class="best"' if above and text == shown(best, column.unit) else ""
    return f'<td{dress}>{escape(text)}<span class="bar"><i style="width:{share:.1f}%"></i>{mark}</span></td>'


def _pairs(facts: Facts) -> str:
    figures, bytes_left = [], _PICTURES
    for pair in facts.pairs:
        bytes_left -= len(pair.picture)
        if bytes_left < 0:
            break
        source = base64.b64encode(pair.picture).decode("ascii")
        predicted = f"<dt>model says</dt><dd>{escape(pair.predicted)}</dd>" if pair.predicted else ""
        figures.append(
            f'<figure><img src="data:image/png;base64,{source}" alt="{escape(pair.action)}">'
            f"<dl><dt>was done</dt><dd>{escape(pair.action)}</dd>{predicted}</dl></figure>"
        )
    if not figures:
        return ""
    left_out = len(facts.pairs) - len(figures)
    note = f" {left_out} more are left out to keep this page small." if left_out else ""
    return f"""<section>
<h2>Pairs of views, and the action between them</h2>
<p class="hint">{escape(facts.pairs_from)} The action leads from view 1 to view 2.{note}</p>
<div class="pairs">{"".join(figures)}</div>
</section>"""


def _predicted(facts: Facts) -> str:
    figures = [_component(predicted) for predicted in facts.predicted if len(predicted.true)]
    if not figures:
        return ""
    return f"""<section>
<h2>Predicted against true actions</h2>
<p class="hint">{escape(facts.predicted_from)} Each row is one bin of the true value and shows, in per cent, what
was predicted for its pairs: a model that sees the action fills the outlined diagonal.</p>
<div class="charts confusion">{"".join(figures)}</div>
</section>"""


def _component(predicted: Predicted) -> str:
    # Components with fewer bins than others come padded with infinite edges.
    predicted = predicted._replace(edges=predicted.edges[np.isfinite(predicted.edges)])
    num_bins = len(predicted.edges) + 1
    accuracy = float((predicted.true == predicted.predicted).mean())
    majority = float(np.bincount(predicted.true, minlength=num_bins).max() / len(predicted.true))
    bits = "" if predicted.bits is None else f" {shown(predicted.bits, 'bits')}."
    return (
        f"<figure><h3>{escape(predicted.name)}</h3>"
        f'<p class="hint">{escape(predicted.meaning or predicted.unit)}</p>{confusion(predicted)}'
        f"<figcaption>{shown(accuracy, '%')} right (guessing {shown(1 / num_bins, '%')}, always the fullest bin "
        f"{shown(majority, '%')}).{bits}</figcaption></figure>"
    )


def _curves(facts: Facts) -> str:
    figures = [figure for panel in _panels(facts.curves) if (figure := _panel(*panel, facts.curves, facts.chance))]
    if not figures:
        return ""
    dashed = any('<line class="chance"' in figure for figure in figures)
    return f"""<section>
<h2>The run</h2>
<p class="hint">Over optimiser steps.{" Dashed: what a guesser gets who sees nothing." if dashed else ""}</p>
<div class="charts">{"".join(figures)}</div>
</section>"""


def _panels(curves: Mapping[str, Curve]) -> Iterator[tuple[str, str, str, str]]:
    """What may be shown, with the single terms of a loss after their sum."""
    for title, metric, unit, hint in _PANELS:
        terms = [name for name in curves if name.startswith(f"{metric}/")] if metric in _SUMS else []
        yield title, metric, unit, f"{hint} The terms' weighted sum." if terms else hint
        for term in terms:
            yield f"{title}: {term.removeprefix(f'{metric}/')}", term, unit, "This term alone, before its weight."


def _panel(
    title: str, metric: str, unit: str, hint: str, curves: Mapping[str, Curve], chance: Mapping[str, float]
) -> str:
    scale = 100 if unit == "%" else 1

    def belongs(name: str) -> bool:
        return name.startswith(metric) if metric.endswith("/") else name == metric

    found = {
        name.removeprefix(metric) or title: Curve(curve.steps, curve.values * scale)
        for name, curve in curves.items()
        if belongs(name) and np.isfinite(curve.values).any()
    }
    if not found:
        return ""
    # Lines of one panel share their chance level, or none is drawn.
    levels = {level for name, level in chance.items() if belongs(name)}
    level = next(iter(levels)) if len(levels) == 1 else None
    keys = []
    for place, (name, curve) in enumerate(found.items()):
        last = curve.values[np.isfinite(curve.values)][-1] / scale
        text = shown(float(last), unit)
        label = f"{escape(name)} {escape(text)}" if metric.endswith("/") else f"{escape(text)} at the end"
        keys.append(f'<li><span class="swatch c{place % NUM_COLOURS}"></span>{label}</li>')
    if level is not None:
        keys.append(f'<li><span class="dash"></span>chance {escape(shown(level, unit))}</li>')
    chart = lines(found, None if level is None else level * scale, title)
    shown_unit = f', <span class="soft">{escape(unit)}</span>' if unit else ""
    return (
        f'<figure><h3>{escape(title)}{shown_unit}</h3><p class="hint">{escape(hint)}</p>{chart}'
        f'<ul class="legend row">{"".join(keys)}</ul></figure>'
    )


def _maps(facts: Facts) -> str:
    drawn = [_map(flat) for flat in facts.maps if len(flat.places)]
    if not drawn:
        return ""
    heading = "A map of the embeddings" if len(drawn) == 1 else "Maps of the embeddings"
    return f"<section>\n<h2>{heading}</h2>\n" + "\n".join(drawn) + "\n</section>"


def _map(flat: Map) -> str:
    labels = [int(label) for label in np.unique(flat.labels)]
    keys = []
    if labels == [-1]:
        note = "The data has no labels: all samples are drawn alike."
    elif flat.coloured is not None:
        num = sum(label >= 0 for label in labels)
        note = f"Coloured: the {len(flat.coloured)} most frequent of {num} classes; all others are grey."
        keys = [(colour(flat, label), class_name(flat, label)) for label in flat.coloured] + [("none", "others")]
    elif len(labels) <= _LEGEND:
        note = "Coloured by class."
        keys = [(colour(flat, label), class_name(flat, label)) for label in labels]
    else:
        note = f"Coloured by class; {len(labels)} classes share "
        note += f"{2 * NUM_COLOURS} looks: rest the pointer on a sample for its name."
    each = "".join(f'<li><span class="swatch {dress}"></span>{escape(name)}</li>' for dress, name in keys)
    legend = f'<ul class="legend">{each}</ul>' if keys else ""
    title = f"<h3>{escape(flat.title)}</h3>\n" if flat.title else ""
    return f"""{title}<p class="hint">{escape(flat.method)}. {note}</p>
<div class="map"><figure>{scatter(flat)}</figure>{legend}</div>"""


def _commands(facts: Facts) -> str:
    if not facts.commands:
        return ""
    each = "".join(f"<h3>{escape(c.purpose)}</h3><pre><code>{escape(c.line)}</code></pre>" for c in facts.commands)
    return f"<section>\n<h2>How to go on</h2>\n{each}\n</section>"
