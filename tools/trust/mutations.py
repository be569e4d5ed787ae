"""Ways to spoil bytes, trees of plain values, and text: each a function of a random.Random, so that a seed names it."""

import copy
import random
from collections.abc import Sequence
from typing import Any

# What lengths, counts, rates and versions are made to say.
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    4096,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)


def spoiled(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes, each of one of the kinds below."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice((_flip, _flip, _run, _cut, _twice, _splice, _number, _number))(rng, found, others)
    return bytes(found)


def _place(rng: random.Random, data: bytearray) -> int:
    """Anywhere, but half of the time where headers are."""
    return rng.randrange(min(len(data), 128) if rng.random() < 0.5 else len(data)) if data else 0


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _run(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, length = _place(rng, data), rng.choice((1, 4, 16, 200))
    new = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    data[start : start + length] = new[: max(0, len(data) - start)]


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _place(rng, data)
    del data[start : None if rng.random() < 0.7 else start + rng.choice((1, 3, 16, 512))]


def _twice(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, length = _place(rng, data), rng.choice((1, 8, 64, 512, 2048))
    data[start:start] = data[start : start + length] * rng.choice((1, 2, 30))


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others) if others else bytes(data)
    start, length = rng.randrange(len(other) or 1), rng.choice((4, 64, 1000))
    place = _place(rng, data)
    data[place : place + rng.choice((0, length))] = other[start : start + length]


def _number(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 256**size
    start = _place(rng, data)
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))[: max(0, len(data) - start)]


def deep(num: int, what: type = list) -> Any:
    """A list in a list in a list ..., or a dictionary likewise."""
    found: Any = 0
    for _ in range(num):
        found = [found] if what is list else {"a": found}
    return found


def bomb(levels: int = 30) -> Any:
    """A few lists that stand for 2^levels values."""
    found: Any = ["lol"]
    for _ in range(levels):
        found = [found, found]
    return found


def nasty(rng: random.Random, shared: bool = False) -> Any:
    """A value that nobody expects. shared: also some that JSON cannot hold, or only by writing them out."""
    value = rng.choice((
        None, True, -1, 0, 1, 2**31, 2**62, 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "x", "3", "x" * 5000,
        "\0", "\x1b[2J", "\udc80", "${oc.env:HOME}", "???", "../../x", "/etc/passwd", "pipe:touch canary",
        "http://localhost:9/", [], {}, [[]],
        [None], [1, "a", {}], {"a": 1}, {"name": "os.system"}, {"_target_": "os.system", "command": "touch canary"},
        "hf-hub:a/b", "timm/resnet18", list(range(50)), 10**4299,
    ))  # fmt: skip
    roll = rng.random()
    if roll < 0.03:
        return deep(rng.choice((50, 200, 400)), rng.choice((list, dict)))
    return bomb() if shared and roll < 0.08 else copy.deepcopy(value)


def warped(rng: random.Random, tree: Any, shared: bool = False) -> Any:
    """A copy of a tree of dictionaries and lists with one to three of its values changed, lost, renamed or moved."""
    found = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        nodes = [node for node in _nodes(found) if len(node)]
        if not nodes:
            return nasty(rng, shared)
        node = rng.choice(nodes)
        key: Any = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        match rng.choice(("set", "set", "set", "drop", "rename", "wrap", "text", "number", "swap", "twice")):
            case "set":
                node[key] = nasty(rng, shared)
            case "drop":
                del node[key]
            case "rename" if isinstance(node, dict):
                node[rng.choice(("x", "_target_", "", key + "x" if isinstance(key, str) else "y"))] = node.pop(key)
            case "wrap":
                node[key] = [node[key]]
            case "text":
                node[key] = type(node[key]).__name__ if isinstance(node[key], dict | list) else str(node[key])[:1000]
            case "number":
                value = node[key]
                scale = rng.choice((-1, 0, 0.5, 2, 1000, 2**20, 2**40))
                node[key] = value * scale if isinstance(value, int | float) else rng.choice(NUMBERS)
            case "swap":
                other = rng.choice(nodes)
                place: Any = rng.choice(list(other) if isinstance(other, dict) else range(len(other)))
                node[key] = copy.deepcopy(other[place])
            case _:
                if isinstance(node, list):
                    node.extend(copy.deepcopy(node))
    return found


def _nodes(tree: Any, seen: dict[int, Any] | None = None) -> list[Any]:
    """Its dictionaries and lists, each once, in however many places it stands."""
    seen = {} if seen is None else seen
    if isinstance(tree, dict | list) and id(tree) not in seen:
        seen[id(tree)] = tree
        for one in tree.values() if isinstance(tree, dict) else tree:
            _nodes(one, seen)
    return list(seen.values())


_BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'lol'] * 9)}]\n" for i in range(12))
_MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
YAML = (
    _BOMB, _MERGES, "&a [*a]\n", "a: &x 1\nb: *x\n", "a: ${a}\n", "a: ${b}\nb: ${a}\n", "a: ${oc.env:HOME}\n",
    "a: !!python/object/apply:os.system ['touch canary']\n", "a: !!python/name:os.system\n", "_target_: os.system\n",
    "a: 2020-13-45\n", "a: !!int ''\n", "a: !!float _\n", "a: !!timestamp x\n", "a: !!binary '='\n", "a: 1:1:1:1\n",
    "? [1]\n: 2\n", "? {a: 1}\n: 2\n", "--- 1\n--- 2\n", "%TAG ! x\n", "\t", "defaults: [x]\n", "null", "[]",
    "a: " + "[" * 3000, "a: " + "{x: " * 3000, "- " * 3000, "a: " + "9" * 5000, "a: " + "x" * 300_000,
)  # fmt: skip


def marred(rng: random.Random, text: str) -> str:
    """YAML text with a trap put in at the beginning of a line, or in place of all."""
    lines, trap = text.splitlines(keepends=True), rng.choice(YAML)
    if rng.random() < 0.2:
        return trap
    place = rng.randrange(len(lines) + 1)
    return "".join([*lines[:place], trap if trap.endswith("\n") else trap + "\n", *lines[place:]])
