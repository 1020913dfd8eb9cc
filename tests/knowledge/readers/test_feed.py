"""Feeds: what a person reads of an entry, without the marks of the page that it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lxml.html
import pytest
from lxml import etree

from quinze.knowledge.document import BlockKind, Document
from quinze.knowledge.readers.workers import Readers

ENCODED = "{http://purl.org/rss/1.0/modules/content/}encoded"
ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Bakers &amp;amp; Co</title>
<entry><title type="html">Rye &lt;b&gt;bread&lt;/b&gt;</title><updated>2025-03-14T08:30:00Z</updated>
<author><name>Lena Ross</name></author>
<content type="xhtml">
<div xmlns="http://www.w3.org/1999/xhtml"><h2>Dough</h2><p>Prove it for <i>two</i> hours.</p>
</div></content></entry>
<entry><title>面包</title>
<summary type="html">&lt;ul&gt;&lt;li&gt;水 300 克&lt;/li&gt;&lt;/ul&gt;</summary></entry>
</feed>"""


@pytest.fixture(scope="module")
def blog(readers: Readers, shared: Callable[[str], Path]) -> Document:
    return readers.read(shared("data/documents/markitdown/test_rss.xml"))


def test_the_text_is_that_which_lxml_finds_in_the_pages(
    blog: Document, shared: Callable[[str], Path]
) -> None:
    ours = "".join("".join(block.text.split()) for block in blog.blocks)
    root = etree.parse(shared("data/documents/markitdown/test_rss.xml"))
    paragraphs = [
        "".join(paragraph.text_content().replace("\u200b", "").split())
        for body in root.iter(ENCODED)
        for paragraph in lxml.html.fromstring(body.text).iter("p")
    ]
    assert len(paragraphs) > 300
    # What stands in place of a film where nothing can be loaded.
    assert {text for text in paragraphs if text not in ours} == {"Clickheretoloadmedia"}


def test_no_mark_of_html_is_left(blog: Document) -> None:
    assert not any(mark in block.text for block in blog.blocks for mark in ("</", "<p", "&lt;", "&amp;"))


def test_each_entry_stands_under_its_title(blog: Document, shared: Callable[[str], Path]) -> None:
    root = etree.parse(shared("data/documents/markitdown/test_rss.xml"))
    titles = [" ".join(title.text.split()) for title in root.iterfind(".//item/title")]
    assert [
        block.text for block in blog.blocks if block.kind is BlockKind.HEADING and block.level == 2
    ] == titles
    assert blog.title == "The Official Microsoft Blog"
    assert all(block.place.heading[0] == blog.title and block.place.label() for block in blog.blocks)


def test_atom_with_marks_escaped_and_not(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "bread.xml"
    path.write_text(ATOM, "utf-8")
    document = readers.read(path)
    assert [block.text for block in document.blocks] == [
        "Bakers & Co", "Rye bread", "Lena Ross, 2025-03-14T08:30:00Z", "Dough", "Prove it for two hours.",
        "面包", "水 300 克",
    ]  # fmt: skip
    assert document.blocks[4].place.heading == ("Bakers & Co", "Rye bread", "Dough")


def test_other_xml_is_text_as_before(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<notes><p>about &lt;rss&gt;</p></notes>", "utf-8")
    assert readers.read(path).format == "text"
    path.write_text("<rss><channel><title>cut off", "utf-8")
    assert readers.read(path).blocks[0].text == "<rss><channel><title>cut off"
