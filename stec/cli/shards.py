"""`stec-shards pack | index | verify | ls`: data sets as plain WebDataset tars with an index."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stec.catalogue import find
from stec.cli.door import guarded, logged
from stec.errors import DataError, UsageError
from stec.nodes import checked
from stec.shards.index import NAME, index_folder
from stec.shards.reader import Shards, open_shards
from stec.shards.verify import verify
from stec.shards.writer import MAX_BYTES, SAMPLES_PER_SHARD, pack


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 2 for a slip of the user; 4 for damaged data, and if verify finds any problem."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "pack":
        # argparse takes the words after SOURCE for strangers if an option stands between them.
        arguments.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stec-shards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("pack", help="read a data set with a packer and write it as shards")
    one.add_argument(
        "words", nargs="*", metavar="SOURCE [key=value ...]", help="what the packer reads, and its options"
    )
    one.add_argument("--packer", required=True, help="who reads the source; an unknown name lists them")
    one.add_argument("--out", required=True, type=Path, help="the folder to make; it must not exist")
    one.add_argument("--samples-per-shard", type=int, default=SAMPLES_PER_SHARD, help="default: %(default)s")
    one.add_argument("--shard-mib", type=int, default=MAX_BYTES >> 20, help="no shard is larger; default: %(default)s")
    one.set_defaults(run=_pack)

    for name, run, text in (
        ("index", _index, "index tars written by others, in place: each folder is one split"),
        ("verify", _verify, "read everything again and report every problem"),
        ("ls", _ls, "what is in a split or in a packed data set"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
        one.set_defaults(run=run)
        if name == "ls":
            one.add_argument("--shard", help="print the keys in this tar, such as train-000000.tar")
            one.add_argument("--sample", type=int, help="print key and members of the sample with this number")
    return parser


def _pack(arguments: argparse.Namespace) -> int:
    words = arguments.words
    source = words.pop(0) if words and ("=" not in words[0] or Path(words[0]).exists()) else ""
    packer = find("packer", arguments.packer)
    options = checked(packer, _options(words), "packer")
    line = _Line()
    with logged():
        pack(
            packer(source, **options),
            arguments.out,
            samples_per_shard=arguments.samples_per_shard,
            max_bytes=arguments.shard_mib << 20,
            progress=lambda done, split: line.show(f"{split}: {done:,} samples"),
        )
    line.end()
    for folder in _splits(arguments.out):
        print(f"{folder}: {_summary(open_shards(folder))}")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    line = _Line()
    for folder in arguments.folders:
        index = index_folder(folder, progress=lambda done, total, name: line.show(f"{done} of {total} tars: {name}"))
        line.end()
        print(f"{folder}: {_summary(open_shards(folder))}")
        if index.num_skipped:
            print(f"{folder}: {index.num_skipped:,} entries skipped: links, hidden files or files without extension")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    line = _Line()
    found = 0
    for folder in [split for root in arguments.folders for split in _splits(root)]:
        problems = verify(folder, progress=lambda done, total, name: line.show(f"{done} of {total} tars: {name}"))
        line.end()
        for problem in problems:
            print(f"{folder}: {problem}")
        if not problems:
            print(f"{folder}: as indexed: {_summary(open_shards(folder))}")
        found += len(problems)
    if found:
        raise DataError(f"{_count(found, 'problem')} found.")
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    folders = [split for root in arguments.folders for split in _splits(root)]
    if arguments.shard is not None or arguments.sample is not None:
        if len(folders) != 1:
            raise UsageError(f"one split was expected, these are {len(folders)}: {', '.join(map(str, folders))}.")
        _print_samples(open_shards(folders[0]), arguments.shard, arguments.sample)
        return 0
    for folder in folders:
        shards = open_shards(folder)
        print(f"{folder}: {_summary(shards)}")
        for name, size in zip(shards.shard_names, shards.shard_sizes, strict=True):
            print(f"  {name}  {size:,}")
    return 0


def _print_samples(shards: Shards, shard: str | None, sample: int | None) -> None:
    """Number and key of the samples of a tar; or key and sizes of the members of one sample."""
    if shard is not None:
        if shard not in shards.shard_names:
            raise UsageError(f"{shard}: not in this split; its shards are {shards.shard_names[0]} and so on.")
        place = shards.shard_names.index(shard)
        first = sum(shards.shard_sizes[:place])
        for number in range(first, first + shards.shard_sizes[place]):
            print(f"{number}\t{shards.key(number)}")
    if sample is not None:
        if not 0 <= sample < shards.num_samples:
            raise UsageError(f"--sample {sample}: a number from 0 to {shards.num_samples - 1} was expected.")
        members = ", ".join(f"{field} {len(data):,} bytes" for field, data in shards.read(sample).items())
        print(f"{shards.where(sample)}\t{members}")


def _splits(root: Path) -> list[Path]:
    """The indexed folder itself, or those directly below it."""
    if (root / NAME).is_file():
        return [root]
    found = sorted(path.parent for path in root.glob(f"*/{NAME}"))
    if not found:
        raise UsageError(f"{root}: no {NAME} here or one level below: `stec-shards index` makes one for tars.")
    return found


def _options(words: list[str]) -> dict[str, Any]:
    """key=value words as hydra would read them."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"{word!r}: key=value was expected after the source.")
    try:
        return dict(OmegaConf.to_container(OmegaConf.from_dotlist(words)))  # type: ignore[arg-type]
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"{' '.join(words)}: not readable as key=value: {error}") from error


def _summary(shards: Shards) -> str:
    """Counts, bytes, fields and classes in a line."""
    classes = shards.meta.get("classes", [])
    named = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
    held = f"{_count(shards.num_samples, 'sample')} in {_count(len(shards.shard_sizes), 'shard')}"
    described = f"{held}, {shards.num_bytes / 1e6:,.1f} MB, fields {' '.join(shards.fields)}"
    return described + (f"; {len(classes):,} classes: {named}" if classes else "")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


class _Line:
    """How far it is, on stderr: one line that is written over on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._due = time.monotonic() + (0.1 if self._tty else 10)

    def show(self, text: str) -> None:
        if (now := time.monotonic()) >= self._due:
            self._due = now + (0.1 if self._tty else 10)
            print(f"\r\033[K{text}" if self._tty else text, end="" if self._tty else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
