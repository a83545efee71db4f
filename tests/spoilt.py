"""Ways to spoil an input of a reader: bits, words, members of a zip file, headers of an archive; see `mutants`."""

from __future__ import annotations

import hashlib
import io
import random
import re
import zipfile
from collections.abc import Callable

from flow.training.checkpoint import MAGIC

Mutate = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    b"-1",
    b"0",
    b"nan",
    b"inf",
    b"1e999",
    b"9" * 25,
    b"9" * 5000,
    b"1.5",
    b"\xd9\xa3",
    b"true",
    b"",
    b"null",
)
_PIECES = (
    b"\0",
    b"\xff\xfe",
    b'"',
    b"[" * 2000,
    b"{",
    b"]",
    b"\n",
    b"\\",
    b"|",
    b"<",
    b"../",
    b"[]",
    b"{}",
    b'""',
)


def as_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, and cut out, double, insert or overwrite pieces."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at, size = rng.randrange(len(made) + 1), rng.choice((1, 1, 4, 30, 500))
        way = rng.randrange(6)
        if way < 2 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif way == 2:
            made[at : at + size] = b""
        elif way == 3:
            made[at:at] = made[at : at + size]
        elif way == 4:
            made[at : at + size] = rng.randbytes(size)
        elif way == 5 and rng.random() < 0.3:
            del made[at:]
    return bytes(made)


def as_text(content: bytes, rng: random.Random) -> bytes:
    """Put odd numbers, odd pieces, and other words of the text in the place of words; or spoil the bytes."""
    if rng.random() < 0.3:
        return as_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        words = list(re.finditer(rb"[\w.+-]+", content))
        if not words:
            return content
        word = rng.choice(words)
        new = rng.choice((*_NUMBERS, *_PIECES, rng.choice(words)[0], b"x" * 3000))
        content = content[: word.start()] + new + content[word.end() :]
    return content


def in_zip(content: bytes, rng: random.Random) -> bytes:
    """Spoil a member of a zip file and give it its checksum; or spoil the file."""
    if rng.random() < 0.4:
        return as_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [[info.filename, archive.read(info)] for info in archive.infolist()]
    member = rng.choice(members)
    way = rng.randrange(4)
    if way == 0:
        members.remove(member)
    elif way == 1:
        member[1] = rng.choice(members)[1]
    else:
        head = 128 if rng.random() < 0.7 else len(member[1])  # where a header is
        member[1] = as_text(member[1][:head], rng) + member[1][head:]
    file = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def sealed(content: bytes, rng: random.Random) -> bytes:
    """Spoil what a resume file holds and give it its hash; or spoil the file."""
    if rng.random() < 0.3:
        return as_bytes(content, rng)
    payload = in_zip(content[len(MAGIC) + 32 :], rng)
    return MAGIC + hashlib.sha256(payload).digest() + payload


def in_tar(content: bytes, rng: random.Random) -> bytes:
    """Spoil the headers of an archive and give them their checksums; or spoil the file."""
    if rng.random() < 0.2:
        return as_bytes(content, rng)
    made = bytearray(content)
    heads = [at for at in range(0, len(made), 512) if made[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.choice(heads)
        first, size = rng.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
        new = rng.choice(
            (b"../a", b"/a", b"a", b"b", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777", b"")
        )
        if size == 1:
            new = rng.choice([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"\0"])
        made[at + first : at + first + size] = (new + bytes(size))[:size]
        made[at + 148 : at + 156] = b" " * 8
        made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    return bytes(made)
