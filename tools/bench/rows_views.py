"""R1: from JPEG files in memory to batches of two views at 224, with the actions between them, on one core."""

from collections.abc import Callable, Sequence
from functools import cache

import ours
import peers
from clock import Work
from contest import contest, over
from pictures import jpegs
from row import Options, Outcome, Row, Way

from stec_vision.decode import ImageCrop
from stec_vision.shrink import smaller

_SHORTER = 256
_BASE = "torchvision v1 (PIL)"
_FAST = "stec, augment=fast"
_SMALL = f"stec, augment=fast, from files of shorter side {_SHORTER}"
_PIL = "decoding alone, PIL"
_DECODING = "decoding alone, torchvision"


@cache
def _raws(options: Options) -> list[bytes]:
    return jpegs(6 if options.small else 256, options.photographs)


@cache
def _packed(options: Options) -> list[bytes]:
    """The same, as `stec-shards pack ... shorter=256` stores them."""
    return [made[1] if (made := smaller(raw, _SHORTER)) else raw for raw in _raws(options)]


@cache
def _ways(options: Options) -> dict[str, Way]:
    """All ways, in pictures a second: the three rows are of one run."""
    raws = _raws(options)
    size = min(2 if options.small else 64, len(raws))

    def turning(batch: Callable[[Sequence[int]], object]) -> Work:
        """A way that makes the next batch, round and round."""
        turn = 0

        def way() -> int:
            nonlocal turn
            batch([(turn + number) % len(raws) for number in range(size)])
            turn += size
            return size

        return way

    def theirs(batch: Callable[[Sequence[bytes]], object]) -> Work:
        return turning(lambda numbers: batch([raws[number] for number in numbers]))

    def fast(files: Sequence[bytes]) -> Work:
        space = ours.simclr_space("fast")
        return turning(ours.Maker(files, space, ours.painting_decoder(space)).batch)

    def exact() -> ours.Maker:
        space = ours.simclr_space("exact")
        return ours.Maker(raws, space, ImageCrop(space))

    makers = {
        _BASE: lambda: theirs(peers.torchvision_v1()),
        _FAST: lambda: fast(raws),
        _SMALL: lambda: fast(_packed(options)),
        "stec, augment=exact, all of it on this core, to float": lambda: turning(exact().views),
        "stec, augment=exact, crops alone (the rest is the device's)": lambda: turning(exact().batch),
        "torchvision v2, uint8 tensors": lambda: theirs(peers.torchvision_v2()),
        "lightly, to normalised float": lambda: theirs(peers.lightly()),
        "DALI, CPU, 1 thread": lambda: theirs(peers.dali(size)),
        f"kornia, batches of {size}": lambda: theirs(peers.kornia()),
        _PIL: lambda: theirs(lambda files: [peers.picture(raw) for raw in files]),
        _DECODING: lambda: theirs(lambda files: [peers.stored(raw) for raw in files]),
    }
    return contest(makers, options, "images/s")


def views(options: Options) -> Outcome:
    ways = {name: way for name, way in _ways(options).items() if name != _SMALL}
    return over(ways[_FAST], ways[_BASE], ways, _decoding(options))


def over_decoding(options: Options) -> Outcome:
    ways = {name: _ways(options)[name] for name in (_PIL, _FAST)}
    return over(ways[_FAST], ways[_PIL], ways, _decoding(options))


def smaller_files(options: Options) -> Outcome:
    ways = {name: _ways(options)[name] for name in (_BASE, _SMALL)}
    share = sum(map(len, _packed(options))) / sum(map(len, _raws(options)))
    return over(ways[_SMALL], ways[_BASE], ways, f"as R1; these files have {share:.0%} of the bytes, which is lossy")


def _decoding(options: Options) -> str:
    ways = _ways(options)
    return f"decoding the whole JPEG, {ways[_FAST].median / ways[_DECODING].median:.0%} of the time"


ROWS = [
    Row(
        "R1",
        "JPEG in memory -> 2 views at 224 (augment=fast) and their action, over torchvision v1, one core",
        4.0,
        5.5,
        views,
    ),
    Row("R1b", "the same (augment=fast), over PIL's decoding alone", 0.60, 0.80, over_decoding),
    Row(
        "R1c",
        f"R1 (augment=fast) from files packed with shorter={_SHORTER} (lossy), over v1 on the originals",
        8.0,
        11.0,
        smaller_files,
    ),
]
