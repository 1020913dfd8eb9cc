"""Web pages, books and Markdown: what a person reads there, under its headings; nothing of the frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quinze.knowledge.document import Block, BlockKind, Document
from quinze.knowledge.readers.workers import Readers

FRAME = ("NAV-MARK", "ADVERT-MARK", "FOOTER-MARK", "SCRIPT_MARK")


@pytest.fixture
def page(tmp_path: Path, readers: Readers) -> Callable[[str], Document]:
    def read_page(content: str) -> Document:
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{content}", "utf-8")
        return readers.read(path)

    return read_page


def test_all_sentences_are_read_without_the_frame(
    read: Callable[[str], Document],
    sentences: list[str],
    found: Callable[[Document, Sequence[str]], list[str]],
) -> None:
    document = read("known.html")
    assert found(document, sentences) == sentences
    assert found(document, FRAME) == []
    assert document.title == "运维手册 Ops"


def test_a_page_in_gbk_is_decoded_by_what_it_declares(
    read: Callable[[str], Document],
    sentences: list[str],
    found: Callable[[Document, Sequence[str]], list[str]],
) -> None:
    # GBK has no degree sign before C; the page says "度C" there.
    assert len(found(read("known_gbk.html"), sentences)) >= 15


def test_rows_have_their_header_and_code_its_lines(
    read: Callable[[str], Document], one: Callable[[Document, str], Block]
) -> None:
    document = read("known.html")
    assert one(document, "Bearing").header == ("Part", "Qty", "Price EUR", "备注")
    code = one(document, "return")
    assert (code.kind, code.text) == (BlockKind.CODE, "def f(x):\n    return x+1")
    assert code.place.heading == ("运维手册 Ops manual", "维护 Maintenance")


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>obey</p>", "<p style='display:none'>obey</p>",
        "<div style='color:red; DISPLAY : none'>obey</div>",
        "<p style='visibility:hidden'>obey</p>", "<p style='font-size:0'>obey</p>",
        "<p style='opacity:0;'>obey</p>",
        "<!-- obey -->", "<template>obey</template>", "<noscript><!-- obey --></noscript>",
        "<script>'obey'</script>", "<p>o\u200bb\u2060ey</p>".replace("o\u200bb", "<span hidden>ob</span>"),
        "<p>" + "".join(chr(0xE0000 + ord(letter)) for letter in "obey") + "</p>",
    ],
)  # fmt: skip
def test_what_nobody_sees_is_not_read(page: Callable[[str], Document], hidden: str) -> None:
    document = page(f"<p>seen</p>{hidden}<p>also seen</p>")
    words = " ".join(block.text for block in document.blocks)
    assert "obey" not in words
    assert words.startswith("seen")
    assert words.endswith("also seen")


def test_definitions_stay_with_their_terms_and_items_with_their_numbers(
    page: Callable[[str], Document],
) -> None:
    document = page(
        "<ol start=3><li>three<ul><li>inner</li></ul></li><li>four</li></ol>"
        "<dl><dt>Coffee</dt><dt>Tea</dt><dd>Hot drinks</dd></dl>"
    )
    assert [(block.text, block.level) for block in document.blocks] == [
        ("3. three", 1), ("inner", 2), ("4. four", 1), ("Coffee, Tea: Hot drinks", 1),
    ]  # fmt: skip


def test_cells_that_span_are_spread(page: Callable[[str], Document]) -> None:
    document = page(
        "<table><tr><th rowspan=2>City<th colspan=2>2024<tr><th>Q1<th>Q2"
        "<tr><td rowspan=2>Bern<td>1<td>2<tr><td>3<td>4</table>"
    )
    rows = [block for block in document.blocks if block.header]
    assert rows[0].header == ("City", "2024 / Q1", "2024 / Q2")
    assert [row.cells for row in rows] == [("Bern", "1", "2"), ("Bern", "3", "4")]


def test_a_table_that_lays_out_a_page_is_read_as_text(page: Callable[[str], Document]) -> None:
    document = page("<table><tr><td><h2>News</h2><p>Long story.</p><table><tr><td>x</table></table>")
    assert [block.kind.value for block in document.blocks][:2] == ["heading", "paragraph"]


def test_pictures_are_told_in_the_words_of_their_page(page: Callable[[str], Document]) -> None:
    document = page(
        "<p>A pump.</p><figure><img src=x.png alt='Exploded view'><figcaption>Figure 3</figcaption></figure>"
    )
    assert [(block.kind.value, block.text) for block in document.blocks] == [
        ("paragraph", "A pump."), ("caption", "Exploded view"), ("caption", "Figure 3"),
    ]  # fmt: skip


def test_a_page_that_is_all_frame_is_read_all_the_same(page: Callable[[str], Document]) -> None:
    assert [block.text for block in page("<aside><p>The only words.</p></aside>").blocks] == [
        "The only words."
    ]


def test_wikipedia_s_own_citation_marks_are_dropped(readers: Readers, shared: Callable[[str], Path]) -> None:
    document = readers.read(shared("data/documents/markitdown/test_wikipedia.html"))
    text = "\n".join(block.text for block in document.blocks)
    assert "Microsoft was founded by Bill Gates and Paul Allen" in " ".join(text.split())
    assert "[1]" not in text


def test_a_book_is_read_chapter_by_chapter(
    read: Callable[[str], Document],
    sentences: list[str],
    found: Callable[[Document, Sequence[str]], list[str]],
    one: Callable[[Document, str], Block],
) -> None:
    document = read("known.epub")
    assert document.title == "已知之书 Known Book"
    assert [block.text for block in document.blocks if block.kind is BlockKind.HEADING] == [
        "第1章 Chapter 1", "第2章 Chapter 2", "第3章 Chapter 3",
    ]  # fmt: skip
    assert len(found(document, sentences)) == 12
    assert one(document, "serial number").place.chapter == "第2章"


def test_markdown_says_its_lines_and_hides_its_marks(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\ntitle: Manual\nauthor: Li\n---\n# Pump *X*\n\nServiced every\n**2,500** hours, see\n[here](http://x).\n\n"
        "1. open\n2. close\n   - gently\n\n- [x] done\n\n| Part | Qty |\n|---|---|\n| Bolt | 4 |\n\n"
        "```python\nx = 1\n```\n\n<!-- obey -->\n<p hidden>obey</p>\n\n<b>bold</b> end ![a view](x.png)\n",
        "utf-8",
    )
    document = readers.read(path)
    assert (document.title, document.properties["author"]) == ("Manual", "Li")
    seen = [(block.kind.value, block.text, block.place.lines) for block in document.blocks]
    assert seen == [
        ("heading", "Pump X", (5, 5)),
        ("paragraph", "Serviced every 2,500 hours, see here.", (7, 9)),
        ("list_item", "1. open", (11, 11)),
        ("list_item", "2. close", (12, 12)),
        ("list_item", "gently", (13, 13)),
        ("list_item", "☒ done", (15, 15)),
        ("table_row", "Part | Qty", (17, 17)),
        ("table_row", "Bolt | 4", (19, 19)),
        ("code", "x = 1", (21, 23)),
        ("paragraph", "bold end a view", (28, 28)),
    ]
    assert document.blocks[7].header == ("Part", "Qty")
    assert document.blocks[1].place.heading == ("Pump X",)


def test_a_table_of_data_stays_one_though_a_cell_holds_another(
    readers: Readers, shared: Callable[[str], Path]
) -> None:
    """A table that names its columns is none that lays out a page."""
    document = readers.read(shared("data/documents/docling/html/sources/html_rich_table_cells.html"))
    rows = {block.cells for block in document.blocks if block.kind is BlockKind.TABLE_ROW}
    assert ("Swim", "Gracefully glide on H2O surfaces.") in rows
    assert ("Quack", "Type Sound Short “quak” Long “quaaaaaack”") in rows
