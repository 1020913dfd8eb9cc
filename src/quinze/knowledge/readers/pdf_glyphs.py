"""The glyphs of a PDF page as PDFium gives them, gathered into runs: pieces of a line without a wide gap.

Given an open pypdfium2 page; returns runs in points, in the frame in which their text is upright (y grows downward).
Knows nothing of columns, paragraphs or documents: that is pdf_layout.py.
"""

from __future__ import annotations

import ctypes
import math
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


def is_rtl(text: str) -> bool:
    rtl = sum(1 for c in text if unicodedata.bidirectional(c) in ("R", "AL"))
    return rtl > 0.5 * max(1, sum(1 for c in text if c.isalpha()))


@dataclass(slots=True)
class _Style:
    size: float
    bold: bool
    mono: bool
    turns: int
    slant: bool


def page_transform(page: Any) -> tuple[float, float, float, float, float, float]:
    """(a, b, c, d, e, f): seen x = a x + c y + e, seen y = b x + d y + f, in points from the top left corner."""
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
        _gather(textpage.raw, page_transform(page), glyphs)
    finally:
        textpage.close()
    return glyphs


def _gather(raw: Any, transform: tuple[float, ...], glyphs: Glyphs) -> None:
    a, b, c, d, e, f = transform
    width, height = glyphs.frame.width, glyphs.frame.height
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    ox, oy = ctypes.c_double(), ctypes.c_double()
    refs = [ctypes.byref(v) for v in (left, right, bottom, top)]
    oref = (ctypes.byref(ox), ctypes.byref(oy))
    fonts: dict[int, tuple[bool, bool]] = {}
    last_object, style = None, _Style(10, False, False, 0, False)
    frame = glyphs.frame
    run: Run | None = None
    letters: list[str] = []
    space = False
    key = 0

    def close() -> None:
        nonlocal run
        if run is not None:
            run.text = "".join(letters).rstrip()
            if run.text:
                glyphs.runs.setdefault(key, []).append(run)
        run = None
        letters.clear()

    for i in range(pdfium.FPDFText_CountChars(raw)):
        code = pdfium.FPDFText_GetUnicode(raw, i)
        if 0xD800 <= code < 0xE000:
            code = 0xFFFD
        char = chr(code)
        if code in (32, 10, 13, 9, 0xA0, 0x3000) or (code and char.isspace()):
            space = True
            continue
        if not pdfium.FPDFText_GetCharBox(raw, i, *refs):
            continue
        handle = ctypes.cast(pdfium.FPDFText_GetTextObject(raw, i), ctypes.c_void_p).value
        if handle != last_object or handle is None:
            style, last_object = _style(raw, i, fonts, transform), handle
            frame = glyphs.upright(style.turns)
        pdfium.FPDFText_GetCharOrigin(raw, i, *oref)
        l, r, lo, hi = left.value, right.value, bottom.value, top.value
        sx0, sy0 = a * l + c * lo + e, b * l + d * lo + f
        sx1, sy1 = a * r + c * hi + e, b * r + d * hi + f
        if max(sx0, sx1) < 0 or min(sx0, sx1) > width or max(sy0, sy1) < 0 or min(sy0, sy1) > height:
            continue  # drawn off the page: nobody sees it
        glyphs.count += 1
        if not _mapped(code, char) or (code < 0x250 and pdfium.FPDFText_HasUnicodeMapError(raw, i) == 1):
            glyphs.unmapped += 1
            if code == 0:
                space = True
                continue
        ux0, uy0 = frame.upright(sx0, sy0)
        ux1, uy1 = frame.upright(sx1, sy1)
        x0, x1 = min(ux0, ux1), max(ux0, ux1)
        y0, y1 = min(uy0, uy1), max(uy0, uy1)
        baseline = frame.upright(a * ox.value + c * oy.value + e, b * ox.value + d * oy.value + f)[1]
        size = style.size
        turned = 4 if style.slant else style.turns
        if run is not None:
            gap = max(x0 - run.x1, run.x0 - x1)
            if (
                turned != key
                or abs(baseline - run.baseline) > 0.25 * max(size, run.size)
                or gap > WIDE_GAP * min(size, run.size)
                or not 0.87 < size / run.size < 1.15
                or style.bold != run.bold
                # back to the left on the same line: another column or cell drawn later
                or (x1 < run.x0 - size and not _rtl_char(char))
            ):
                close()
        if run is None:
            key = turned
            run = Run("", x0, y0, x1, y1, baseline, size, style.bold, style.mono, space)
            space = False
        else:
            if space:
                letters.append(" ")
            run.x0, run.x1 = min(run.x0, x0), max(run.x1, x1)
            run.y0, run.y1 = min(run.y0, y0), max(run.y1, y1)
        space = False
        if 0x80 <= code < 0xA0 or 0xF000 <= code < 0xF100:
            char = "•" if len(letters) == 0 else char  # a bullet of a symbol font
        letters.append(_LIGATURES.get(char, char))
    close()


_LIGATURES = {
    "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
    "\x02": "\u00ad", "\ufffe": "\u00ad",
}  # fmt: skip


def _mapped(code: int, char: str) -> bool:
    return not (
        code in (0, 0xFFFD)
        or 0xE000 <= code < 0xF900
        or (code < 32 and char not in HYPHENS)
        or 0x80 <= code < 0xA0
    )


def _rtl_char(char: str) -> bool:
    return unicodedata.bidirectional(char) in ("R", "AL", "AN", "NSM", "EN", "ON", "CS")


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
    return _Style(max(size, 0.1), bold, mono, turns, slant)


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
