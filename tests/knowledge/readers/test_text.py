"""Plain text: no letter lost in any encoding, every paragraph with its lines, wrapped lines whole again."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset, text
from quinze.knowledge.readers.language import language_of
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.workers import Readers


@pytest.mark.parametrize("codec", ["big5", "cp1252", "euc-kr", "gb18030", "gb2312", "koi8-r", "shift_jis"])
def test_short_texts_in_old_encodings_read_as_their_truth(
    read: Callable[[str], Document], made: Callable[[str], Path], codec: str
) -> None:
    document = read(f"enc_{codec}.txt")
    truth = made(f"enc_{codec}.txt.utf8").read_text("utf-8")
    assert "".join(block.text for block in document.blocks) == truth.strip()


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]
)
def test_every_unicode_encoding_with_and_without_its_mark(
    tmp_path: Path, readers: Readers, sentences: list[str], codec: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\r\n\r\n".join(sentences).encode(codec))
    assert [block.text for block in readers.read(path).blocks] == sentences


def test_one_bad_byte_does_not_spoil_a_file() -> None:
    data = "价格上涨 prices rose. ".encode() * 200 + b"\xff" + "结束".encode()
    assert charset.decode(data).count("�") == 1
    assert charset.decode(data).endswith("结束")


def paragraphs(content: str, *, wrapped: bool = True) -> list[tuple[tuple[int, int], str]]:
    return list(text.paragraphs(content, Report("a.txt"), wrapped=wrapped))


def test_lines_wrapped_by_hand_are_joined_and_say_where_they_were() -> None:
    content = (
        "The committee approved the budget on 14 March 2025 with nine\n"
        "votes in favour, and asked the treasurer to publish it before\n"
        "the end of the month.\n\n\nSecond paragraph.\n"
    )
    assert paragraphs(content) == [
        ((1, 3), content.split("\n\n")[0].replace("\n", " ")),
        ((6, 6), "Second paragraph."),
    ]


def test_chinese_lines_are_joined_without_a_space() -> None:
    lines = [
        "委员会于二零二五年三月十四日以九票赞成通过了年度预算",
        "，并要求司库在月底之前将它向全体成员公布于众，以便查",
        "阅。",
    ]
    assert paragraphs("\n".join(lines)) == [((1, 3), "".join(lines))]


@pytest.mark.parametrize(
    "content",
    [
        "- milk\n- bread\n- eggs and some other things for the whole long weekend",
        "name: pump\nserial: SN-48213-KX\nlast service: 2025-03-14",
        "Roses are red,\nviolets are blue.",
        "00:01,000 --> 00:02,000\nHello there",
    ],
)
def test_lines_that_ended_on_purpose_stay_lines(content: str) -> None:
    assert paragraphs(content) == [((1, content.count("\n") + 1), content)]


def test_logs_are_divided_and_cited_by_their_lines() -> None:
    lines = [f"2025-03-14 12:00:{number:02} server INFO request {number} took 12 ms" for number in range(60)]
    pieces = paragraphs("\n".join(lines), wrapped=False)
    assert len(pieces) > 1
    for (first, last), piece in pieces:
        assert piece == "\n".join(lines[first - 1 : last])
        assert len(piece) <= text.LONGEST


def test_a_line_without_end_is_cut_between_words() -> None:
    words = [f"word{number}" for number in range(5000)]
    pieces = paragraphs(" ".join(words))
    assert all(len(piece) <= text.LONGEST and lines == (1, 1) for lines, piece in pieces)
    assert " ".join(piece for _, piece in pieces).split() == words


@given(st.text(alphabet=st.sampled_from(list("ab 中。,-\n\n\t1")), max_size=400), st.booleans())
def test_no_letter_is_lost_or_moved(content: str, wrapped: bool) -> None:
    assert "".join("".join(p.split()) for _, p in paragraphs(content, wrapped=wrapped)) == "".join(
        content.split()
    )


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_utf8_is_always_read_as_itself(content: str) -> None:
    data = content.encode()
    assert charset.decode(codecs.BOM_UTF8 + data) == content
    if not data.startswith(codecs.BOM_UTF8):
        assert charset.decode(data) == content


@pytest.mark.parametrize(
    ("content", "language"),
    [
        ("混合检索把关键词匹配与稠密向量结合起来。", "zh"), ("売上は前年比で増加しました。", "ja"),
        ("수입이 늘어났습니다.", "ko"),
        ("The committee approved the budget with nine votes in favour.", "en"),
        ("Der Ausschuss hat den Haushalt mit neun Stimmen angenommen und gebilligt.", ""), ("42", ""),
        ("使用 pip install 安装 Quinze 之后，运行 quinze serve 即可打开网页。", "zh"),
    ],
)  # fmt: skip
def test_the_language_is_told_or_left_open(content: str, language: str) -> None:
    blocks = [Block(BlockKind.PARAGRAPH, content, Place())]
    assert language_of(blocks) == language


def test_chapters_of_a_plain_book_are_headings(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "book.txt"
    path.write_text(
        "第一编 总则\n第一章 基本规定\n第一条 为了保护权益，制定本法。\n\n"
        "Chapter II. The Sea\nWe sailed at dawn.\n"
        "第二章的内容比第一章更长。\nPart of it was lost.\n",
        "utf-8",
    )
    blocks = readers.read(path).blocks
    assert [(block.text, block.level) for block in blocks if block.level] == [
        ("第一编 总则", 1), ("第一章 基本规定", 2), ("Chapter II. The Sea", 2),
    ]  # fmt: skip
    assert blocks[2].place.heading == ("第一编 总则", "第一章 基本规定")
    assert blocks[2].place.lines == (3, 3)
    assert blocks[-1].text.endswith("Part of it was lost.")
