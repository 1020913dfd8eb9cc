"""Number formats of Excel: from a value and its format to what a person sees in the cell.

`compile_format("#,##0.00 \\\\€")(1250.0)` is "1,250.00 €". Colours and alignment are dropped; a date that
Excel writes in the order of each reader's own country stays 2025-03-14, which nobody misreads.
Knows nothing of files and cells.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import operator
import re
from collections.abc import Callable

from quinze.knowledge.readers.sheet_dates import DateSection

Value = str | float | int | bool | datetime.date | datetime.time | datetime.timedelta | None
Format = Callable[[Value], str | None]
"""A value -> what is seen, or None where the format says nothing of such a value."""

BUILT_IN = {
    1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 5: '"$"#,##0;-"$"#,##0', 6: '"$"#,##0;-"$"#,##0',
    7: '"$"#,##0.00;-"$"#,##0.00', 8: '"$"#,##0.00;-"$"#,##0.00', 9: "0%", 10: "0.00%", 11: "0.00E+00",
    12: "# ?/?", 13: "# ??/??", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM",
    19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 37: "#,##0;(#,##0)", 38: "#,##0;(#,##0)",
    39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)", 41: "#,##0;(#,##0);-", 42: '"$"#,##0;("$"#,##0);-',
    43: "#,##0.00;(#,##0.00);-", 44: '"$"#,##0.00;("$"#,##0.00);-', 45: "mm:ss", 46: "[h]:mm:ss",
    47: "mm:ss.0", 48: "##0.0E+0",
}  # fmt: skip
"""Those that a file need not spell out (ECMA-376, 18.8.30). 14 and 22 follow the reader's country."""
LONGEST_FORMAT = 255
_EPOCH = datetime.datetime(1899, 12, 30)  # noqa: DTZ001 -- clocks of a sheet have no zone
_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|(?P<blank>_.|\*.)|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<general>General)|(?P<exponent>[eE][+-](?=[0#?]))|(?P<digits>[0#?]+)|(?P<date>AM/PM|A/P|上午/下午"
    r"|[yY]+|[mM]+|[dD]+|[hH]+|[sS]+|e+|a{3,4})|(?P<mark>.)",
    re.DOTALL,
)
_CONDITION = re.compile(r"(<=|>=|<>|<|>|=)\s*(-?[\d.]+)$")
_NOT_ZERO = re.compile("[1-9]")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge, "=": operator.eq,
    "<>": operator.ne,
}  # fmt: skip
_Tokens = list[tuple[str, str]]
_ROUND = decimal.Context(prec=330, rounding=decimal.ROUND_HALF_UP)


@functools.lru_cache(4096)
def compile_format(code: str) -> Format | None:
    """What shows a value as `code` says; None where it says nothing ("General") or is not understood."""
    if len(code) > LONGEST_FORMAT or code.strip().lower() in ("", "general", "@"):
        return None
    sections = [_Section(tokens) for tokens in _sections(code)]
    text = sections.pop() if len(sections) == 4 or (sections[-1].is_text and len(sections) > 1) else None
    if len(sections) == 1 and sections[0].is_text:
        text, sections = sections[0], []

    def show(value: Value) -> str | None:
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, str):
            return text.of_text(value) if text is not None and text.is_text and value else None
        number = _serial(value)
        if number is None or not sections:
            return None
        section, bare = _choose(sections, number)
        try:
            return section.of_value(value, abs(number) if bare else number)
        except (decimal.InvalidOperation, OverflowError):
            # A number beyond all paper: 1E+300 under many percent signs.
            return None

    return show


def _sections(code: str) -> list[_Tokens]:
    found: list[_Tokens] = [[]]
    for match in _TOKEN.finditer(code):
        kind, text = match.lastgroup or "", match.group(match.lastgroup or 0)
        if kind == "mark" and text == ";":
            found.append([])
        elif kind in ("quoted", "escaped"):
            found[-1].append(("text", text))
        elif kind == "bracket" and text.startswith("$"):
            symbol, _, place = text[1:].partition("-")
            found[-1] += [("place", place), ("text", symbol)]
        elif kind == "mark" and text not in ".,%@/":
            found[-1].append(("text", text))
        elif kind != "blank":
            found[-1].append((kind, text))
    return found[:4]


def _choose(sections: list[_Section], number: float) -> tuple[_Section, bool]:
    """The section for a number, and whether the section itself says that it is negative."""
    if any(section.condition for section in sections[:2]):
        for section in sections:
            if section.condition is None or section.condition(number):
                return section, section.below_zero and number < 0
        return sections[-1], False
    if number < 0 and len(sections) > 1:
        return sections[1], True
    return sections[2 if number == 0 and len(sections) > 2 else 0], False


def _serial(value: Value) -> float | None:
    """Excel's own number of a value: days since the last day of 1899."""
    if isinstance(value, datetime.datetime):
        return (value - _EPOCH) / datetime.timedelta(days=1)
    if isinstance(value, datetime.date):
        return float((value - _EPOCH.date()).days)
    if isinstance(value, datetime.time):
        return (value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6) / 86400
    if isinstance(value, datetime.timedelta):
        return value / datetime.timedelta(days=1)
    return float(value) if isinstance(value, int | float) else None


class _Section:
    """One of the up to four parts of a format, understood once and used for many values."""

    def __init__(self, tokens: _Tokens) -> None:
        self.condition: Callable[[float], bool] | None = None
        self.below_zero = False
        kept: _Tokens = []
        for kind, text in tokens:
            if kind == "bracket" and (match := _CONDITION.match(text)):
                compare, limit = _COMPARE[match[1]], _float(match[2])
                self.condition = functools.partial(_holds, compare, limit)
                self.below_zero = match[1] in ("<", "<=") and limit <= 0
            elif kind == "bracket" and text.lower().strip("hms") == "" and text:
                kept.append(("date", f"[{text.lower()}]"))
            elif kind != "bracket":
                kept.append((kind, text))
        self.is_text = any(kind == "mark" and text == "@" for kind, text in kept)
        has_digits = any(kind == "digits" for kind, _ in kept)
        # "0.00 km" has an m that is meant as a letter; "mm:ss.00" has digits that are part of a second.
        dates = [text for kind, text in kept if kind == "date"]
        is_date = bool(dates) and (not has_digits or any(text.strip("[]")[0] in "hsyd" for text in dates))
        self._date = DateSection(kept) if is_date else None
        if not is_date:
            kept = [("text" if kind == "date" else kind, text) for kind, text in kept if kind != "place"]
        self._tokens = kept
        self._number = None if is_date or not has_digits else _number_section(kept)

    def of_text(self, value: str) -> str:
        return "".join(value if kind == "mark" else text for kind, text in self._tokens if kind != "place")

    def of_value(self, value: Value, number: float) -> str | None:
        if self._date is not None:
            return self._date.of_serial(number) if number >= 0 else None
        if isinstance(value, datetime.date | datetime.time | datetime.timedelta) and self._number is None:
            return None
        sign = "-" if number < 0 else ""
        if self._number is not None:
            seen = self._number(_decimal(abs(number)))
            return sign + seen if _NOT_ZERO.search(seen) else seen
        if any(kind == "general" for kind, _ in self._tokens):
            plain = f"{abs(number):.15g}"
            return sign + "".join(plain if kind == "general" else text for kind, text in self._tokens)
        if any(kind == "mark" and text == "@" for kind, text in self._tokens):
            return None
        return "".join(text for _, text in self._tokens)


def _holds(compare: Callable[[float, float], bool], limit: float, number: float) -> bool:
    return compare(number, limit)


def _float(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return 0.0


def _decimal(number: float) -> decimal.Decimal:
    # Excel calculates with fifteen digits and rounds what it shows: 1.005 is 1.01, whatever its bits say.
    return decimal.Decimal(f"{number:.15g}")


def _number_section(tokens: _Tokens) -> Callable[[decimal.Decimal], str]:
    slashes = [at for at, token in enumerate(tokens) if token == ("mark", "/")]
    exponents = [at for at, (kind, _) in enumerate(tokens) if kind == "exponent"]
    if exponents:
        at = exponents[0]
        mantissa, power = _Digits(tokens[:at]), _Digits(tokens[at + 1 :])
        return functools.partial(_scientific, mantissa, tokens[at][1], power)
    if slashes and (shape := _fraction_shape(tokens, slashes[0])) is not None:
        return shape
    return _Digits(tokens).show


def _scientific(mantissa: _Digits, sign: str, power: _Digits, number: decimal.Decimal) -> str:
    step = max(1, mantissa.whole)
    exponent = number.adjusted() if number else 0
    exponent -= exponent % step if step > 1 else 0
    scaled = number.scaleb(-exponent)
    if mantissa.rounded(scaled) >= 10**step:
        exponent += step
        scaled = number.scaleb(-exponent)
    mark = "-" if exponent < 0 else "+" if sign[1] == "+" else ""
    return f"{mantissa.show(scaled)}{sign[0]}{mark}{power.show(decimal.Decimal(abs(exponent)))}"


def _fraction_shape(tokens: _Tokens, slash: int) -> Callable[[decimal.Decimal], str] | None:
    """ "# ?/?" and "?/8": halves and eighths, as recipes and carpenters write them."""
    if slash == 0 or slash + 1 >= len(tokens) or tokens[slash - 1][0] != "digits":
        return None
    after = "".join(text for _, text in tokens[slash + 1 :]).strip()
    if not re.fullmatch(r"[?#0-9]+", after):
        return None
    has_whole = any(kind == "digits" for kind, _ in tokens[: slash - 1])
    fixed = int(after) if after.isdigit() and int(after) else None
    most = 10 ** min(len(after), 6) - 1

    def show(number: decimal.Decimal) -> str:
        whole, rest = divmod(fractions.Fraction(number), 1) if has_whole else (0, fractions.Fraction(number))
        if fixed:
            top, bottom = int(rest * fixed + fractions.Fraction(1, 2)), fixed
        else:
            near = rest.limit_denominator(most)
            top, bottom = near.numerator, near.denominator
        if has_whole and top == bottom:
            whole, top = whole + 1, 0
        if has_whole and not top:
            return str(whole)
        return f"{whole} {top}/{bottom}" if whole else f"{top}/{bottom}"

    return show


class _Digits:
    """Places for digits with what stands between, before and behind them: "(000) 000-0000", "#,##0.00 kg"."""

    def __init__(self, tokens: _Tokens) -> None:
        self._scale = sum(text.count("%") for kind, text in tokens if kind == "mark") * 2
        self._grouped = False
        self._before: _Tokens = []
        self._after: _Tokens = []
        self._point = False
        last = max((at for at, (kind, _) in enumerate(tokens) if kind == "digits"), default=-1)
        for at, (kind, text) in enumerate(tokens):
            side = self._after if self._point else self._before
            if kind == "mark" and text == "," and at < last and any(k == "digits" for k, _ in tokens[:at]):
                self._grouped = True
            elif kind == "mark" and text == "," and last >= 0 and self._only_commas(tokens[last + 1 : at]):
                self._scale -= 3
            elif kind == "mark" and text == "." and not self._point:
                self._point = True
            elif kind == "digits":
                side += [("digit", each) for each in text]
            else:
                side.append(("text", text))
        self.whole = sum(kind == "digit" for kind, _ in self._before)
        self._places = sum(kind == "digit" for kind, _ in self._after)
        self._unit = decimal.Decimal(1).scaleb(-self._places)
        places = "".join("d" if kind == "digit" else "t" for kind, _ in self._before)
        self._in_one_run = "dt" not in places.strip("t") and "td" not in places.strip("t") and "d" in places
        wanted = "".join(text for kind, text in self._before if kind == "digit")
        self._least = len(wanted) - wanted.find("0") if "0" in wanted else 0
        cut = places.find("d")
        self._lead = "".join(text for _, text in self._before[:cut]) if self._in_one_run else ""
        self._trail = (
            "".join(text for _, text in self._before[cut + len(wanted) :]) if self._in_one_run else ""
        )

    @staticmethod
    def _only_commas(tokens: _Tokens) -> bool:
        return all(token == ("mark", ",") for token in tokens)

    def rounded(self, number: decimal.Decimal) -> decimal.Decimal:
        return number.scaleb(self._scale).quantize(self._unit, context=_ROUND)

    def show(self, number: decimal.Decimal) -> str:
        whole, _, part = f"{self.rounded(number):f}".partition(".")
        return self._whole(whole.lstrip("0")) + self._part(part)

    def _whole(self, digits: str) -> str:
        """Filled from the right; what is left over stands at the first place."""
        if self._in_one_run:
            digits = digits.zfill(self._least)
            if self._grouped and len(digits) > 3:
                first = len(digits) % 3 or 3
                digits = ",".join(
                    [digits[:first], *(digits[at : at + 3] for at in range(first, len(digits), 3))]
                )
            return f"{self._lead}{digits}{self._trail}"
        out: list[str] = []
        place, count = self.whole, 0
        for kind, text in reversed(self._before):
            if kind != "digit":
                out.append(text)
                continue
            place -= 1
            take = digits[::-1] if place == 0 else digits[-1:]
            for digit in take or ("0" if text == "0" else ""):
                if self._grouped and count and count % 3 == 0:
                    out.append(",")
                out.append(digit)
                count += 1
            digits = digits[:-1]
        if not self.whole:
            out.insert(0, digits)
        return "".join(reversed(out))

    def _part(self, digits: str) -> str:
        optional = "".join(text for kind, text in self._after if kind == "digit")
        while digits and optional[len(digits) - 1] != "0" and digits[-1] == "0":
            digits = digits[:-1]
        out, at = "." if digits else "", 0
        for kind, text in self._after:
            if kind == "digit":
                out += digits[at : at + 1]
                at += 1
            else:
                out += text
        return out
