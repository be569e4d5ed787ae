"""Packer of LibriSpeech, with speakers, transcripts and, if given, the phone labels and splits of CPC."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stec.errors import DataError, UsageError
from stec.shards.folders import check_holdout, hashed, hold_out
from stec_audio import labels
from stec_audio.reading import EXTENSIONS
from stec_audio.recordings import recorded

_log = logging.getLogger("stec")


class Utterance(NamedTuple):
    """One file: its id, as in 84-121123-0000, and its speaker."""

    id: str
    speaker: str
    path: Path


class LibriSpeech:
    """One subset of LibriSpeech: SUBSET/SPEAKER/CHAPTER/*.flac (or wav, mp3, ogg) beside *.trans.txt.

    source: the folder that holds the subsets (or the folder LibriSpeech with them), or a subset itself. subset: a
    folder such as train-clean-100; None: the only one there is.
    phones: a file of phone labels in the format of CPC's converted_aligned_phones.txt; names: their names, lines such
    as `SIL 0`. Utterances without labels have no member `phones`.
    train_list, test_list: files of utterance ids, as CPC's train_split.txt and test_split.txt; what is in neither is
    left out. Without them the fraction `holdout` is held out by hash, and all speakers are in both splits.
    pcm: transcode to WAV (16 bits): larger, and windows of it are read several times as fast. limit: only so many
    utterances, the first by hash of their ids.

    Members: the recording, cls and group (both the number of the speaker), txt, phones, json.
    """

    def __init__(
        self,
        source: str,
        *,
        subset: str | None = None,
        phones: str | None = None,
        names: str | None = None,
        train_list: str | None = None,
        test_list: str | None = None,
        holdout: float = 0.2,
        pcm: bool = False,
        limit: int | None = None,
    ):
        check_holdout(holdout)
        if limit is not None and limit < 1:
            raise UsageError(f"packer.limit={limit} must be at least 1, or null for all utterances.")
        if (train_list is None) != (test_list is None):
            raise UsageError("packer.train_list and packer.test_list belong together: give both, or neither.")
        if names is not None and phones is None:
            raise UsageError("packer.names are the names of labels: packer.phones, the file of labels, is missing.")
        for key, file in {"phones": phones, "names": names, "train_list": train_list, "test_list": test_list}.items():
            if file is not None and not Path(file).is_file():
                raise UsageError(f"packer.{key}={file}: there is no such file.")
        root = _subset(source, subset)
        self._root, self._pcm, self._phones = root.parent, pcm, {} if phones is None else labels.read(phones)
        self._names = None if phones is None else _label_names(self._phones, phones, names)
        found = {utterance.id: utterance for utterance in _utterances(root)}
        self.classes = sorted({utterance.speaker for utterance in found.values()})
        if train_list is not None and test_list is not None:
            lists = _lists(found, {"train": train_list, "test": test_list}, root)
            kept = set(hashed([one for split in lists.values() for one in split])[:limit])
            parts = {split: [one for one in hashed(ids) if one in kept] for split, ids in lists.items()}
        else:
            parts = hold_out(hashed(list(found))[:limit], holdout)
        self._parts = {split: [found[one] for one in ids] for split, ids in parts.items()}
        for split, utterances in self._parts.items():
            if not utterances:
                raise UsageError(f"{root}: no utterance is left for {split!r} (packer.limit={limit}).")
        self.splits = tuple(self._parts)
        if phones is not None:
            self._check_labelled(phones)

    def samples(self, split: str) -> Iterator[dict[str, Any]]:
        """Samples of a split in hashed order; DataError names a damaged file, or labels that are not of its length."""
        utterances = self._parts[split]
        number = {speaker: str(index).encode() for index, speaker in enumerate(self.classes)}
        each = recorded(((utterance, utterance.path) for utterance in utterances), split, pcm=self._pcm)
        transcripts = _Transcripts()
        for count, (utterance, one) in enumerate(each):
            path = utterance.path.relative_to(self._root).as_posix()
            sample = {
                "__key__": f"{split}-{count:08d}",
                one.extension: one.data,
                "cls": number[utterance.speaker],
                "group": number[utterance.speaker],
                "json": json.dumps({"path": path, "id": utterance.id, "speaker": utterance.speaker}).encode(),
            }
            if (text := transcripts.of(utterance)) is not None:
                sample["txt"] = text.encode()
            if (own := self._phones.get(utterance.id)) is not None:
                labels.check_length(utterance.id, len(own), one.num_samples)
                sample["phones"] = " ".join(map(str, own)).encode()
            yield sample

    def meta(self, split: str) -> dict[str, Any]:
        found: dict[str, Any] = {"classes": self.classes, "num_samples": len(self._parts[split])}
        return found if self._names is None else {**found, "phones": self._names}

    def _check_labelled(self, phones: str) -> None:
        """UsageError if the labels are those of other data; else how many utterances lack them is logged."""
        ids = [utterance.id for part in self._parts.values() for utterance in part]
        if not (labelled := sum(one in self._phones for one in ids)):
            raise UsageError(f"packer.phones={phones}: labels for none of the {len(ids)} utterances are in this file.")
        if labelled < len(ids):
            _log.info("%d of %d utterances have no phone labels in %s", len(ids) - labelled, len(ids), phones)


class _Transcripts:
    """The transcripts of the utterances, chapter by chapter as they are asked for."""

    def __init__(self) -> None:
        self._chapters: dict[Path, dict[str, str]] = {}

    def of(self, utterance: Utterance) -> str | None:
        folder = utterance.path.parent
        if folder not in self._chapters:
            lines = [line for path in sorted(folder.glob("*.trans.txt")) for line in labels.lines(path)]
            self._chapters[folder] = {name: text.strip() for name, _, text in (line.partition(" ") for line in lines)}
        return self._chapters[folder].get(utterance.id)


def _subset(source: str, subset: str | None) -> Path:
    """The folder of a subset; UsageError lists those that are there if it is not clear which."""
    root = Path(source)
    if not source or not root.is_dir():
        raise UsageError(f"{source or 'no source is given'}: no such folder of LibriSpeech.")
    if (root / "LibriSpeech").is_dir():
        root = root / "LibriSpeech"
    found = [path for path in sorted(root.iterdir()) if path.is_dir() and _is_subset(path)]
    names = ", ".join(path.name for path in found)
    if subset is not None:
        if root.absolute().name == subset and _is_subset(root):
            return root
        if (chosen := next((path for path in found if path.name == subset), None)) is None:
            raise UsageError(f"packer.subset={subset}: there is no such subset in {root}: there is {names or 'none'}.")
        return chosen
    if len(found) > 1:
        raise UsageError(f"{root}: packer.subset must say which of these to pack: {names}.")
    if found:
        return found[0]
    if _is_subset(root):
        return root
    raise UsageError(f"{root}: no subset of LibriSpeech is here: SUBSET/SPEAKER/CHAPTER/*.flac was expected.")


def _is_subset(root: Path) -> bool:
    return next(_paths(root), None) is not None


def _paths(root: Path) -> Iterator[Path]:
    for path in root.glob("[!.]*/[!.]*/[!.]*"):
        if path.suffix[1:].lower() in EXTENSIONS:
            yield path


def _utterances(root: Path) -> Iterator[Utterance]:
    seen: dict[str, Path] = {}
    for path in sorted(_paths(root)):
        if path.stem in seen:
            raise DataError(f"{path}: the same utterance as {seen[path.stem]}.")
        seen[path.stem] = path
        yield Utterance(path.stem, path.parent.parent.name, path)


def _lists(found: dict[str, Utterance], files: dict[str, str], root: Path) -> dict[str, list[str]]:
    """The utterances of each split that are there; how many are left out or missing is logged."""
    listed = {split: labels.read_list(file) for split, file in files.items()}
    if both := set(listed["train"]) & set(listed["test"]):
        raise DataError(f"{min(both)} is in both {files['train']} and {files['test']}.")
    here = {split: [one for one in ids if one in found] for split, ids in listed.items()}
    for split, ids in here.items():
        if not ids:
            raise UsageError(f"packer.{split}_list={files[split]}: none of its utterances is in {root}.")
    missing = sum(map(len, listed.values())) - sum(map(len, here.values()))
    unlisted = len(found) - sum(map(len, here.values()))
    if missing or unlisted:
        _log.info("%d utterances of the lists are not in %s; %d are there but in no list", missing, root, unlisted)
    return here


def _label_names(phones: dict[str, list[int]], file: str, names: str | None) -> list[str]:
    """Names by number; their numbers, as text, if no file names them. DataError if there is a label without a name."""
    highest = max(map(max, phones.values()))
    if names is None:
        return [str(number) for number in range(highest + 1)]
    found = labels.read_names(names)
    if highest >= len(found):
        raise DataError(f"{file} has the label {highest}, but {names} names only {len(found)} (0 to {len(found) - 1}).")
    return found
