"""All checks of a modality, each with the part it is about: as a list of findings, or one by one for pytest."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from stec.catalogue import installed, nearest
from stec.errors import UsageError
from stec.testing import decoders, encoders, laws, samples, spaces, whole
from stec.testing.bench import Bench
from stec.testing.decoders import Decoding
from stec.testing.encoders import Encoding
from stec.testing.fault import Fault, Skip
from stec.testing.spaces import Space

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Finding(NamedTuple):
    """What came of a check. outcome: passed, failed or skipped; words: what was wrong, or why it was skipped."""

    part: str
    check: str
    outcome: str
    words: str


class Case(NamedTuple):
    """One check of one part, not run yet. promise: what is checked, in words. Called, it raises a Fault that says what
    is wrong, or unittest.SkipTest, which pytest understands."""

    part: str
    check: str
    promise: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.part}: {self.check}"

    def __call__(self) -> None:
        self.run()

    def finding(self) -> Finding:
        """Run it."""
        try:
            self.run()
        except Skip as reason:
            return Finding(self.part, self.check, SKIPPED, str(reason))
        except Fault as fault:
            return Finding(self.part, self.check, FAILED, str(fault))
        except Exception as error:  # a stranger's part may raise anything
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
            return Finding(self.part, self.check, FAILED, f"it raised {type(error).__name__}: {error}{where}")
        return Finding(self.part, self.check, PASSED, "")


def check(name: str) -> list[Finding]:
    """Run all checks of the modality `name`; UsageError if none of that name is installed."""
    return [case.finding() for case in cases(name)]


def cases(name: str) -> list[Case]:
    """All checks of the modality `name`; UsageError with the nearest name if there is none, or with what is wrong with
    those that cannot be read."""
    known, broken = installed()
    found = {one.modality.name: one for one in known}
    if len(owners := [one.distribution for one in known if one.modality.name == name]) > 1:
        raise UsageError(f"the modality {name!r} is declared by both {owners[0]} and {owners[1]}: uninstall one.")
    if name not in found:
        unread = "".join(f" Not readable: {sentence}" for sentence in broken)
        raise UsageError(f"there is no modality {name!r} installed: {nearest(name, found)}{unread}")
    return list(all_cases(Bench(found[name])))


def all_cases(bench: Bench) -> Iterator[Case]:
    """All checks of the modality on the bench, which notes those that fail."""
    for case in _cases(bench):
        yield case._replace(run=partial(_noted, bench, case))


def _noted(bench: Bench, case: Case) -> None:
    try:
        case.run()
    except Skip:
        raise
    except Exception:
        bench.failed.append(str(case))
        raise


def _cases(bench: Bench) -> Iterator[Case]:
    for name in bench.names("example"):
        yield from _of("example", name, (samples.an_example, samples.samples_as_packed), lambda _: bench.example, bench)
    for name in bench.names("packer"):
        yield _case(f"packer {name}", samples.a_packer, partial(samples.a_packer, bench, name))
    for name in bench.names("action_space"):
        yield from _of("action_space", name, (*spaces.CHECKS, *laws.CHECKS), partial(_space, bench), bench)
    for name in bench.names("decoder"):
        yield from _of("decoder", name, decoders.CHECKS, partial(_decoding, bench), bench)
    for name in bench.names("encoder"):
        yield from _of("encoder", name, encoders.CHECKS, partial(_encoding, bench), bench)
    for name in bench.names("probe"):
        yield from _of("probe", name, samples.PROBE, partial(samples.asking, bench), bench)
    for name in bench.names("picture"):
        yield from _of("picture", name, (samples.draws,), partial(samples.drawing, bench), bench)
    yield _case("all parts", whole.views, partial(whole.views, bench))
    yield _case("all parts", whole.overfit, partial(whole.overfit, bench))


def _of(
    kind: str, name: str, checks: Sequence[Callable[[Any], None]], subject: Callable[[str], Any], bench: Bench
) -> Iterator[Case]:
    """The checks of one part, the first of which is that it can be made at all."""

    def run(one: Callable[[Any], None]) -> None:
        bench.working(kind, name)
        one(subject(name))

    made = "It is made of what is given to its kind, and of its options."
    yield Case(f"{kind} {name}", "is made", made, partial(bench.part, kind, name))
    for one in checks:
        yield _case(f"{kind} {name}", one, partial(run, one))


def _case(part: str, one: Callable[..., None], run: Callable[[], None]) -> Case:
    return Case(part, one.__name__.replace("_", " "), " ".join((one.__doc__ or "").split()), run)


def _space(bench: Bench, name: str) -> Space:
    extents, x = bench.before(name)
    return Space(bench.part("action_space", name), extents, x)


def _decoding(bench: Bench, name: str) -> Decoding:
    decoder = bench.part("decoder", name)
    return Decoding(decoder, bench.space, bench.raws(decoder))


def _encoding(bench: Bench, name: str) -> Encoding:
    return Encoding(bench.encoder(name), bench.seen)
