"""A table as it stands, laid out for a terminal of some width or for a page of Markdown."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.cells import cell_len
from rich.table import Table as Grid
from rich.text import Text

from stec.comparison.standing import HEADS, Standing, cells

# From so many columns on: what a row is compared with; the smallest difference that could be seen.
COMPARED, SMALLEST = 110, 100
_LABEL, _SEEDS, _WITH, _SEEN, _VERDICT = (
    HEADS.index(head) for head in ("row", "seeds", "compared with", "could be seen", "verdict")
)

_Lines = Sequence[tuple[str, ...]]


def markdown(title: str, told: Sequence[Standing], missing: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The table for a page, the commands of what was not run, and what is to be said below."""
    lines = [f"**{_plain(title)}**", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for group, ones in groupby(told, key=lambda one: one.row.group):
        if group:
            lines.append(f"| **{_plain(group)}** |" + " |" * (len(HEADS) - 1))
        lines += [f"| {' | '.join(_plain(text) for text in cells(one))} |" for one in ones]
    if missing:
        lines += ["", "Not run:", "", "```sh", *missing, "```"]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines)


def printed(told: Sequence[Standing], width: int) -> Iterator[Grid | Text]:
    """What a console of `width` columns prints: the heads, then each group's name, a line of its own, and its rows.

    Columns that say nothing are left out, and on a narrow terminal those that the verdict can do without. Only labels
    and verdicts are folded, at spaces; verdicts are told in full where they fit.
    """
    groups = [(group, list(ones)) for group, ones in groupby(told, key=lambda one: one.row.group)]
    for brief in (False, True):
        texts = {one.row.id: _texts(one, ones, brief, width) for _, ones in groups for one in ones}
        shown = list(_columns(list(texts.values()), width))
        longest = {column: _longest([line[column] for line in texts.values()], column) for column in shown}
        if sum(longest.values()) + len(shown) - 1 <= width:
            break
    widths = _shared(longest, width)
    yield _grid(shown, widths, heads=True)
    for place, (group, ones) in enumerate(groups):
        if group:
            apart = "\n" * (place > 0)
            yield Text.assemble((f"{apart}{group}", "bold"), (f"  {_elsewhere(ones)}".rstrip(), "dim"))
        grid = _grid(shown, widths, heads=False)
        for one in ones:
            line = texts[one.row.id]
            grid.add_row(*(Text(line[column]) for column in shown), style="" if one.ours else "dim")
        yield grid


def _elsewhere(ones: Sequence[Standing]) -> str:
    """The one thing to be said of a group that is not at this scale; "" if some of it is."""
    (said, *others) = {cells(one)[_VERDICT] if one.exists else "" for one in ones}
    return "" if others else said


def _texts(one: Standing, group: Sequence[Standing], brief: bool, width: int) -> tuple[str, ...]:
    line = list(cells(one, brief))
    if one.row.group and _elsewhere(group):
        line[_VERDICT] = ""
    if width < COMPARED:
        line[_SEEDS] = line[_SEEDS].replace(" ", "\n", 1)
    return tuple(line)


def _columns(lines: _Lines, width: int) -> Iterator[int]:
    for column in range(len(HEADS)):
        narrow = (column == _WITH and width < COMPARED) or (column == _SEEN and width < SMALLEST)
        if any(line[column] for line in lines) and not narrow:
            yield column


def _longest(texts: Sequence[str], column: int) -> int:
    return max(cell_len(line) for text in (_head(column), *texts) for line in text.split("\n"))


def _shared(longest: dict[int, int], width: int) -> dict[int, int]:
    """{column: its width}: numbers have what they need; labels and verdicts share what is left."""
    numbers = sum(size + 1 for column, size in longest.items() if column not in (_LABEL, _VERDICT))
    verdict = longest.get(_VERDICT, 0)
    free = max(2, width - numbers - (verdict > 0))
    label = min(longest[_LABEL], max(free - verdict, free // 2))
    return {**longest, _LABEL: label} | ({_VERDICT: min(verdict, free - label)} if verdict else {})


def _grid(shown: Sequence[int], widths: dict[int, int], heads: bool) -> Grid:
    # What divides columns is a space of the box, or a padding of one.
    grid = Grid(box=box.SIMPLE_HEAD, padding=0) if heads else Grid(box=None, padding=(0, 1, 0, 0), show_header=False)
    grid.pad_edge = grid.show_edge = False
    for column in shown:
        left = column in (_LABEL, _WITH, _VERDICT)
        grid.add_column(Text(_head(column)), justify="left" if left else "right", width=widths[column], overflow="fold")
    return grid


def _head(column: int) -> str:
    """Of two lines at most, so that numbers stand close."""
    return "\n".join(HEADS[column].rsplit(" ", 1))


def _plain(text: str) -> str:
    return text.replace("|", "/")
