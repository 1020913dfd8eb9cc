"""Styles and numbering of a Word file: which paragraph is a heading, of what level, with which number.

Word stores "2.1" nowhere: it counts. So do we, by the rules of numbering.xml (ISO 29500-1, 17.9).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from quinze.knowledge.readers.packed import Element

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
VAL = f"{W}val"
_HEADING_NAME = re.compile(
    r"(?:heading|标题|標題|überschrift|titre|título|заголовок|見出し|제목)\s*([1-9])$", re.I
)
_CODE_NAME = re.compile(r"(?:^|[\s_-])(?:code|preformatted|verbatim|listing|代码)(?:$|[\s_-]|\s*block)", re.I)
_MONO = re.compile(
    r"courier|consolas|menlo|monaco|mono\b|lucida console|source code|fira code|cascadia", re.I
)
_PLACE = re.compile(r"%([1-9])")


@dataclass(slots=True)
class Style:
    """What a paragraph style means, its parents' meaning included."""

    name: str = ""
    outline: int | None = None
    """0 is the outermost heading, 9 running text."""
    num_id: str | None = None
    level: int | None = None
    mono: bool = False
    hidden: bool = False
    bold: bool = False
    size: int | None = None
    """In half points."""

    @property
    def is_title(self) -> bool:
        return self.name.lower() in ("title", "标题", "標題")

    @property
    def is_caption(self) -> bool:
        return self.name.lower() in ("caption", "题注")

    @property
    def is_contents(self) -> bool:
        return self.name.lower().startswith(("toc ", "table of figures"))

    @property
    def is_code(self) -> bool:
        return _CODE_NAME.search(self.name) is not None and "number" not in self.name.lower()


def read_styles(root: Element | None) -> dict[str, Style]:
    """Style id -> Style, with what each inherits resolved. The key "" is the default paragraph style."""
    raw: dict[str, Element] = {}
    default = ""
    for each in () if root is None else root.iterchildren(f"{W}style"):
        identity = each.get(f"{W}styleId", "")
        raw[identity] = each
        if each.get(f"{W}type") == "paragraph" and each.get(f"{W}default") in ("1", "true", "on"):
            default = identity
    styles = {identity: _style(identity, raw) for identity in raw}
    styles[""] = styles.get(default, Style())
    return styles


def default_size(root: Element | None) -> int:
    """Half points of text for which no style states a size."""
    stated = None if root is None else root.find(f"{W}docDefaults/{W}rPrDefault/{W}rPr/{W}sz")
    return integer(value(stated)) or 20


def _style(identity: str, raw: Mapping[str, Element]) -> Style:
    style = Style()
    seen: set[str] = set()
    while identity in raw and identity not in seen:
        seen.add(identity)
        element = raw[identity]
        name = value(element.find(f"{W}name")) or ""
        style.name = style.name or name
        properties = element.find(f"{W}pPr")
        if properties is not None:
            if style.outline is None:
                style.outline = integer(value(properties.find(f"{W}outlineLvl")))
            numbering = properties.find(f"{W}numPr")
            if numbering is not None:
                style.num_id = style.num_id or value(numbering.find(f"{W}numId"))
                if style.level is None:
                    style.level = integer(value(numbering.find(f"{W}ilvl")))
        if style.outline is None and (match := _HEADING_NAME.match(name)):
            style.outline = int(match[1]) - 1
        run = element.find(f"{W}rPr")
        if run is not None:
            style.mono = style.mono or is_mono(run)
            style.hidden = style.hidden or is_on(run.find(f"{W}vanish"))
            style.bold = style.bold or is_on(run.find(f"{W}b"))
            style.size = style.size or integer(value(run.find(f"{W}sz")))
        identity = value(element.find(f"{W}basedOn")) or ""
    return style


@dataclass(slots=True)
class Level:
    start: int = 1
    format: str = "decimal"
    text: str = ""
    style: str = ""
    legal: bool = False


@dataclass(slots=True)
class List:
    """One w:num: the levels it uses, and whose counters it shares."""

    counters: str
    levels: dict[int, Level]
    restarts: dict[int, int] = field(default_factory=dict)


class Numbering:
    """Counts the numbered paragraphs of one document, in their order."""

    def __init__(self, root: Element | None, styles: Mapping[str, Style]) -> None:
        self._lists: dict[str, List] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._begun: set[str] = set()
        if root is not None:
            self._read(root, styles)

    def level_of_style(self, num_id: str, style_id: str) -> int:
        """The level that `style_id` is tied to in a list."""
        found = self._lists.get(num_id)
        levels = found.levels if found else {}
        return next((index for index, level in levels.items() if level.style == style_id), 0)

    def next(self, num_id: str, level: int) -> str | None:
        """What stands before the next paragraph of that list: "2.1", "" for a bullet; None for no list."""
        found = self._lists.get(num_id)
        if found is None or level not in found.levels:
            return None
        counts = self._counts.setdefault(found.counters, {})
        if num_id not in self._begun:
            self._begun.add(num_id)
            for index, start in found.restarts.items():
                counts[index] = start - 1
        for index in range(level):
            counts.setdefault(index, found.levels[index].start if index in found.levels else 1)
        counts[level] = counts.get(level, found.levels[level].start - 1) + 1
        for deeper in [index for index in counts if index > level]:
            del counts[deeper]
        return self._shown(found, level, counts)

    def _shown(self, found: List, level: int, counts: Mapping[int, int]) -> str:
        own = found.levels[level]
        if own.format in ("bullet", "none"):
            return "" if own.format == "bullet" else own.text.replace("%", "")

        def number(match: re.Match[str]) -> str:
            index = int(match[1]) - 1
            shape = found.levels.get(index, own).format
            return numeral(counts.get(index, 1), "decimal" if own.legal else shape)

        return _PLACE.sub(number, own.text).strip()

    def _read(self, root: Element, styles: Mapping[str, Style]) -> None:
        abstract = {each.get(f"{W}abstractNumId", ""): each for each in root.iterchildren(f"{W}abstractNum")}
        nums = {each.get(f"{W}numId", ""): each for each in root.iterchildren(f"{W}num")}
        for num_id, num in nums.items():
            source = value(num.find(f"{W}abstractNumId")) or ""
            definition = abstract.get(source)
            # A list may borrow its levels from a list style, which names the list that has them.
            link = value(definition.find(f"{W}numStyleLink")) if definition is not None else None
            if link and (owner := styles.get(link)) and owner.num_id in nums:
                source = value(nums[owner.num_id].find(f"{W}abstractNumId")) or source
                definition = abstract.get(source)
            levels = _levels(definition)
            restarts: dict[int, int] = {}
            for change in num.iterchildren(f"{W}lvlOverride"):
                index = integer(change.get(f"{W}ilvl")) or 0
                levels |= _levels(change)
                if (start := integer(value(change.find(f"{W}startOverride")))) is not None:
                    restarts[index] = start
            self._lists[num_id] = List(source, levels, restarts)


def _levels(parent: Element | None) -> dict[int, Level]:
    levels: dict[int, Level] = {}
    for each in () if parent is None else parent.iterchildren(f"{W}lvl"):
        start = integer(value(each.find(f"{W}start")))
        # A format of Office 2010 and later stands within an alternative.
        shape = next((found for found in each.iter(f"{W}numFmt")), None)
        levels[integer(each.get(f"{W}ilvl")) or 0] = Level(
            start=1 if start is None else start,
            format=value(shape) or "decimal",
            text=value(each.find(f"{W}lvlText")) or "",
            style=value(each.find(f"{W}pStyle")) or "",
            legal=is_on(each.find(f"{W}isLgl")),
        )
    return levels


def numeral(number: int, shape: str) -> str:
    """`number` in one of Word's number formats; those of rarer scripts are shown as decimals."""
    if shape in ("lowerLetter", "upperLetter"):
        letter = (
            chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1) if 0 < number < 1000 else str(number)
        )
        return letter.upper() if shape == "upperLetter" else letter
    if shape in ("lowerRoman", "upperRoman"):
        roman = _roman(number)
        return roman if shape == "upperRoman" else roman.lower()
    if shape.startswith(
        ("chineseCounting", "chineseLegal", "japaneseCounting", "taiwaneseCounting", "ideographDigital")
    ):
        return _chinese(number)
    if shape == "decimalZero":
        return f"{number:02}"
    if shape.startswith("decimalEnclosedCircle") and 0 < number <= 20:
        return chr(0x2460 + number - 1)
    if shape == "ordinal":
        ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        return f"{number}{ending}"
    return str(number)


_CHINESE = ("chineseCounting", "chineseLegal", "japaneseCounting", "taiwaneseCounting", "ideographDigital")


def _roman(number: int) -> str:
    if not 0 < number < 4000:
        return str(number)
    text = ""
    for worth, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        count, number = divmod(number, worth)
        text += letters * count
    return text


def _chinese(number: int) -> str:
    digits = "零一二三四五六七八九"
    if not 0 <= number < 1000:
        return str(number)
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    text = f"{digits[hundreds]}百" if hundreds else ""
    if tens:
        text += f"{'' if tens == 1 and not hundreds else digits[tens]}十"
    elif hundreds and ones:
        text += "零"
    return text + (digits[ones] if ones or not number else "")


def value(element: Element | None) -> str | None:
    found: str | None = None if element is None else element.get(VAL)
    return found


def integer(text: str | None) -> int | None:
    try:
        return None if text is None else max(-1_000_000, min(int(text), 1_000_000))
    except ValueError:
        return None


def is_on(element: Element | None) -> bool:
    return element is not None and element.get(VAL, "1") not in ("0", "false", "off")


def is_mono(run_properties: Element) -> bool:
    fonts = run_properties.find(f"{W}rFonts")
    return (
        fonts is not None
        and _MONO.search(fonts.get(f"{W}ascii", "") or fonts.get(f"{W}hAnsi", "")) is not None
    )
