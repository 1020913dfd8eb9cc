"""News feeds (RSS, Atom): each entry under its title, its text read like a web page.

Feeds hold HTML with its marks escaped; what a person reads is the page that they make. Place: ordinal of the
paragraph, under the titles of the feed and the entry. What only looks like a feed is read as text.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from lxml import etree
from selectolax.lexbor import LexborHTMLParser

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset, html_tree, text
from quinze.knowledge.readers.html import Reading
from quinze.knowledge.readers.packed import Element, own_text, parse_xml
from quinze.knowledge.readers.report import Report

_ENTRIES = frozenset(("item", "entry"))
_BODIES = ("encoded", "content", "description", "summary")


def read(path: Path, report: Report) -> Document:
    data = charset.read_bytes(path, report.name, report.limits)
    try:
        root = parse_xml(data, report.name, report)
    except etree.XMLSyntaxError:
        return text.read(path, report)
    reading = Reading(report)
    channel = next((each for each in root.iter() if _name(each) == "channel"), root)
    title = _words(_child(channel, "title"))
    if title:
        reading.blocks.append(_heading(title, 1, (title,), Place()))
    above = (title,) if title else ()
    about = _child(channel, "description", "subtitle", "tagline")
    if about is not None:
        _read_html(reading, _html(about), above, 1)
    for entry in root.iter():
        if _name(entry) in _ENTRIES:
            _entry(reading, entry, above)
    return Document("feed", tuple(reading.blocks), title=title, language=_language(channel))


def _entry(reading: Reading, entry: Element, above: tuple[str, ...]) -> None:
    title = _words(_child(entry, "title"))
    if title:
        above = (*above, title)
        reading.blocks.append(_heading(title, 2, above, Place()))
    when = _words(_child(entry, "pubdate", "published", "updated", "date", "issued"))
    who = _words(_child(entry, "creator", "author"))
    line = ", ".join(filter(None, (who, when)))
    if line:
        reading.blocks.append(Block(BlockKind.PARAGRAPH, line, Place(heading=above)))
    bodies = [body for name in _BODIES if (body := _child(entry, name)) is not None]
    # A summary is the beginning of the text, or all there is.
    best = max(map(_html, bodies), key=len, default="")
    _read_html(reading, best, above, 2)


def _read_html(reading: Reading, source: str, above: tuple[str, ...], depth: int) -> None:
    if not source.strip():
        return
    before = len(reading.blocks)
    reading.begin(Place())
    reading.read(html_tree.parse(source.encode(), reading.report))
    for at in range(before, len(reading.blocks)):
        block = reading.blocks[at]
        place = msgspec.structs.replace(block.place, heading=(*above, *block.place.heading))
        level = block.level + depth if block.kind is BlockKind.HEADING else block.level
        reading.blocks[at] = msgspec.structs.replace(block, place=place, level=level)


def _heading(title: str, level: int, path: tuple[str, ...], place: Place) -> Block:
    return Block(BlockKind.HEADING, title, msgspec.structs.replace(place, heading=path), level=level)


def _html(element: Element) -> str:
    """The source of the page that an element holds, escaped or not."""
    inner = "".join(etree.tostring(child, encoding="unicode") for child in element if _name(child))
    return (own_text(element) if not inner else (element.text or "")) + inner


def _words(element: Element | None) -> str:
    if element is None:
        return ""
    name = _child(element, "name")
    source = _html(element if name is None else name)
    if not source.strip():
        return ""
    tree = LexborHTMLParser(f"<body>{source}</body>")
    return html_tree.inline_text(tree.body) if tree.body is not None else ""


def _child(parent: Element, *names: str) -> Element | None:
    found = {_name(each): each for each in reversed(parent)}
    return next((found[name] for name in names if name in found), None)


def _name(element: Element) -> str:
    return etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""


def _language(channel: Element) -> str:
    return _words(_child(channel, "language"))[:2].lower()
