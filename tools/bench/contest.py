"""All ways of a row, timed in turn; a peer that is missing, or does not run on this machine, is a sentence."""

from collections.abc import Callable, Mapping

from clock import Work, excuse, interleaved
from process import one_thread
from row import Options, Outcome, Way, per_second, ratios


def contest(makers: Mapping[str, Callable[[], Work]], options: Options, unit: str) -> dict[str, Way]:
    """{name: way} in the order of the makers, in units (such as images/s) of CPU time, by one thread. Each is made and
    tried once before."""
    unit = f"{unit} (CPU)"
    ways, told = {}, {}
    with one_thread():
        for name, make in makers.items():
            try:
                ways[name] = make()
                ways[name]()
            except Exception as error:
                ways.pop(name, None)
                told[name] = Way(name, unit, (), excuse(error))
        seconds = interleaved(ways, options.rounds, least=0 if options.small else 1.0)
    return {name: told.get(name) or per_second(name, seconds[name], unit) for name in makers}


def over(ours: Way, base: Way, ways: Mapping[str, Way], limit: str) -> Outcome:
    """How many times as fast as the base ours is, round by round; which of the two is missing, if one is."""
    shown = [base, *(way for way in ways.values() if way is not base)]
    if missing := ours.missing or base.missing:
        return Outcome(ways=shown, missing=missing)
    return Outcome(ratios(ours.values, base.values), shown, limit)
