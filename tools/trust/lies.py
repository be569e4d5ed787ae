"""Input that is whole as far as its checksums tell, and lies: whoever made it meant to."""

import hashlib
import io
import json
import pickletools
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from mutations import NUMBERS, nasty, spoiled, warped

from stec.shards.table import row_type

_PNG = b"\x89PNG\r\n\x1a\n"


def picture(rng: random.Random, raw: bytes) -> bytes:
    """A PNG gets checksums that fit, half of the time, and now and then a size of our own."""
    if not raw.startswith(_PNG) or rng.random() < 0.5:
        return raw
    found, at = bytearray(_PNG), len(_PNG)
    while at + 8 <= len(raw):
        length, name = struct.unpack_from(">I4s", raw, at)
        body = raw[at + 8 : at + 8 + length]
        if name == b"IHDR" and len(body) == 13 and rng.random() < 0.3:
            body = struct.pack(">II", rng.choice(NUMBERS) % 2**32, rng.choice(NUMBERS) % 2**32) + body[8:]
        found += struct.pack(">I4s", length, name) + body + struct.pack(">I", zlib.crc32(name + body))
        at += 12 + length
    return bytes(found)


def tar(rng: random.Random, raw: bytes) -> bytes:
    """A field of a header says something else, or another header comes before it; the checksums fit."""
    found = bytearray(raw)
    headers = [at for at in range(0, len(raw) - 512, 512) if raw[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    if rng.random() < 0.5:
        start, length = rng.choice(
            ((0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
        )
        value = rng.choice((
            b"%o" % rng.choice(NUMBERS), b"\x80" + rng.randbytes(11), b"\xff" * 12, b"\xff" + rng.randbytes(11), b"-1",
            b"x" * length, b"../../canary.jpg", b"/etc/passwd", b"a\0b.jpg",
            b"LKSxgNVMD12345670"[rng.randrange(17) :][:1],
        ))  # fmt: skip
        found[at + start : at + start + length] = value[:length].ljust(length, b"\0")
    else:
        records = [rng.choice((
            ("size", rng.choice((b"-1", b"-512", b"-99999", b"99999999999999999999", b"x", b"1e9", b"0"))),
            ("path", b"k" * rng.choice((10, 5000, 900_000)) + b".jpg"), ("path", b"../../canary.jpg"),
            ("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.map", b"0,5,9,x"),
            ("GNU.sparse.size", b"-9"), ("GNU.sparse.name", b"x.jpg"), ("GNU.sparse.realsize", b"99999999999"),
            ("hdrcharset", b"BINARY"), ("mtime", b"nan"), ("uid", b"9" * 5000),
        )) for _ in range(rng.choice((1, 2, 4)))]  # fmt: skip
        body = b"".join(_record(name.encode(), value) for name, value in records)
        if rng.random() < 0.2:
            body = spoiled(rng, body)
        size = len(body) if rng.random() < 0.8 else rng.choice(NUMBERS)
        kind = rng.choice((b"x", b"x", b"x", b"g", b"L", b"K", b"X", b"S"))
        header = bytearray(found[at : at + 512])
        header[124:136], header[156:157] = (
            (b"%011o\0" % size)[-12:] if size < 8**11 else b"\x80" + size.to_bytes(11, "big"),
            kind,
        )
        extra = _sealed(bytes(header)) + body.ljust(-(-len(body) // 512) * 512, b"\0")
        extra *= rng.choice((1, 1, 2, 600 if len(extra) < 10_000 else 3))
        return bytes(found[:at]) + extra + bytes(found[at:])
    found[at : at + 512] = _sealed(bytes(found[at : at + 512]))
    return bytes(found)


def extended(raw: bytes, records: list[tuple[str, bytes]]) -> bytes:
    """A tar with an extended header of these records before its first member."""
    body = b"".join(_record(name.encode(), value) for name, value in records)
    header = bytearray(raw[:512])
    header[124:136], header[156:157] = b"%011o\0" % len(body), b"x"
    return _sealed(bytes(header)) + body.ljust(-(-len(body) // 512) * 512, b"\0") + raw


def _record(name: bytes, value: bytes) -> bytes:
    length = len(name) + len(value) + 3
    while length != (longer := len(name) + len(value) + 3 + len(str(length))):
        length = longer
    return b"%d %s=%s\n" % (length, name, value)


def _sealed(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def index(rng: random.Random, folder: Path) -> None:
    """index.json, or the table, or both, say what was never indexed, and fit each other."""
    path = folder / "index.json"
    found = json.loads(path.read_bytes())
    del found["check"]
    table = folder / found["table"]["name"]
    if rng.random() < 0.5:
        data = _rows(rng, table, len(found["fields"]))
        table.write_bytes(data)
        found["table"] |= {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    else:
        found = warped(rng, found)
    try:
        path.write_bytes(json.dumps(found).encode() if rng.random() < 0.97 else b"[" * 200_000)
    except (ValueError, RecursionError):
        path.write_bytes(b'{"format": 1' + b"9" * 5000 + b"}")


def _rows(rng: random.Random, table: Path, num_fields: int) -> bytes:
    rows = np.load(table)
    if rng.random() < 0.5:
        return _header(rng, table.read_bytes())
    for _ in range(rng.choice((1, 3))):
        column = rng.choice(("offset", "size", "crc32"))
        limit = 2**32 if column == "crc32" else 2**63
        value = rng.choice(NUMBERS) % limit * (rng.choice((1, 1, -1)) if column != "crc32" else 1)
        rows[column][rng.randrange(len(rows)), rng.randrange(num_fields)] = value
    if rng.random() < 0.1:
        rows = np.zeros(len(rows), row_type(20, num_fields))
    for row in rows:
        data = row.tobytes()[:-4]
        row["check"] = zlib.crc32(data)
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


def _header(rng: random.Random, raw: bytes) -> bytes:
    """An array of numpy whose header is another one."""
    length = struct.unpack_from("<H", raw, 8)[0]
    text, body = raw[10 : 10 + length].decode("latin1"), raw[10 + length :]
    shape = rng.choice((
        "()", "(-1,)", "(8,)", "(0,)", "(99999999999,)", "(2, 4)", "(10**9,)", "(1e9,)", "(True,)", "None", "[8]",
        "(" * 300 + ")" * 300, "(9223372036854775807, 2)",
    ))  # fmt: skip
    dtype = rng.choice((
        "'|O'", "'<f8'", "'|u1'", "'<U9'", "'|V0'", "'|S0'", "[('key', '|O')]", "[('key', '|S1'), ('key', '|S1')]",
        "'x'", "('<f8', (2, 10**9))", "'<M8[ns]'", "None", "{}",
    ))  # fmt: skip
    if rng.random() < 0.5:
        text = text[: text.index("'shape'")] + f"'shape': {shape}, }}"
    elif rng.random() < 0.7:
        text = f"{{'descr': {dtype}, 'fortran_order': {rng.choice(('False', 'True', '0'))}, 'shape': {shape}, }}"
    else:
        text = rng.choice(
            (
                "[" * 9000,
                "-" * 9000,
                "9" * 9000,
                "{'descr': '<f8'}",
                "__import__('os').system('touch canary')",
                "\0",
                "",
            )
        )
    new = text.encode("latin1")
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    size = (
        struct.pack("<H", len(new))
        if version == b"\1\0"
        else struct.pack("<I", rng.choice((len(new), len(new), 2**32 - 1)))
    )
    return raw[:6] + version + size + new + body


def arrays(rng: random.Random, raw: bytes) -> bytes:
    """An npz that is spoiled, or one of whose arrays lies (with checksums that fit) or is very large."""
    if rng.random() < 0.4:
        return spoiled(rng, raw)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(parts))
    parts[name] = _header(rng, parts[name]) if rng.random() < 0.6 else spoiled(rng, parts[name])
    if rng.random() < 0.05:
        parts[name] = parts[name] + bytes(150_000_000)
    return _zipped(parts, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _zipped(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def instructions(rng: random.Random, raw: bytes) -> bytes:
    """A pickle that is spoiled, or one of whose instructions is another."""
    if rng.random() < 0.4:
        return spoiled(rng, raw)
    places = [at for _, _, at in pickletools.genops(raw) if at is not None]
    at = rng.choice(places)
    new = rng.choice((
        *(bytes([code]) for code in b"012(ltd]}aeusbRQ.\x81\x93\x97"), b"P1\n", b"h\x00", b"j\x00\x00\x00\x00",
        b"cos\nsystem\n(S'touch canary'\ntR", b"cbuiltins\neval\n", b"r\xff\xff\xff\x7f", b"p2147483647\n",
        b"\x8e" + (2**40).to_bytes(8, "little"), b"\x96" + (2**40).to_bytes(8, "little"), b"X\xff\xff\xff\x7f",
        b"cnumpy\nndarray\n(I99999999999\nt\x81", b"I" + b"9" * 5000 + b"\n", b"\x8b\x04\x00\x00\x00\xff\xff\xff\x7f",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x03\x00\x00\x00ziptR",
    ))  # fmt: skip
    if rng.random() < 0.05:
        return (
            b"\x80\x02}X\x10\x00\x00\x00fine_label_names"
            + b"]("
            + b"X\x01\x00\x00\x00a"
            + b"e"
            + b"2]q\x00("
            + b"]q\x01(h\x00h\x00e" * 30
            + b"us."
        )
    return raw[:at] + new + raw[at if rng.random() < 0.5 else min((p for p in places if p > at), default=at) :]


def pickled(rng: random.Random, raw: bytes) -> bytes:
    """A checkpoint whose description of its tensors is spoiled, or whose members are; the checksums fit."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = (
        next(name for name in parts if name.endswith("data.pkl")) if rng.random() < 0.8 else rng.choice(sorted(parts))
    )
    parts[name] = instructions(rng, parts[name]) if name.endswith(".pkl") else spoiled(rng, parts[name])
    if rng.random() < 0.1:
        del parts[rng.choice(sorted(parts))]
    if rng.random() < 0.05:
        parts[rng.choice(sorted(parts))] = bytes(30_000_000)
    return _zipped(parts, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def exported(rng: random.Random, folder: Path) -> None:
    """stec.json says something else, or a file of weights does; the digests fit."""
    path = folder / "stec.json"
    about = json.loads(path.read_bytes())
    if rng.random() < 0.5:
        name = rng.choice(("model.safetensors", "manipulation.safetensors"))
        raw = (folder / name).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header: Any = warped(rng, json.loads(raw[8 : 8 + length]))
        if rng.random() < 0.2:
            header = {
                "x": {
                    "dtype": rng.choice(("F32", "F4", "F8_E8M0", "BOOL", "C64", "x")),
                    "shape": nasty(rng),
                    "data_offsets": [0, 4],
                }
            }
        try:
            text = json.dumps(header).encode()
        except (ValueError, RecursionError):
            text = b"[" * 100_000
        size = len(text) if rng.random() < 0.8 else rng.choice(NUMBERS)
        data = size.to_bytes(8, "little") + text + raw[8 + length :]
        (folder / name).write_bytes(data)
        about["sha256"][name] = hashlib.sha256(data).hexdigest()
    else:
        about = warped(rng, about) if rng.random() < 0.3 else {**about, "spec": warped(rng, about["spec"])}
    try:
        path.write_bytes(json.dumps(about).encode() if rng.random() < 0.97 else b"[" * 200_000)
    except (ValueError, RecursionError):
        path.write_bytes(b"[" * 200_000)
