"""What hangs on the cells of an Excel file beside their values: comments, text boxes, charts' titles.

Given the unpacked file; returns blocks by the name of the sheet. Rows and values are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.readers.charts import chart_blocks
from quinze.knowledge.readers.packed import Element, Package, own_text

S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
T = "{http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
XDR = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"


def notes_of(package: Package) -> dict[str, list[Block]]:
    """Sheet name -> what hangs on its cells. What is broken here does not spoil the sheet itself."""
    found: dict[str, list[Block]] = {}
    main = package.main_part("xl/workbook.xml")
    root = package.side_xml(main)
    relations = package.relations(main)
    people = _people(package, relations)
    for sheet in () if root is None else root.iter(f"{S}sheet"):
        name, (_, part) = sheet.get("name", ""), relations.get(sheet.get(f"{R}id", ""), ("", ""))
        place = Place(sheet=name, part="hidden" if sheet.get("state", "visible") != "visible" else None)
        found[name] = list(_sheet(package, part, place, people)) if part else []
    return found


def _people(package: Package, relations: dict[str, tuple[str, str]]) -> dict[str, str]:
    target = next((target for kind, target in relations.values() if kind == "person"), "")
    root = package.side_xml(target) if target else None
    return {} if root is None else {each.get("id", ""): each.get("displayName", "") for each in root}


def _sheet(package: Package, part: str, place: Place, people: dict[str, str]) -> Iterator[Block]:
    threaded: set[str] = set()
    relations = package.relations(part)
    for kind, target in relations.values():
        if kind == "threadedComment" and (root := package.side_xml(target)) is not None:
            for each in root.iter(f"{T}threadedComment"):
                threaded.add(each.get("ref", ""))
                words = each.find(f"{T}text")
                text = "" if words is None else own_text(words).strip()
                yield from _comment(
                    each.get("ref", ""), people.get(each.get("personId", ""), ""), text, place
                )
    for kind, target in relations.values():
        root = package.side_xml(target) if kind in ("comments", "drawing") else None
        if root is None:
            continue
        if kind == "drawing":
            yield from _drawing(package, target, root, place)
            continue
        authors = [own_text(each).strip() for each in root.iter(f"{S}author")]
        for each in root.iter(f"{S}comment"):
            ref, index = each.get("ref", ""), each.get("authorId", "")
            author = authors[int(index)] if index.isdigit() and int(index) < len(authors) else ""
            if ref not in threaded:
                yield from _comment(
                    ref, author, "".join(own_text(t) for t in each.iter(f"{S}t")).strip(), place
                )


def _comment(cell: str, author: str, text: str, place: Place) -> Iterator[Block]:
    if text:
        words = f"{author}: {text}" if author and not text.startswith(author) else text
        yield Block(BlockKind.NOTE, words, msgspec.structs.replace(place, cells=cell, part="comment"))


def _drawing(package: Package, part: str, root: Element, place: Place) -> Iterator[Block]:
    for box in root.iter(f"{XDR}txBody"):
        paragraphs = ("".join(own_text(t) for t in p.iter(f"{A}t")).strip() for p in box.iter(f"{A}p"))
        text = "\n".join(filter(None, paragraphs))
        if text:
            yield Block(BlockKind.PARAGRAPH, text, msgspec.structs.replace(place, part="textbox"))
    for kind, target in package.relations(part).values():
        chart = package.side_xml(target) if kind == "chart" else None
        if chart is not None:
            # The numbers of a chart stand on the sheets already.
            for block in chart_blocks(chart, msgspec.structs.replace(place, part="chart")):
                if block.kind is BlockKind.CAPTION:
                    yield block
