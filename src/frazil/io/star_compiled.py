"""Plain rows of large STAR files, by compiled loops over their bytes.

Owns: counting the values of rows, and parsing numbers that are exact in one step. Does not own:
whatever is less plain, which it leaves to `frazil.io.star_format` and `frazil.io.star_table`.
"""

from typing import Any

import numpy as np

from frazil.io.compiled import compiled

_TAB, _NEWLINE, _RETURN, _SPACE = 9, 10, 13, 32
_HASH, _SINGLE, _DOUBLE, _SEMICOLON = 35, 39, 34, 59
_PLUS, _MINUS, _DOT, _ZERO, _NINE = 43, 45, 46, 48, 57
_LETTER_D, _LETTER_E, _LETTER_L = 100, 101, 108  # lower case; upper case is 32 less
_LARGEST_POWER, _LARGEST_MANTISSA = 22, 1 << 53  # 10^22 and 2^53 are exact in float64
_POWERS = 10.0 ** np.arange(_LARGEST_POWER + 1)


def _is_space(byte: Any) -> Any:
    return byte == _SPACE or _TAB <= byte <= _RETURN


def _token_end(data: Any, start: int) -> Any:
    # Where the word that begins at `start` ends; -1 where it is none that white space alone parts.
    end = start
    while end < data.size and data[end] > _SPACE:
        end += 1
    if end == start or (end < data.size and not _space(data[end])):
        return -1  # a control character
    first = data[start]
    closed = end - start > 1 and data[end - 1] == first
    if first == _HASH or (first in (_SINGLE, _DOUBLE) and not closed):
        return -1
    return end


def _plain_line(data: Any, start: int, width: int) -> Any:
    # Where the next line begins, if this one has `width` values and ends in a newline; else -1.
    place, values = start, 0
    while place < data.size and data[place] != _NEWLINE:
        if _space(data[place]):
            place += 1
            continue
        place = _word(data, place)
        if place < 0:
            return -1
        values += 1
    return place + 1 if place < data.size and values == width else -1


def _plain_rows(data: Any, width: int) -> Any:
    # (rows, bytes) of the leading lines of `data` that have `width` values, parted by white space.
    rows, end = 0, 0
    while end < data.size:
        # data_, loop_ and ; begin other things than rows.
        first = data[end] | 32
        if first in (_LETTER_D, _LETTER_L) or data[end] == _SEMICOLON:
            break
        following = _line(data, end, width)
        if following < 0:
            break
        rows, end = rows + 1, following
    return rows, end


def _integer(data: Any, start: int, stop: int, value: Any) -> Any:
    # (value with the digits from `start` on appended, where they end); more than 2^53 is no more
    # exact, and grows no further.
    place = start
    while place < stop and _ZERO <= data[place] <= _NINE:
        if value <= _LARGEST_MANTISSA:
            value = value * 10 + (np.int64(data[place]) - _ZERO)
        place += 1
    return value, place


def _number(data: Any, start: int, stop: int, powers: Any) -> Any:
    # (number, whether it is one and exact): an integer of at most 2^53 times or by an exact power
    # of ten is rounded once, as it must be.
    place = start
    negative = data[place] == _MINUS
    if negative or data[place] == _PLUS:
        place += 1
    mantissa, end = _digits(data, place, stop, np.int64(0))
    count, scale = end - place, 0
    if end < stop and data[end] == _DOT:
        place = end + 1
        mantissa, end = _digits(data, place, stop, mantissa)
        scale = place - end
        count -= scale
    if count and end + 1 < stop and data[end] | 32 == _LETTER_E:
        place = end + 1
        down = data[place] == _MINUS
        if down or data[place] == _PLUS:
            place += 1
        exponent, end = _digits(data, place, stop, np.int64(0))
        count = end - place
        scale += -exponent if down else exponent
    if end < stop or not count or mantissa > _LARGEST_MANTISSA or abs(scale) > _LARGEST_POWER:
        return 0.0, False
    value = np.float64(mantissa)
    value = value / powers[-scale] if scale < 0 else value * powers[scale]
    return -value if negative else value, True


def _parse_rows(
    data: Any, width: int, number_of: Any, text_of: Any, powers: Any, numbers: Any, bounds: Any
) -> Any:
    # Fills numbers (rows, n) and bounds (rows, m, 2) from plain rows; number_of and text_of
    # (width,) say where a column goes, -1 nowhere. Returns whether every number was exact.
    place = 0
    for row in range(numbers.shape[0]):
        for column in range(width):
            while _space(data[place]):
                place += 1
            start = place
            while place < data.size and data[place] > _SPACE:
                place += 1
            if text_of[column] >= 0:
                bounds[row, text_of[column], 0] = start
                bounds[row, text_of[column], 1] = place
            if number_of[column] >= 0:
                value, exact = _float(data, start, place, powers)
                if not exact:
                    return False
                numbers[row, number_of[column]] = value
    return True


_space = compiled(_is_space, nogil=True)
_word = compiled(_token_end, nogil=True)
_line = compiled(_plain_line, nogil=True)
_count = compiled(_plain_rows, nogil=True)
_digits = compiled(_integer, nogil=True)
_float = compiled(_number, nogil=True, error_model="numpy")
_parse = compiled(_parse_rows, nogil=True, error_model="numpy")


def plain_rows(block: memoryview | bytes, width: int) -> tuple[int, int]:
    """Return (rows, bytes) of the leading lines of a block that are plain rows of `width` values.

    White space alone parts their values: words in quotes are plain, quoted spaces, comments, blank
    lines, an unfinished last line and what may be a keyword are not.
    """
    rows, end = _count(np.frombuffer(block, np.uint8), width)
    return int(rows), int(end)


def parse_rows(
    block: bytes, rows: int, width: int, numbers: list[int], texts: list[int]
) -> tuple[np.ndarray, list[list[bytes]]] | None:
    """Return the values of a block of plain rows: (rows, n) float64, and the tokens of each text.

    Parameters
    ----------
    numbers, texts : which of the `width` columns.

    None when a number is not plainly one, or has more digits than one rounding allows for.
    """
    number_of, text_of = np.full(width, -1), np.full(width, -1)
    number_of[numbers], text_of[texts] = np.arange(len(numbers)), np.arange(len(texts))
    values = np.empty((rows, len(numbers)))
    bounds = np.empty((rows, len(texts), 2), np.int64)
    data = np.frombuffer(block, np.uint8)
    if not _parse(data, width, number_of, text_of, _POWERS, values, bounds):
        return None
    pairs = (zip(*bounds[:, place].T.tolist(), strict=True) for place in range(len(texts)))
    return values, [[block[start:stop] for start, stop in pair] for pair in pairs]
