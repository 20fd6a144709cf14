"""Damage done to valid files.

Owns: `mutate`, one function for hypothesis (`st.randoms()`) and for long runs (`random.Random`).
Does not own: what the files are (`readers`) and what must not come of it (`guard`).
"""

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

_INTEGERS = (0, 1, -1, 127, 255, 65_535, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
_NUMBERS = (
    *(b"-1", b"0", b"99999999", b"4294967296", b"18446744073709551616", b"1e999", b"nan", b"-inf"),
    *(b"", b"x", b"0.5", b"-0", b"1" * 5000),
)
_ANY_TOKENS = (
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b"\xff\xfe",
    b"\xc3",
    b"\x1a",
    b"(" * 2000,
    b" " * 9,
)
_DIGITS = re.compile(rb"\d+")


def mutate(data: bytes, random: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """Return `data` with one to four things done to it.

    Parameters
    ----------
    tokens : pieces that mean something in the format, put anywhere.
    """
    for _ in range(random.randint(1, 4)):
        change = random.choice(_CHANGES)
        data = change(data, random, tokens) if data else random.choice(_ANY_TOKENS)
    return data


def _span(data: bytes, random: Random) -> tuple[int, int]:
    """Return a random place and a later one, mostly near."""
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 64, 1024, len(data))))


def _flip_bits(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randint(0, 7)
    return bytes(changed)


def _cut(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    return data[: random.randint(0, len(data))]


def _remove(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    start, stop = _span(data, random)
    return data[:start] + data[stop:]


def _repeat(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    start, stop = _span(data, random)
    return data[:stop] + data[start:stop] * random.choice((1, 1, 3, 50)) + data[stop:]


def _swap(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    a, b = _span(data, random)
    c = random.randint(b, len(data))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _blank(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    start, stop = _span(data, random)
    return data[:start] + random.choice((b"\0", b"\xff", b" ")) * (stop - start) + data[stop:]


def _insert(data: bytes, random: Random, tokens: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + random.choice((*_ANY_TOKENS, *tokens)) + data[start:]


def _count(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    """Put an extreme integer where a binary format may have a count, mostly near the begin."""
    layout = random.choice(("<i", ">i", "<q", ">q", "<H", "B"))
    size = struct.calcsize(layout)
    value = random.choice(_INTEGERS) & ((1 << 8 * size) - 1)
    start = random.randint(0, min(len(data), random.choice((256, 1024, len(data)))))
    start -= start % size if random.random() < 0.8 else 0
    number = struct.pack(layout.upper(), value)
    return data[:start] + number + data[start + size :]


def _number(data: bytes, random: Random, _tokens: Sequence[bytes]) -> bytes:
    """Put another text in the place of a written number."""
    places = [match.span() for match in _DIGITS.finditer(data)]
    if not places:
        return data
    start, stop = random.choice(places)
    return data[:start] + random.choice(_NUMBERS) + data[stop:]


_CHANGES: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    *(_flip_bits, _flip_bits, _cut, _remove, _repeat, _swap, _blank, _insert, _insert),
    *(_count, _count, _number, _number),
)
