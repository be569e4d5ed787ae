"""`stec-doctor`: what can this installation do? `stec-doctor plugin NAME`: does a modality keep its contract?
`stec-doctor speed data=PATH`: how fast would a recipe train here, and what limits it?"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from stec import __version__
from stec.cli.door import guarded, logged

if TYPE_CHECKING:
    from stec.testing import Finding

_MARKS = {"passed": "ok", "skipped": "--", "failed": "FAILED"}


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 1 if something is broken, or a modality breaks its contract; 2 for a slip of the user."""
    parser = argparse.ArgumentParser(prog="stec-doctor", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    text = "check what the parts of an installed modality promise, on the samples of its example"
    plugin = commands.add_parser("plugin", help=text, description=text)
    plugin.add_argument("name", metavar="NAME", help="of the modality; an unknown name lists them")
    plugin.add_argument("--all", action="store_true", help="also say why checks were skipped")
    text = "measure for half a minute how fast a recipe would train on this machine, and say what limits it"
    packs = "A folder is packed first, once, as stec-train would."
    speed = commands.add_parser("speed", help=text, description=f"{text[0].upper()}{text[1:]}. {packs}")
    speed.add_argument("words", nargs="+", metavar="key=value", help="as for stec-train: data=PATH recipe=NAME ...")
    arguments = parser.parse_args(argv)
    if arguments.command == "speed":
        return _speed(arguments.words)
    return _plugin(arguments.name, arguments.all) if arguments.command == "plugin" else _installation()


def _speed(words: list[str]) -> int:
    from stec.cli.doctor_speed import speed

    with logged():
        for line in speed(words):
            print(line, flush=True)
    return 0


def _plugin(name: str, everything: bool) -> int:
    from stec.testing import cases

    found: list[Finding] = []
    for case in cases(name):
        finding = case.finding()
        found.append(finding)
        print(f"{_MARKS[finding.outcome]:6}  {finding.part}: {finding.check}", flush=True)
        if finding.outcome == "failed":
            print(f"        {finding.words}\n        (what is promised: {case.promise})", flush=True)
        elif finding.outcome == "skipped" and everything:
            print(f"        skipped: {finding.words}")
    num = {outcome: sum(f.outcome == outcome for f in found) for outcome in _MARKS}
    skipped = f", {num['skipped']} skipped" + ("" if everything else " (--all says why)") if num["skipped"] else ""
    kept = "breaks" if num["failed"] else "keeps"
    print(f"{name} {kept} its contract: {num['passed']} checks passed, {num['failed']} failed{skipped}.")
    return 1 if num["failed"] else 0


def _installation() -> int:
    troubles = [
        *_section("software", _software()),
        *_section("optional extras", _extras()),
        *_section("hardware", _hardware()),
        *_section("modalities", _modalities()),
        *_section("data and recipes", _places()),
    ]
    print(
        f"\n{len(troubles)} thing{'s' * (len(troubles) != 1)} to mend, marked with !" if troubles else "\nAll is well."
    )
    return 1 if troubles else 0


Line = tuple[str, bool]
"""What is told, and whether it is as it should be."""


def _section(title: str, lines: Iterator[Line]) -> list[str]:
    """Print the lines under a title; the troubles among them."""
    print(f"{title}:")
    troubles = []
    for text, well in lines:
        print(f"{'  ' if well else '! '}{text}", flush=True)
        troubles += [] if well else [text]
    return troubles


def _software() -> Iterator[Line]:
    yield f"stec {__version__}, Python {sys.version.split()[0]} ({sys.platform})", True
    found = {name: _version(name) for name in _needed(None)}
    there = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    yield there, True
    for name in (name for name, number in found.items() if not number):
        yield f"{name} is missing: pip install {name}", False


def _extras() -> Iterator[Line]:
    for extra in sorted(metadata("stec").get_all("Provides-Extra") or []):
        missing = [name for name in _needed(extra) if not _version(name)]
        how = f"not here: {', '.join(missing)} (pip install 'stec[{extra}]')" if missing else "present"
        yield f"stec[{extra}]: {how}", True


def _hardware() -> Iterator[Line]:
    import torch

    from stec.cores import cores
    from stec.training.options import Hardware

    yield f"hardware=auto: {Hardware().describe()}", True
    yield f"{cores()} cores for this process, torch computes with {torch.get_num_threads()} threads", True
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB", True
    if not torch.cuda.device_count():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs alone"
        yield f"no GPU (this torch is {built})", True


def _modalities() -> Iterator[Line]:
    from stec.catalogue import Entry, installed, load
    from stec.errors import StecError

    known, broken = installed()
    for distribution, modality in known:
        yield f"{modality.name} (of {distribution})", True
        for kind, parts in modality.parts.items():
            yield f"  {kind}: {', '.join(parts)}", True
            for name, target in parts.items():
                try:
                    load(kind, name, Entry(target, distribution))
                except StecError as error:
                    yield f"  {error}", False
    for sentence in broken:
        yield sentence, False
    if not known:
        yield "there is none: is stec installed (pip install), or only lying about?", False


def _places() -> Iterator[Line]:
    from stec.cli import recipes
    from stec.data import cache
    from stec.errors import StecError

    place = cache()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            yield f"packed data is kept in {place}", True
    except OSError as error:
        yield f"the cache {place} cannot be written ({error.strerror}): set STEC_CACHE.", False
    try:
        yield f"{len(recipes.listing())} recipes (stec-train lists them)", True
    except StecError as error:
        yield str(error), False


def _needed(extra: str | None) -> list[str]:
    """Distributions that stec needs; with `extra`, those that this extra adds."""
    found = []
    for line in requires("stec") or []:
        wanted = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", line)
        if (wanted[1] if wanted else None) == extra:
            found.append(re.split(r"[^\w.-]", line, maxsplit=1)[0])
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
