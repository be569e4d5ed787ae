"""Phone labels of frames, in the format of CPC's converted_aligned_phones.txt: `utterance 0 0 17 17 ...`.

One whole number per 10 ms at 16 kHz: frame i covers the 400 samples from 160 i on, and no frame reaches beyond the end.
"""

import re
from pathlib import Path

from stec.errors import DataError, UsageError

HOP, WIDTH = 160, 400
"""Samples at 16 kHz between frames, and in a frame."""
HIGHEST = 65_535
"""What a label may be: a name is made up for each one up to the highest, if no file names them."""
_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)


def num_labels(num_samples: int) -> int:
    """n = 1 + (N - 400) // 160 for N samples at 16 kHz; 0 if not even one frame fits."""
    return max(0, 1 + (num_samples - WIDTH) // HOP)


def check_length(of: str, num: int, num_samples: int) -> None:
    """DataError, which says whose labels they are, unless there are as many as frames in N samples."""
    if num != (expected := num_labels(num_samples)):
        raise DataError(
            f"{of}: {num} phone labels were found, {expected} were expected for {num_samples} samples"
            f" (1 + (N - {WIDTH}) // {HOP})."
        )


def read(path: str | Path) -> dict[str, list[int]]:
    """{utterance: labels} of a label file; UsageError if it is not there, DataError names the line that is damaged."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines(path), 1):
        utterance, *words = line.split() or [""]
        if not utterance:
            continue
        if utterance in found:
            raise DataError(f"{path}, line {number}: a second line for {utterance}.")
        if odd := next((word for word in words if not _NUMBER.fullmatch(word)), None):
            raise DataError(
                f"{path}, line {number} ({utterance}): {odd[:40]!r} is no label: whole numbers were expected."
            )
        found[utterance] = [int(word) for word in words]
        if not words or min(found[utterance]) < 0 or max(found[utterance]) > HIGHEST:
            raise DataError(f"{path}, line {number} ({utterance}): labels from 0 on, up to {HIGHEST}, were expected.")
    if not found:
        raise DataError(f"{path}: no line of labels in this file.")
    return found


def read_names(path: str | Path) -> list[str]:
    """The names of the labels by number, from lines such as `SIL 0`; DataError unless the numbers are 0, 1, 2 ..."""
    found: dict[int, str] = {}
    for number, line in enumerate(lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not _NUMBER.fullmatch(words[1]) or int(words[1]) in found:
            raise DataError(f"{path}, line {number}: a name and a number of its own were expected, as in `SIL 0`.")
        found[int(words[1])] = words[0]
    if sorted(found) != list(range(len(found))) or not found:
        raise DataError(f"{path}: the numbers of the names must be 0, 1, 2 and so on, without a gap.")
    return [found[number] for number in range(len(found))]


def read_list(path: str | Path) -> list[str]:
    """The utterances of a list, one a line; DataError if one stands there twice."""
    found = [word for line in lines(path) for word in line.split()]
    if len(set(found)) < len(found):
        raise DataError(f"{path}: {next(one for one in found if found.count(one) > 1)} stands there twice.")
    return found


def lines(path: str | Path) -> list[str]:
    """The lines of a text file; UsageError if it cannot be read, DataError if it is no text."""
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: this file cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path}: this is not a text file.") from error
