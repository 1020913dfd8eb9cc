"""Numbers and months written otherwise: 2,500 and 两千五百, March and 3月.

Given a question; returns what stands for a number of it in a text. Knows nothing of indexes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_DIGITS = "零一二三四五六七八九"
_VALUES = {character: value for value, character in enumerate(_DIGITS)} | {"两": 2, "〇": 0}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_GREAT = {"万": 10_000, "亿": 100_000_000}
_HAN_NUMBER = re.compile(
    r"[零〇一二两三四五六七八九十百千万亿]{2,}|[二两三四五六七八九十](?=[个名位条次页人元天年月岁层倍])"
)
_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d.,])|(?<![\d.,])\d{2,9}(?![\d,]|\.\d)")
_MONTHS = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\b", re.IGNORECASE)
_HAN_MONTH = re.compile(r"(?<!\d)(1[0-2]|0?[1-9])\s*月|(十[一二]?|[一二三四五六七八九])月")


def numbers_in_han(text: str) -> Iterator[tuple[str, str]]:
    """(as written, in digits) of each number that stands in Chinese characters.

    >>> list(numbers_in_han("每运行两千五百小时"))
    [('两千五百', '2500')]
    """
    for found in _HAN_NUMBER.finditer(text):
        value = _value(found[0])
        if value is not None:
            yield found[0], str(value)


def numbers_in_digits(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(in digits, as it may be written in Chinese) of each whole number of two digits or more.

    >>> list(numbers_in_digits("after 2,500 hours"))
    [('2500', ('二千五百', '两千五百'))]
    """
    for found in _NUMBER.finditer(text):
        digits = found[0].replace(",", "")
        if digits[0] != "0":
            plain = han_number(int(digits))
            yield digits, tuple(dict.fromkeys((plain, re.sub("二(?=[千万亿])", "两", plain))))


def months(text: str) -> Iterator[tuple[str, str]]:
    """(number, English name) of each month that is named.

    >>> list(months("3月14日"))
    [('3', 'march')]
    """
    for found in _MONTH.finditer(text):
        yield str(_MONTHS.index(found[0].lower()) + 1), found[0].lower()
    for found in _HAN_MONTH.finditer(text):
        number = int(found[1]) if found[1] else _value(found[2]) or 1
        yield str(number), _MONTHS[number - 1]


def han_number(value: int) -> str:
    """
    >>> han_number(1_250_000), han_number(18), han_number(105)
    ('一百二十五万', '十八', '一百零五')
    """
    if value == 0:
        return _DIGITS[0]
    for name, size in reversed(_GREAT.items()):
        if value >= size:
            rest = value % size
            gap = "零" if 0 < rest < size // 10 else ""
            return han_number(value // size) + name + gap + (han_number(rest) if rest else "")
    written = ""
    skipped = False
    for name, size in (("千", 1000), ("百", 100), ("十", 10), ("", 1)):
        digit = value // size % 10
        if digit:
            written += ("零" if skipped and written else "") + _DIGITS[digit] + name
            skipped = False
        else:
            skipped = True
    return written[1:] if written.startswith("一十") else written


def _value(written: str) -> int | None:
    """None where the characters are no number: 百万富翁 has 百万, 一一 counts nothing."""
    if not any(c in _UNITS or c in _GREAT for c in written):
        return _VALUES.get(written) if len(written) == 1 else None
    total = section = digit = 0
    for character in written:
        if character in _VALUES:
            digit = _VALUES[character]
        elif character in _UNITS:
            section += (digit or 1) * _UNITS[character]
            digit = 0
        elif character == "亿":
            total = (total + section + digit or 1) * _GREAT[character]
            section = digit = 0
        else:
            total += (section + digit or 1) * _GREAT[character]
            section = digit = 0
    return total + section + digit
