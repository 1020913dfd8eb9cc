"""Dates and times as an Excel format writes them: "d mmm yyyy", "hh:mm", "[h]:mm:ss", "yyyy年m月d日".

Given the tokens of a format and Excel's number of a day; returns what is seen. Names are English, or Chinese
where the format asks for it. Knows nothing of numbers, files or cells.
"""

from __future__ import annotations

import datetime
import itertools

_EPOCH = datetime.datetime(1899, 12, 30)  # noqa: DTZ001 -- clocks of a sheet have no zone
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ZH_NUMBERS = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
_ZH_DAYS = "一二三四五六日"
_CHINESE = ("804", "404", "c04", "1004", "1404")
LAST_SERIAL = 2_958_466


class DateSection:
    """A part of a format that writes a date, a time or how long something took."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._chinese = any(
            kind == "place" and text.lower().lstrip("0").endswith(_CHINESE) for kind, text in tokens
        )
        # What each computer shows in its own country's order is not fixed: F800 is its long date.
        self._own_order = any(
            kind == "place" and text.lower() in ("f800", "x-sysdate") for kind, text in tokens
        )
        kept = [(kind, text.lower() if kind == "date" else text) for kind, text in tokens if kind != "place"]
        self._tokens = [
            ("minute" if kind == "date" and text in ("m", "mm") and _is_minute(kept, at) else kind, text)
            for at, (kind, text) in enumerate(kept)
        ]
        self._noon = any(kind == "date" and "/" in text for kind, text in kept)
        self._elapsed = next((text for kind, text in kept if kind == "date" and text[0] == "["), "")
        self._places = sum(
            len(text) for at, (kind, text) in enumerate(kept) if kind == "digits" and _is_part(kept, at)
        )

    def of_serial(self, serial: float) -> str | None:
        if serial >= LAST_SERIAL:
            return None
        unit = 10 ** min(self._places, 6)
        ticks = round(serial * 86_400 * unit)
        moment = _EPOCH + datetime.timedelta(seconds=ticks // unit, microseconds=ticks % unit * 10**6 // unit)
        # Excel believes that 1900 had a 29th of February.
        if 1 <= serial < 60:
            moment += datetime.timedelta(days=1)
        if self._own_order:
            return moment.date().isoformat()
        seconds, part = ticks // unit, f"{ticks % unit:0{self._places}}" if self._places else ""
        out = ""
        for at, (kind, text) in enumerate(self._tokens):
            if kind == "date":
                out += self._date(text, moment, seconds)
            elif kind == "minute":
                out += f"{moment.minute:0{len(text)}}"
            elif kind == "digits":
                out += part if _is_part(self._tokens, at) else ""
            else:
                out += text
        return out

    def _date(self, token: str, moment: datetime.datetime, seconds: int) -> str:
        size = len(token)
        if token[0] == "[":
            unit = {"h": 3600, "m": 60, "s": 1}[token[1]]
            return f"{seconds // unit:0{size - 2}}"
        if "/" in token:
            morning, afternoon = (
                ("上午", "下午") if "上" in token else ("AM", "PM") if size > 3 else ("A", "P")
            )
            return afternoon if moment.hour >= 12 else morning
        if token[0] == "y":
            return f"{moment.year % 100:02}" if size <= 2 else f"{moment.year:04}"
        if token[0] == "e":
            return str(moment.year)
        if token[0] == "m":
            return self._month(moment.month, size)
        if token[0] == "d":
            return f"{moment.day:0{size}}" if size <= 2 else self._day(moment.weekday(), size)
        if token[0] == "a":
            return ("周", "星期")[size > 3] + _ZH_DAYS[moment.weekday()]
        if token[0] == "h":
            hour = (moment.hour % 12 or 12) if self._noon else moment.hour
            return f"{hour:0{min(size, 2)}}"
        if self._elapsed == "[s]":
            return str(seconds)
        return f"{moment.second:0{min(size, 2)}}"

    def _month(self, month: int, size: int) -> str:
        if size <= 2:
            return f"{month:0{size}}"
        if self._chinese:
            return f"{month}月" if size == 3 else f"{_ZH_NUMBERS[month - 1]}月"
        name = _MONTHS[month - 1]
        return name[:3] if size == 3 else name[:1] if size == 5 else name

    def _day(self, weekday: int, size: int) -> str:
        if self._chinese:
            return ("周", "星期")[size > 3] + _ZH_DAYS[weekday]
        return _DAYS[weekday][:3] if size == 3 else _DAYS[weekday]


def _is_minute(tokens: list[tuple[str, str]], at: int) -> bool:
    """An m next to hours or seconds means minutes, everywhere else months."""
    dates = [(index, text) for index, (kind, text) in enumerate(tokens) if kind == "date" and "/" not in text]
    for (left, before), (right, after) in itertools.pairwise(dates):
        if right == at and before.strip("[]")[:1] == "h":
            return True
        if left == at and after.strip("[]")[:1] == "s":
            return True
    return False


def _is_part(tokens: list[tuple[str, str]], at: int) -> bool:
    """The zeros of "ss.00" are parts of a second."""
    return at >= 2 and tokens[at - 1] == ("mark", ".") and tokens[at - 2][1].lower().strip("[]")[:1] == "s"
