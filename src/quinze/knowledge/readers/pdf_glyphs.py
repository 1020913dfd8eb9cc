"""The glyphs of a PDF page as PDFium gives them, gathered into runs: pieces of a line without a wide gap.

Given an open pypdfium2 page; returns runs in points, in the frame in which their text is upright (y grows
downward). Knows nothing of columns, paragraphs or documents.
"""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import pypdfium2.raw as pdfium

from quinze.knowledge.document import Box

WIDE_GAP = 0.9
"""In em: a wider gap between two glyphs ends a run. Word spaces stay below it, column gutters above."""

HYPHENS = frozenset("\x02\ufffe\u00ad")
"""What PDFium writes for a hyphen at the end of a line, and the soft hyphen."""

_BOLD_NAMES = ("bold", "black", "heavy", "cmbx", "semibold", "demi")


@dataclass(frozen=True, slots=True)
class Frame:
    """The seen page, width x height points, turned by `turns` quarters so that a text becomes upright."""

    width: float
    height: float
    turns: int = 0

    def upright(self, x: float, y: float) -> tuple[float, float]:
        match self.turns % 4:
            case 0:
                return x, y
            case 1:
                return y, self.width - x
            case 2:
                return self.width - x, self.height - y
            case _:
                return self.height - y, x

    def seen(self, x: float, y: float) -> tuple[float, float]:
        match self.turns % 4:
            case 0:
                return x, y
            case 1:
                return self.width - y, x
            case 2:
                return self.width - x, self.height - y
            case _:
                return y, self.height - x

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """The rectangle as fractions of the seen page."""
        (ax, ay), (bx, by) = self.seen(x0, y0), self.seen(x1, y1)

        def fraction(value: float, whole: float) -> float:
            return round(min(max(value / whole, 0.0), 1.0), 5)

        return Box(
            fraction(min(ax, bx), self.width),
            fraction(min(ay, by), self.height),
            fraction(max(ax, bx), self.width),
            fraction(max(ay, by), self.height),
        )


@dataclass(slots=True)
class Run:
    """Glyphs that follow one another on one baseline."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    baseline: float
    size: float
    bold: bool
    mono: bool
    space: bool = False
    """A space stood before it."""
    table: int | None = None
    """It stands in place of a whole table: the table's number on its page."""

    def extend(self, x0: float, y0: float, x1: float, y1: float) -> None:
        if x0 < self.x0:
            self.x0 = x0
        if x1 > self.x1:
            self.x1 = x1
        if y0 < self.y0:
            self.y0 = y0
        if y1 > self.y1:
            self.y1 = y1

    @property
    def rtl(self) -> bool:
        return is_rtl(self.text)

    @property
    def core(self) -> tuple[float, float]:
        """Top and bottom without ascenders and descenders: lines that stand close must not touch."""
        if self.table is not None:
            return self.y0, self.y1
        return self.baseline - 0.45 * self.size, self.baseline - 0.05 * self.size


@dataclass(slots=True)
class Glyphs:
    """All runs of a page by the quarter turns of their text; 4 holds what stands at a slant."""

    frame: Frame
    runs: dict[int, list[Run]] = field(default_factory=dict)
    count: int = 0
    """Visible glyphs."""
    unmapped: int = 0
    """Glyphs for which the file does not say which character they are."""

    @property
    def broken(self) -> bool:
        """The text layer is not worth reading: many of its glyphs are no characters at all."""
        return self.count > 0 and self.unmapped > 0.3 * self.count

    def upright(self, turns: int) -> Frame:
        return Frame(self.frame.width, self.frame.height, turns % 4)


_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")


def is_rtl(text: str) -> bool:
    if not _RTL.search(text):
        return False
    rtl = sum(1 for c in text if unicodedata.bidirectional(c) in ("R", "AL"))
    return rtl > 0.5 * max(1, sum(1 for c in text if c.isalpha()))


@dataclass(slots=True)
class _Style:
    size: float
    bold: bool
    mono: bool
    turns: int
    key: int
    """`turns`, or 4 for text at a slant."""


def page_transform(page: Any) -> tuple[float, float, float, float, float, float]:
    """(a, b, c, d, e, f): seen x = a x + c y + e, seen y = b x + d y + f, from the top left corner."""
    width, height = page.get_size()
    fine = 1000  # PDFium answers in whole pixels
    size = (round(width * fine), round(height * fine))
    points = []
    for x, y in ((0.0, 0.0), (1000.0, 0.0), (0.0, 1000.0)):
        px, py = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDF_PageToDevice(page, 0, 0, *size, 0, x, y, px, py)
        points.append((px.value / fine, py.value / fine))
    (e, f), (xe, xf), (ye, yf) = points
    return (xe - e) / 1000, (xf - f) / 1000, (ye - e) / 1000, (yf - f) / 1000, e, f


def read_glyphs(page: Any) -> Glyphs:
    """Every visible glyph of the page, gathered into runs."""
    width, height = page.get_size()
    glyphs = Glyphs(Frame(width, height))
    textpage = page.get_textpage()
    try:
        _Gatherer(textpage.raw, page_transform(page), glyphs).gather()
    finally:
        textpage.close()
    return glyphs


class _Gatherer:
    """One pass over the glyphs in the file's order: the innermost loop of reading a PDF."""

    def __init__(self, raw: Any, transform: tuple[float, ...], glyphs: Glyphs) -> None:
        self.raw = raw
        self.transform = transform
        self.glyphs = glyphs
        self.fonts: dict[int, tuple[bool, bool]] = {}
        self.style = _Style(10, False, False, 0, 0)
        self.run: Run | None = None
        self.key = 0
        self.letters: list[str] = []

    def gather(self) -> None:
        raw, space, last = self.raw, False, -1
        left, right, bottom, top, x, y = numbers = [ctypes.c_double() for _ in range(6)]
        box, origin = [ctypes.byref(n) for n in numbers[:4]], [ctypes.byref(n) for n in numbers[4:]]
        for i in range(pdfium.FPDFText_CountChars(raw)):
            code = pdfium.FPDFText_GetUnicode(raw, i)
            if code in _BLANKS:
                space = True
                continue
            if not pdfium.FPDFText_GetCharBox(raw, i, *box):
                continue
            handle = _text_object(raw, i)
            if handle != last or handle is None:
                self.style, last = _style(raw, i, self.fonts, self.transform), handle
            pdfium.FPDFText_GetCharOrigin(raw, i, *origin)
            at = (left.value, bottom.value, right.value, top.value, x.value, y.value)
            if self._add(i, code, at, space):
                space = False
        self._close()

    def _add(self, i: int, code: int, at: tuple[float, ...], space: bool) -> bool:
        """Put one glyph to the run, or begin one with it. False: it is not to be seen."""
        a, b, c, d, e, f = self.transform
        glyphs, style = self.glyphs, self.style
        left, low, right, high, ox, oy = at
        sx0, sy0 = a * left + c * low + e, b * left + d * low + f
        sx1, sy1 = a * right + c * high + e, b * right + d * high + f
        width, height = glyphs.frame.width, glyphs.frame.height
        if not (0 <= sx0 <= width or 0 <= sx1 <= width) or not (0 <= sy0 <= height or 0 <= sy1 <= height):
            return False  # drawn off the page
        glyphs.count += 1
        latin = 127 < code < 0x250
        if not _is_mapped(code) or (latin and pdfium.FPDFText_HasUnicodeMapError(self.raw, i) == 1):
            glyphs.unmapped += 1
        if code == 0 or 0xD800 <= code < 0xE000:
            return False
        char = chr(code)
        baseline = b * ox + d * oy + f
        if style.turns:
            frame = glyphs.upright(style.turns)
            baseline = frame.upright(a * ox + c * oy + e, baseline)[1]
            (sx0, sy0), (sx1, sy1) = frame.upright(sx0, sy0), frame.upright(sx1, sy1)
        x0, x1 = (sx0, sx1) if sx0 < sx1 else (sx1, sx0)
        y0, y1 = (sy0, sy1) if sy0 < sy1 else (sy1, sy0)
        run = self.run
        if run is None or self._parts(run, char, x0, x1, baseline):
            self._close()
            self.run = Run("", x0, y0, x1, y1, baseline, style.size, style.bold, style.mono, space)
            self.key = style.key
            glyphs.runs.setdefault(self.key, []).append(self.run)
            if 0x80 <= code < 0xA0 or 0xF000 <= code < 0xF100:
                char = "•"  # a bullet of a symbol font
        else:
            if space:
                self.letters.append(" ")
            run.extend(x0, y0, x1, y1)
        self.letters.append(_LIGATURES.get(char, char))
        return True

    def _parts(self, run: Run, char: str, x0: float, x1: float, baseline: float) -> bool:
        """The glyph stands too far from the run, or looks too different, to go on with it."""
        style, size = self.style, self.style.size
        return (
            style.key != self.key
            or not 0.87 < size / run.size < 1.15
            or not -0.25 * size < baseline - run.baseline < 0.25 * size
            or x0 - run.x1 > WIDE_GAP * size
            or run.x0 - x1 > WIDE_GAP * size
            or style.bold != run.bold
            # Back to the left on the same line: another column or cell, drawn later.
            or (x1 < run.x0 - size and not _may_run_left(char))
        )

    def _close(self) -> None:
        if self.run is not None:
            self.run.text = "".join(self.letters).rstrip()
        self.run = None
        self.letters.clear()


_LIGATURES = {
    "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
    "\x02": "\u00ad", "\ufffe": "\u00ad",
    # Codes of Windows' Western alphabet, which many programs wrote as if they were Unicode.
    **{chr(code): bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)},
}  # fmt: skip


_BLANKS = frozenset(code for code in range(0x3001) if chr(code).isspace())


def _is_mapped(code: int) -> bool:
    if 0x9F < code < 0xD800 or 31 < code < 0x80:
        return True
    return not (code < 0xA0 and code != 2) and not 0xD800 <= code < 0xF900 and code != 0xFFFD


def _may_run_left(char: str) -> bool:
    return unicodedata.bidirectional(char) in ("R", "AL", "AN", "NSM", "EN", "ON", "CS")


# The same function, answering with a plain number: comparing pointers costs more than reading the glyph.
_text_object = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(
    ctypes.cast(pdfium.FPDFText_GetTextObject, ctypes.c_void_p).value or 0
)


def _style(raw: Any, i: int, fonts: dict[int, tuple[bool, bool]], transform: tuple[float, ...]) -> _Style:
    """Size in points as drawn, weight, and the direction of the text as seen."""
    matrix = pdfium.FS_MATRIX()
    a, b, c, d = transform[:4]
    size, dx, dy = pdfium.FPDFText_GetFontSize(raw, i), 1.0, 0.0
    if pdfium.FPDFText_GetMatrix(raw, i, matrix):
        size *= math.hypot(matrix.c, matrix.d) or 1.0
        dx, dy = a * matrix.a + c * matrix.b, b * matrix.a + d * matrix.b
    degrees = math.degrees(math.atan2(dy, dx)) % 360
    turns = round(degrees / 90) % 4
    slant = abs((degrees - 90 * turns + 180) % 360 - 180) > 8
    size *= math.sqrt(abs(a * d - b * c))
    bold, mono = _font(raw, i, fonts)
    return _Style(max(size, 0.1), bold, mono, turns, 4 if slant else turns)


def _font(raw: Any, i: int, fonts: dict[int, tuple[bool, bool]]) -> tuple[bool, bool]:
    found = pdfium.FPDFTextObj_GetFont(pdfium.FPDFText_GetTextObject(raw, i))
    font = ctypes.cast(found, ctypes.c_void_p).value or 0
    if font not in fonts:
        name, flags = ctypes.create_string_buffer(256), ctypes.c_int()
        pdfium.FPDFText_GetFontInfo(raw, i, name, 256, flags)
        lowered = name.value.decode("utf-8", "replace").lower()
        bold = any(word in lowered for word in _BOLD_NAMES) or bool(flags.value & (1 << 18))
        mono = bool(flags.value & 1) or any(w in lowered for w in ("mono", "courier", "consol", "cmtt"))
        fonts[font] = (bold or pdfium.FPDFText_GetFontWeight(raw, i) >= 650, mono)
    return fonts[font]
