"""JSON and YAML that a file holds, as data: plain values, not many times larger than the file, and one error for all
that can be wrong with them. Nothing in them is looked up, resolved or built."""

import json
from pathlib import Path
from typing import Any

import yaml

from stec.errors import UsageError

LONGEST = 1 << 18
"""Characters of a YAML file: a configuration has a few thousand, and reading a million takes a minute."""


class _Plain(yaml.SafeLoader):
    """Without references: with them, a few lines can stand for more values than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"it refers to another place of itself (*{self.peek_event().anchor})")
        return super().compose_node(parent, index)


def from_json(text: str | bytes) -> Any:
    """ValueError if it is not JSON, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def from_yaml(text: str) -> Any:
    """ValueError if it is not YAML of plain values, refers to itself, is nested too deeply, or is too long."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters, more than {LONGEST:,}")
    try:
        return yaml.load(text, _Plain)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # of a misspelt date or number come other errors than YAML's own
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def configuration(path: Path) -> dict[str, Any]:
    """What a run wrote down as its config.yaml; UsageError if it cannot be read, or is no group of keys."""
    try:
        found = from_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not the configuration of a run: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not the configuration of a run: a group of keys was expected.")
    return found
