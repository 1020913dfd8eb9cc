"""What a person reads in one Word paragraph, and what hangs on it: text boxes, notes, comments, pictures.

Insertions are read, deletions are not; a text box that is stored twice (once for old programs) is read
once; hidden text is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quinze.knowledge.readers.docx_numbering import Style, W, integer, is_mono, is_on, value
from quinze.knowledge.readers.omml import M, linear
from quinze.knowledge.readers.packed import Element, own_text

MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
WP = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_WINGDINGS = {
    0xFE: "☒", 0xFD: "☒", 0xA8: "☐", 0x6F: "☐", 0x72: "☐", 0xFC: "✓", 0xFB: "✗", 0x52: "☑", 0xE0: "→",
    0xDF: "←",
}  # fmt: skip
_MACHINE = re.compile(
    r"(description automatically generated( with .*)?|AI-generated content may be incorrect\.?)\s*$"
)
_PASSED = frozenset(f"{W}{name}" for name in (
    "pPr", "rPr", "del", "moveFrom", "instrText", "delText", "delInstrText", "proofErr", "bookmarkStart",
    "bookmarkEnd", "sdtPr", "sdtEndPr", "annotationRef", "lastRenderedPageBreak", "fldData", "tblPr", "rt",
))  # fmt: skip
_CONSTANT = {
    f"{W}tab": "\t", f"{W}cr": "\n", f"{W}noBreakHyphen": "-", f"{W}ptab": "\t", f"{W}softHyphen": "",
}  # fmt: skip


@dataclass(slots=True)
class Text:
    """A paragraph, read."""

    text: str = ""
    boxes: list[Element] = field(default_factory=list)
    """w:txbxContent and other places that hold paragraphs of their own."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """("footnote", id), ("endnote", id), ("comment", id) in order."""
    pictures: list[str] = field(default_factory=list)
    """What pictures show, by their makers' words."""
    parts: list[str] = field(default_factory=list)
    """Relation ids of charts and diagrams."""
    mono: bool = False
    """Every visible character is in a typewriter's font."""
    equations: int = 0


def read_text(paragraph: Element, style: Style, run_styles: dict[str, Style]) -> Text:
    found = Text()
    reading = _Reading(found, style, run_styles)
    reading.walk(paragraph)
    found.text = "".join(reading.pieces)
    found.mono = reading.mono > 0 and reading.plain == 0
    return found


class _Reading:
    def __init__(self, found: Text, style: Style, run_styles: dict[str, Style]) -> None:
        self.found = found
        self.pieces: list[str] = []
        self.plain = self.mono = 0
        self._style = style
        self._run_styles = run_styles
        self._mono = style.mono
        self._special: dict[str, Callable[[Element], None]] = {
            f"{W}r": self._run,
            f"{W}t": self._text,
            f"{W}br": self._break,
            f"{W}sym": self._symbol,
            f"{W}txbxContent": found.boxes.append,
            f"{W}footnoteReference": lambda each: self._note("footnote", each),
            f"{W}endnoteReference": lambda element: self._note("endnote", element),
            f"{W}commentReference": lambda element: self._note("comment", element),
            f"{W}fldChar": self._field,
            f"{M}oMath": self._equation,
            f"{M}oMathPara": self._equations,
            f"{MC}AlternateContent": self._alternative,
            f"{WP}docPr": self._picture,
            f"{A}t": self._drawn,
        }

    def walk(self, element: Element) -> None:
        for child in element:
            tag = child.tag
            if tag in _PASSED or not isinstance(tag, str):
                continue
            if (act := self._special.get(tag)) is not None:
                act(child)
            elif (constant := _CONSTANT.get(tag)) is not None:
                self.pieces.append(constant)
            else:
                self._other(child)

    def _other(self, element: Element) -> None:
        relation = element.get(f"{R}id") or element.get(f"{R}dm")
        if relation and element.tag.rpartition("}")[2] in ("chart", "relIds"):
            self.found.parts.append(relation)
        if element.tag == f"{W}sdt" and is_on(element.find(f"{W}sdtPr/{W}showingPlcHdr")):
            return
        if len(element):
            self.walk(element)

    def _run(self, run: Element) -> None:
        properties = run.find(f"{W}rPr")
        if properties is None:
            self._mono = self._style.mono
        else:
            own = self._run_styles.get(value(properties.find(f"{W}rStyle")) or "")
            vanish = properties.find(f"{W}vanish")
            if is_on(vanish) or (vanish is None and own is not None and own.hidden):
                return
            has_font = properties.find(f"{W}rFonts") is not None
            self._mono = is_mono(properties) if has_font else self._style.mono or bool(own and own.mono)
        self.walk(run)

    def _text(self, element: Element) -> None:
        text = own_text(element)
        if self._mono:
            self.mono += len(text.strip())
        else:
            self.plain += len(text.strip())
        self.pieces.append(text)

    def _break(self, element: Element) -> None:
        if element.get(f"{W}type") not in ("page", "column"):
            self.pieces.append("\n")

    def _symbol(self, element: Element) -> None:
        try:
            code = int(element.get(f"{W}char", ""), 16)
        except ValueError:
            return
        if 0xF000 <= code <= 0xF0FF:
            self.pieces.append(_WINGDINGS.get(code - 0xF000, "•"))
        elif code < 0x110000:
            self.pieces.append(chr(code))

    def _field(self, element: Element) -> None:
        box = element.find(f"{W}ffData/{W}checkBox")
        if box is not None:
            checked = box.find(f"{W}checked")
            checked = box.find(f"{W}default") if checked is None else checked
            self.pieces.append("☒ " if is_on(checked) else "☐ ")

    def _note(self, kind: str, element: Element) -> None:
        self.found.notes.append((kind, element.get(f"{W}id", "")))

    def _equation(self, element: Element) -> None:
        self.found.equations += 1
        # Two equations in a row are two, not one long one.
        if self.pieces and self.pieces[-1] and not self.pieces[-1][-1].isspace():
            self.pieces.append(" ")
        self.pieces.append(f"{linear(element).strip()} ")

    def _equations(self, element: Element) -> None:
        for each in element.iterchildren(f"{M}oMath"):
            self._equation(each)

    def _alternative(self, element: Element) -> None:
        """Take what a modern program shows; what old ones show only if the other holds nothing."""
        choices = [child for child in element if child.tag == f"{MC}Choice"]
        others = [child for child in element if child.tag == f"{MC}Fallback"]
        for each in (*choices, *others):
            if _holds_something(each):
                self.walk(each)
                return

    def _picture(self, element: Element) -> None:
        for name in ("descr", "title"):
            text = description_of(element.get(name) or "")
            if text and text not in self.found.pictures:
                self.found.pictures.append(text)
                return

    def _drawn(self, element: Element) -> None:
        if text := own_text(element):
            self.pieces.append(f"{text} ")


def description_of(description: str) -> str:
    """A picture's description without what Office adds to those that its own model wrote."""
    return _MACHINE.sub("", description).strip()


def _holds_something(element: Element) -> bool:
    wanted = (f"{W}t", f"{W}sym", f"{A}t", f"{A}blip", f"{WP}docPr", f"{M}oMath")
    return next(element.iter(*wanted), None) is not None


def paragraphs_in(element: Element) -> Iterator[Element]:
    """The paragraphs and tables right inside a story, through content controls and the like."""
    for child in element:
        tag = child.tag
        if tag in (f"{W}p", f"{W}tbl", f"{W}altChunk"):
            yield child
        elif tag in (f"{W}sdt", f"{W}sdtContent", f"{W}customXml", f"{W}smartTag", f"{W}ins", f"{W}moveTo"):
            yield from paragraphs_in(child)
        elif tag == f"{MC}AlternateContent":
            choice = child.find(f"{MC}Choice")
            yield from paragraphs_in(choice if choice is not None else child)
        elif tag == f"{MC}Fallback":
            yield from paragraphs_in(child)


def numbering_of(properties: Element | None) -> tuple[str | None, int | None]:
    """(list id, level) that a paragraph states for itself."""
    numbering = None if properties is None else properties.find(f"{W}numPr")
    if numbering is None:
        return None, None
    return value(numbering.find(f"{W}numId")), integer(value(numbering.find(f"{W}ilvl")))
