"""Books (EPUB): the chapters in the order of reading, each read like a web page.

Place: chapter (its title in the contents, else its first heading, else its file), then as in a web page.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import unquote

from quinze.knowledge.document import Document, Place
from quinze.knowledge.readers import html_tree
from quinze.knowledge.readers.detection import damaged
from quinze.knowledge.readers.html import Reading
from quinze.knowledge.readers.packed import Element, Package, own_text
from quinze.knowledge.readers.report import Report

CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"
NCX = "{http://www.daisy.org/z3986/2005/ncx/}"


def read(path: Path, report: Report) -> Document:
    with Package(path, report) as package:
        main = _main_part(package)
        root = package.xml(main) if main else None
        if root is None:
            raise damaged(report.name, "EPUB", "it does not say where its content is")
        folder = posixpath.dirname(main)
        items = {item.get("id", ""): item for item in root.iter(f"{OPF}item")}
        spine = [
            items[ref.get("idref", "")] for ref in root.iter(f"{OPF}itemref") if ref.get("idref", "") in items
        ]
        titles = _contents(package, folder, items, report)
        reading = Reading(report)
        for number, item in enumerate(spine, start=1):
            report.page(number, len(spine))
            part = _inside(folder, item.get("href", ""))
            # The table of contents leads to the chapters; it is none.
            if "nav" not in item.get("properties", "").split():
                _chapter(package, part, titles.get(part, ""), reading, report)
        properties = _properties(root)
    return Document(
        "epub",
        tuple(reading.blocks),
        title=properties.get("title", ""),
        language=properties.get("language", "")[:2].lower(),
        properties=properties,
    )


def _chapter(package: Package, part: str, title: str, reading: Reading, report: Report) -> None:
    data = package.side_read(part)
    if data is None:
        report.warn(f"The chapter {part} is missing.")
        return
    tree = html_tree.parse(data, report)
    if not title and tree.body is not None:
        heading = tree.body.css_first("h1, h2, h3")
        title = "" if heading is None else html_tree.inline_text(heading)
    reading.begin(Place(chapter=title or posixpath.basename(part)))
    reading.read(tree)


def _main_part(package: Package) -> str:
    root = package.xml("META-INF/container.xml")
    for each in () if root is None else root.iter(f"{CONTAINER}rootfile"):
        target = unquote(each.get("full-path", ""))
        if target in package:
            return target
    return next((name for name in package.names() if name.lower().endswith(".opf")), "")


def _contents(package: Package, folder: str, items: dict[str, Element], report: Report) -> dict[str, str]:
    """Part -> title, from the contents of either generation of EPUB."""
    found: dict[str, str] = {}
    for item in items.values():
        part = _inside(folder, item.get("href", ""))
        base = posixpath.dirname(part)
        if "nav" in item.get("properties", "").split() and (data := package.side_read(part)) is not None:
            for link in html_tree.parse(data, report).css("nav a"):
                target = _inside(base, link.attributes.get("href") or "")
                found.setdefault(target, html_tree.inline_text(link, chrome=True))
        elif (
            item.get("media-type") == "application/x-dtbncx+xml"
            and (root := package.side_xml(part)) is not None
        ):
            for point in root.iter(f"{NCX}navPoint"):
                label, content = point.find(f"{NCX}navLabel/{NCX}text"), point.find(f"{NCX}content")
                if label is not None and content is not None:
                    found.setdefault(_inside(base, content.get("src", "")), own_text(label).strip())
    return {part: title for part, title in found.items() if title}


def _properties(root: Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in (
        ("title", "title"),
        ("creator", "author"),
        ("language", "language"),
        ("date", "created"),
    ):
        element = next(root.iter(f"{DC}{name}"), None)
        if element is not None and (text := own_text(element).strip()):
            found[key] = text
    return found


def _inside(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
