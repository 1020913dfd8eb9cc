"""PowerPoint: slide by slide, the title first, then every shape in reading order, then notes and comments.

Place: slide; in tables, table and row; `part` is "notes", "comment", "chart", ... beside the running text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers.charts import chart_blocks
from quinze.knowledge.readers.docx_numbering import integer, numeral
from quinze.knowledge.readers.docx_text import description_of
from quinze.knowledge.readers.omml import M, linear
from quinze.knowledge.readers.packed import Element, Package, own_text
from quinze.knowledge.readers.pptx_shapes import MC, A, P, Shape, shapes_of
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import looks_like_header, row_block

R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_NUMBERS = {"arabic": "decimal", "romanLc": "lowerRoman", "romanUc": "upperRoman", "alphaLc": "lowerLetter"}
_NUMBERS |= {"alphaUc": "upperLetter", "ea1": "chineseCounting", "circle": "decimalEnclosedCircle"}


def read(path: Path, report: Report) -> Document:
    with Package(path, report) as package:
        main = package.main_part("ppt/presentation.xml")
        root = package.xml(main)
        relations = package.relations(main)
        wanted = [] if root is None else [each.get(f"{R}id", "") for each in root.iter(f"{P}sldId")]
        slides = [
            relations[each][1] for each in wanted if each in relations and relations[each][1] in package
        ]
        deck = _Deck(package, report, main)
        blocks: list[Block] = []
        for number, part in enumerate(slides, start=1):
            report.page(number, len(slides))
            blocks += deck.slide(part, number)
        properties = package.properties()
    title = properties.get("title", "")
    if not title or title.lower() in ("powerpoint presentation", "powerpoint 演示文稿", "presentation"):
        title = next((block.text for block in blocks if block.kind is BlockKind.HEADING), title)
    return Document("pptx", tuple(blocks), title=title, pages=len(slides), properties=properties)


class _Deck:
    def __init__(self, package: Package, report: Report, main: str) -> None:
        self._package = package
        self._report = report
        self._layouts: dict[str, list[Element]] = {}
        self._footers: set[str] = set()
        self._authors: dict[str, str] = {}
        for kind, target in package.relations(main).values():
            if kind in ("commentAuthors", "authors") and (root := package.side_xml(target)) is not None:
                for each in root:
                    self._authors[each.get("id", "")] = each.get("name", "")

    def slide(self, part: str, number: int) -> Iterator[Block]:
        root = self._package.side_xml(part)
        if root is None:
            return
        relations = self._package.relations(part)
        place = Place(slide=number, part="hidden" if root.get("show") in ("0", "false") else None)
        shapes = shapes_of(_tree(root), self._layouts_of(relations))
        title = next((text for each in shapes if each.is_title if (text := self._plain(each.element))), "")
        if title:
            place = msgspec.structs.replace(place, heading=(title,))
            yield Block(BlockKind.HEADING, title, place, level=1)
        reading = _Slide(self, relations, place)
        for shape in shapes:
            if not (shape.is_title and title) and shape.placeholder not in ("sldNum", "hdr"):
                yield from reading.shape(shape)
        for kind, target in relations.values():
            if kind == "notesSlide":
                yield from self._notes(target, place)
            elif kind == "comments":
                yield from self._comments(target, place)

    def drawing(self, kind: str, target: str, place: Place) -> Iterator[Block]:
        """A chart or diagram that a slide refers to."""
        root = self._package.side_xml(target)
        if root is None:
            return
        if kind == "chart":
            yield from chart_blocks(root, msgspec.structs.replace(place, part="chart"))
        elif kind == "diagramData":
            for paragraph in root.iter(f"{A}p"):
                if text := paragraph_text(paragraph):
                    yield Block(
                        BlockKind.LIST_ITEM, text, msgspec.structs.replace(place, part="diagram"), level=1
                    )

    def new_footer(self, text: str) -> bool:
        """Whether that line at a slide's foot is met for the first time."""
        if text in self._footers:
            return False
        self._footers.add(text)
        return True

    def _layouts_of(self, relations: dict[str, tuple[str, str]]) -> list[Element]:
        target = next((target for kind, target in relations.values() if kind == "slideLayout"), "")
        if target and target not in self._layouts:
            trees = []
            above = next(
                (to for kind, to in self._package.relations(target).values() if kind == "slideMaster"), ""
            )
            for each in (target, above):
                root = self._package.side_xml(each) if each else None
                if root is not None:
                    trees.append(_tree(root))
            self._layouts[target] = trees
        return self._layouts.get(target, [])

    def _plain(self, shape: Element) -> str:
        return " ".join(" ".join(map(paragraph_text, shape.iter(f"{A}p"))).split())

    def _notes(self, target: str, place: Place) -> Iterator[Block]:
        root = self._package.side_xml(target)
        for shape in () if root is None else shapes_of(_tree(root), []):
            if shape.placeholder in ("sldImg", "sldNum", "hdr", "ftr", "dt"):
                continue
            text = "\n".join(filter(None, map(paragraph_text, shape.element.iter(f"{A}p"))))
            if text:
                yield Block(BlockKind.NOTE, text, msgspec.structs.replace(place, part="notes"))

    def _comments(self, target: str, place: Place) -> Iterator[Block]:
        root = self._package.side_xml(target)
        for each in () if root is None else root.iter():
            if not isinstance(each.tag, str) or each.tag.rpartition("}")[2] not in ("cm", "reply"):
                continue
            # Two generations of comments: plain p:text, or a text body with paragraphs.
            plain = each.find(f"{P}text")
            body = next((child for child in each if str(child.tag).endswith("}txBody")), None)
            text = own_text(plain).strip() if plain is not None else ""
            if body is not None:
                text = "\n".join(filter(None, map(paragraph_text, body.iter(f"{A}p"))))
            author = self._authors.get(each.get("authorId", ""), "")
            if text:
                words = f"{author}: {text}" if author else text
                yield Block(BlockKind.NOTE, words, msgspec.structs.replace(place, part="comment"))


class _Slide:
    """Reads the shapes of one slide; counts its tables."""

    def __init__(self, deck: _Deck, relations: dict[str, tuple[str, str]], place: Place) -> None:
        self._deck = deck
        self._relations = relations
        self._place = place
        self._tables = 0

    def shape(self, shape: Shape) -> Iterator[Block]:
        element = shape.element
        properties = next((each for each in element.iter(f"{P}cNvPr")), None)
        if properties is not None and properties.get("hidden") in ("1", "true"):
            return
        if shape.kind == "pic":
            text = description_of(properties.get("descr", "")) if properties is not None else ""
            if text and not _is_file_name(text):
                yield Block(BlockKind.CAPTION, text, msgspec.structs.replace(self._place, part="picture"))
        elif shape.kind == "graphicFrame":
            yield from self._frame(element)
        else:
            yield from self._paragraphs(shape)

    def _frame(self, element: Element) -> Iterator[Block]:
        table = next(element.iter(f"{A}tbl"), None)
        if table is not None:
            self._tables += 1
            yield from _table(table, msgspec.structs.replace(self._place, table=self._tables))
            return
        for each in element.iter():
            relation = each.get(f"{R}id") or each.get(f"{R}dm")
            if relation in self._relations and str(each.tag).rpartition("}")[2] in ("chart", "relIds"):
                yield from self._deck.drawing(*self._relations[relation], self._place)

    def _paragraphs(self, shape: Shape) -> Iterator[Block]:
        counts: dict[int, int] = {}
        body = shape.element.find(f"{P}txBody")
        for paragraph in () if body is None else body.iterchildren(f"{A}p"):
            text = paragraph_text(paragraph)
            if not text:
                continue
            if shape.placeholder in ("ftr", "dt"):
                if self._deck.new_footer(text):
                    yield Block(
                        BlockKind.PARAGRAPH, text, msgspec.structs.replace(self._place, part="footer")
                    )
                continue
            properties = paragraph.find(f"{A}pPr")
            level = 0 if properties is None else integer(properties.get("lvl")) or 0
            for deeper in [each for each in counts if each > level]:
                del counts[deeper]
            number = _number(properties, level, counts)
            if number or _has_bullet(properties, shape.placeholder):
                yield Block(BlockKind.LIST_ITEM, f"{number} {text}".strip(), self._place, level=level + 1)
            else:
                yield Block(BlockKind.PARAGRAPH, text, self._place)


def paragraph_text(paragraph: Element) -> str:
    return "".join(_pieces(paragraph)).strip()


def _pieces(element: Element) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag == f"{A}t":
            yield own_text(child)
        elif tag == f"{A}br":
            yield "\n"
        elif tag == f"{M}oMath":
            yield linear(child)
        elif tag == f"{MC}AlternateContent":
            choice = child.find(f"{MC}Choice")
            yield from _pieces(child if choice is None else choice)
        elif isinstance(tag, str) and tag not in (f"{A}pPr", f"{A}rPr", f"{A}endParaRPr"):
            yield from _pieces(child)


def _number(properties: Element | None, level: int, counts: dict[int, int]) -> str:
    auto = None if properties is None else properties.find(f"{A}buAutoNum")
    if auto is None:
        counts.pop(level, None)
        return ""
    counts[level] = counts[level] + 1 if level in counts else integer(auto.get("startAt")) or 1
    kind = auto.get("type", "arabicPeriod")
    shape = next((shape for name, shape in _NUMBERS.items() if kind.startswith(name)), "decimal")
    number = numeral(counts[level], shape)
    if kind.endswith("ParenBoth"):
        return f"({number})"
    return number + (")" if kind.endswith("ParenR") else "" if kind.endswith("Plain") else ".")


def _has_bullet(properties: Element | None, placeholder: str | None) -> bool:
    if properties is not None:
        if properties.find(f"{A}buNone") is not None:
            return False
        if properties.find(f"{A}buChar") is not None or properties.find(f"{A}buBlip") is not None:
            return True
    return placeholder in ("body", "obj")


def _table(table: Element, place: Place) -> Iterator[Block]:
    rows: list[list[str]] = []
    spread: list[list[str]] = []
    for row in table.iterchildren(f"{A}tr"):
        cells: list[str] = []
        wide: list[str] = []
        for cell in row.iterchildren(f"{A}tc"):
            text = "\n".join(filter(None, map(paragraph_text, cell.iter(f"{A}p"))))
            merged_right = cell.get("hMerge") in ("1", "true")
            if cell.get("vMerge") in ("1", "true") and rows and len(cells) < len(rows[-1]):
                text = rows[-1][len(cells)]
                wide.append(spread[-1][len(wide)])
            else:
                wide.append(wide[-1] if merged_right and wide else text)
            cells.append("" if merged_right else text)
        rows.append(cells)
        spread.append(wide)
    properties = table.find(f"{A}tblPr")
    marked = properties is not None and properties.get("firstRow") in ("1", "true")
    headed = len(rows) > 1 and len(rows[0]) > 1 and (marked or looks_like_header(spread[0], rows[1:20]))
    header = tuple(" ".join(name.split()) for name in spread[0]) if headed else ()
    for number, cells in enumerate(rows, start=1):
        if any(cells):
            yield row_block(cells, header if number > 1 else (), msgspec.structs.replace(place, row=number))


def _tree(root: Element) -> Element:
    found = root.find(f"{P}cSld/{P}spTree")
    return root if found is None else found


def _is_file_name(text: str) -> bool:
    return text.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".svg"))
