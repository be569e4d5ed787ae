"""What is promised of the parts around a sample: example, packer, probe and picture. A Fault says what is wrong."""

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stec.encoder import Features
from stec.errors import DataError, UsageError
from stec.shards.reader import open_shards
from stec.shards.writer import write_split
from stec.testing.bench import Bench, Flow
from stec.testing.encoders import named
from stec.testing.fault import Fault, Skip, require

_FEWEST, _MOST_BYTES = 4, 2**20
_PNG = b"\x89PNG\r\n"


class Asking(NamedTuple):
    """A probe, an encoder that gives what it needs, and the samples it is asked about."""

    probe: Any
    encoder: Any
    samples: list[dict[str, bytes]]
    meta: dict[str, Any]


class Drawing(NamedTuple):
    """A picture, the decoder and the samples it draws, and their views and actions."""

    picture: Any
    decoder: Any
    raws: list[bytes]
    flow: Flow
    names: list[str]


def samples_as_packed(packer: Any) -> None:
    """Its samples have keys of their own and members of bytes, the same at each call; packed, they are read again."""
    require(bool(packer.splits), "it names no splits.")
    for split in packer.splits:
        first, again = (list(islice(packer.samples(split), _FEWEST * 2)) for _ in range(2))
        require(first == again, f"the samples of {split!r} are others at the second call.")
        with tempfile.TemporaryDirectory() as place:
            try:
                write_split(first, Path(place) / split, name=split, meta=packer.meta(split))
            except (UsageError, DataError, TypeError, AttributeError) as error:
                raise Fault(f"its samples of {split!r} cannot be packed: {error}") from error
            shards = open_shards(Path(place) / split)
            for number, sample in enumerate(first):
                kept = {name.lower(): data for name, data in sample.items() if name != "__key__"}
                require(shards.read(number) == kept, f"sample {sample['__key__']} is read as another than was packed.")
        _labels(first, packer.meta(split))


def _labels(samples: list[dict[str, Any]], meta: dict[str, Any]) -> None:
    num = len(meta.get("classes") or ())
    for sample in samples:
        for member in ("cls", "group"):
            text = sample.get(member, b"0").decode()
            require(
                text.lstrip("-").isdecimal(), f"{member} of {sample['__key__']} is {text!r}; a number was expected."
            )
        if "cls" in sample and num:
            label = int(sample["cls"])
            require(-1 <= label < num, f"cls of {sample['__key__']} is {label}, but there are {num} classes.")


def an_example(example: Any) -> None:
    """It makes some small samples from nothing, and tells options by kind and name."""
    samples = list(example.samples(example.splits[0]))
    require(len(samples) >= _FEWEST, f"it has {len(samples)} samples; at least {_FEWEST} were expected.")
    size = sum(len(data) for sample in samples for name, data in sample.items() if name != "__key__")
    require(size <= _MOST_BYTES, f"its samples are {size:,} bytes; at most {_MOST_BYTES:,} were expected.")


def a_packer(bench: Bench, name: str) -> None:
    """A source that is not there is told in a sentence (UsageError, DataError), if the packer takes a source at all."""
    make = bench.make("packer", name)
    try:
        packer = make(str(Path("no", "such", "place")))
        next(iter(packer.samples(packer.splits[0])), None)
    except (UsageError, DataError):
        return
    except Exception as error:
        raise Fault(
            f"a source that is not there makes it raise {type(error).__name__} ({error}); a sentence as a UsageError"
            " was expected."
        ) from error


def rows_and_labels(one: Asking) -> None:
    """example gives x [1, ...] and labels [R]; rows as many features [R', D] as labels [R'], known to classes."""
    probe, classes, asked = one.probe, one.probe.classes(one.meta), 0
    require(bool(str(probe.describe()).strip()), "`describe` gives no words.")
    for number, members in enumerate(one.samples):
        found = probe.example(members, one.meta)
        if found is None:
            continue
        x, labels = found
        require(
            x.shape[0] == 1 and x.is_floating_point(), f"`example` gives x {x.dtype} {list(x.shape)}; float [1, ...]."
        )
        require(labels.dtype == torch.int64 and labels.dim() == 1, f"`example` gives labels {labels.dtype}; int64 [R].")
        with torch.no_grad():
            features: Features = one.encoder.eval()(x)
            table, known = probe.rows(one.encoder, features, labels)
        fits = table.dim() == 2 and known.dim() == 1 and len(table) == len(known)
        require(fits, f"`rows` gives features {list(table.shape)} and labels {list(known.shape)} for sample {number}.")
        asked += len(known)
        strays = known[(known < -1) | (known >= (len(classes) or 2**31))]  # names need not be known
        require(not len(strays), f"`rows` gives the label {strays[:1].tolist()}, but there are {len(classes)} classes.")
    if not asked:
        raise Skip("no sample of the example has a label that it asks for")


def damaged_members(one: Asking) -> None:
    """Damaged members are a DataError, and nothing else."""
    for field in one.samples[0]:
        for damaged in (b"", b"\xff\xfe nonsense", one.samples[0][field][:-1]):
            try:
                one.probe.example({**one.samples[0], field: damaged}, one.meta)
            except DataError:
                continue
            except Exception as error:
                raise Fault(
                    f"`example` answers a damaged member {field!r} with {type(error).__name__} ({error}); a DataError"
                    " was expected."
                ) from error


def draws(one: Drawing) -> None:
    """pair gives a PNG of a source and its two views, words a phrase for an action; legend and meanings explain."""
    require(isinstance(one.picture.legend, str), "it has no `legend`, a text.")
    require(isinstance(one.picture.meanings, dict), "it has no `meanings`, {component: words}.")
    for number, raw in enumerate(one.raws[:2]):
        source: Tensor = one.picture.source(raw, one.decoder)
        png = one.picture.pair(source, one.flow.batch.actions[:, number], tuple(x[number] for x in one.flow.views.x))
        require(isinstance(png, bytes) and png.startswith(_PNG), "`pair` gives no PNG, as bytes.")
        values = dict(zip(one.names, one.flow.views.copies[0, 1].values[number].tolist(), strict=True))
        for told in (values, {}, dict.fromkeys(values, float("nan"))):
            words = one.picture.words(told)
            require(isinstance(words, str), f"`words` gives a {type(words).__name__} for {told}; a text was expected.")


def asking(bench: Bench, name: str) -> Asking:
    """The probe with the first encoder that gives what it needs."""
    probe = bench.working("probe", name)
    for each in bench.names("encoder"):
        try:
            encoder = bench.encoder(each)()
            with torch.no_grad():
                given = named(encoder.eval()(bench.seen))
        except Exception:  # whatever it is, it is told where the encoder is checked
            continue
        if probe.needs <= given.keys():
            return Asking(probe, encoder, bench.source.samples, bench.source.meta)
    raise Skip(f"no encoder of the modality gives {', '.join(sorted(probe.needs))}")


def drawing(bench: Bench, name: str) -> Drawing:
    decoder = bench.working("decoder", bench.first("decoder"))
    flow = bench.flowing(bench.first("decoder"))
    names = [component.name for component in bench.space.components]
    return Drawing(bench.working("picture", name), decoder, bench.raws(decoder), flow, names)


PROBE: tuple[Callable[[Asking], None], ...] = (rows_and_labels, damaged_members)
