"""Quoted answers: the right words, word for word, at their own place, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quinze.errors import InvalidRequestError
from quinze.knowledge.document import Block, BlockKind, Box, Place
from quinze.knowledge.results import Unread
from quinze.rag.pipeline import answer

BREAD = (
    "Bread is among the oldest foods that people make. The dough is proved for ninety minutes at 24 degrees. "
    "Flour, water and salt are enough for a good loaf. Many bakers add a little honey. The crust should be "
    "dark, and the loaf must sound hollow when it is knocked on from below."
)
TEA = (
    "龙井茶产于杭州西湖一带，是中国著名的绿茶。冲泡龙井应当用八十度左右的水。"
    "茶叶要密封保存，避免光照和异味。"
    "每年清明节前采摘的茶叶称为明前茶，产量很少，价格也最高。"
    "苏州的碧螺春与它齐名，但香气更浓，叶片卷曲如螺，茶汤碧绿清澈，"
    "饮后回味甘甜，因此也深受人们的喜爱，常被用来招待客人。"
)


def test_the_sentence_that_answers_is_quoted_and_nothing_else(
    shelf: Any, paragraph: Callable[..., Block]
) -> None:
    shelf.put("bread.md", paragraph(BREAD, lines=(1, 1)))
    reply = answer("How long is dough proved?", shelf, None)
    assert reply.kind == "quoted"
    assert reply.answer == "The dough is proved for ninety minutes at 24 degrees. [1]"
    [citation] = reply.citations
    assert citation.text == "The dough is proved for ninety minutes at 24 degrees."
    assert (citation.document, citation.status, citation.number) == ("bread.md", "verbatim", 1)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("冲泡龙井用多少度的水？", "冲泡龙井应当用八十度左右的水。"),
        ("什么是明前茶？", "每年清明节前采摘的茶叶称为明前茶，产量很少，价格也最高。"),
        ("茶叶怎么保存", "茶叶要密封保存，避免光照和异味。"),
        ("龍井茶產於哪裡？", "龙井茶产于杭州西湖一带，是中国著名的绿茶。"),
    ],
)
def test_a_chinese_question_gets_the_chinese_sentence(
    question: str, text: str, shelf: Any, paragraph: Callable[..., Block]
) -> None:
    shelf.put("茶.txt", paragraph(TEA, lines=(1, 1)))
    assert answer(question, shelf, None).citations[0].text == text


def test_every_quote_is_verbatim(
    shelf: Any, paragraph: Callable[..., Block], rows: Callable[..., Any]
) -> None:
    blocks = [paragraph(BREAD, page=1), *rows("Prices", ["Loaf", "Price"], ["Rye bread", "4.20"])]
    shelf.put("bread.pdf", *blocks)
    reply = answer("What is the price of rye bread, and when is the bread's crust dark?", shelf, None)
    assert reply.citations
    for citation in reply.citations:
        assert citation.text in blocks[citation.block].text


def test_a_cell_is_found_by_its_row_and_its_column(shelf: Any, rows: Callable[..., Any]) -> None:
    table = rows(
        "Stock",
        ["Fruit", "Price", "Origin", "Left"],
        ["Apple", "2.10", "Chile", "40"],
        ["Pear", "3.20", "Italy", "7"],
        ["Plum", "1.90", "Spain", "0"],
    )
    shelf.put("stock.xlsx", *table)
    for question, row in [
        ("What is the price of a pear?", "A3:D3"),
        ("Where do plums have their origin?", "A4:D4"),
    ]:
        first = answer(question, shelf, None).citations[0]
        assert (first.anchor.sheet, first.anchor.cells) == ("Stock", row)
    assert answer("What is the price of a pear?", shelf, None).answer.startswith(
        "Fruit: Pear; Price: 3.20; Origin: Italy; Left: 7 [1]"
    )


def test_a_form_reads_as_a_form(shelf: Any, rows: Callable[..., Any]) -> None:
    """Names in cells of their own, a colon behind each, as receipts and forms have them."""
    shelf.put("form.xlsx", *rows("Form", ["", "", "Total:"], ["Revenue code:", "FILM-7", "12"]))
    reply = answer("What is the revenue code?", shelf, None)
    assert reply.answer.startswith("Revenue code: FILM-7; Total: 12")


def test_the_names_of_columns_are_not_an_answer(shelf: Any, rows: Callable[..., Any]) -> None:
    shelf.put(
        "表.xlsx",
        *rows("人口", ["城市", "人口（万）", "面积"], ["合肥", "985", "11445"], ["芜湖", "373", "6026"]),
    )
    assert answer("合肥的人口是多少？", shelf, None).citations[0].anchor.cells == "A2:C2"


def test_the_heading_tells_like_sections_apart(shelf: Any, paragraph: Callable[..., Block]) -> None:
    for at, museum in enumerate(["Harbor Museum", "Railway Museum"]):
        shelf.put(
            "museums.md",
            Block(BlockKind.HEADING, museum, Place(heading=(museum,), lines=(at * 4 + 1,) * 2), level=1),
            paragraph(
                "Open daily from 9 to 17 except on Mondays.", heading=(museum,), lines=(at * 4 + 3,) * 2
            ),
        )
    first = answer("When is the Railway Museum open?", shelf, None).citations[0]
    assert first.anchor.heading == ("Railway Museum",)
    assert "9 to 17" in first.text


def test_of_a_definition_its_lines_are_quoted_with_its_name(shelf: Any) -> None:
    body = "\n".join(f"    step_{n} = prepare({n})" for n in range(40))
    text = f'def parse_config(path):\n    """Read the settings."""\n{body}\n    return frobnicate(step_1)'
    shelf.put(
        "config.py",
        Block(BlockKind.CODE, text, Place(symbol="parse_config", lines=(10, 10 + text.count("\n")))),
    )
    begin = answer("What does the function parse_config read?", shelf, None).citations[0]
    assert begin.text.startswith("def parse_config(path):")
    assert begin.anchor.lines == (10, 25)
    inner = answer("Where does parse_config call frobnicate?", shelf, None).citations[0]
    assert "frobnicate(step_1)" in inner.text
    first, last = inner.anchor.lines or (0, 0)
    assert text.split("\n")[first - 10 : last - 9] == inner.text.split("\n")


def test_lines_and_boxes_are_narrowed_with_the_quote(shelf: Any, paragraph: Callable[..., Block]) -> None:
    lines = [
        f"Line {number} speaks about subject{number} at some length, and has no more to say."
        for number in range(9)
    ]
    boxes = tuple(Box(0.1, n / 10, 0.9, n / 10 + 0.08) for n in range(9))
    shelf.put("page.pdf", paragraph("\n".join(lines), page=2, lines=(11, 19), boxes=boxes))
    [first, *_] = answer("What speaks about subject4?", shelf, None).citations
    assert first.text == lines[4]
    assert first.anchor.lines == (15, 15)
    assert first.anchor.boxes == (boxes[4],)
    assert first.anchor.page == 2


def test_the_same_sentence_in_two_documents_is_said_once_with_two_marks(
    shelf: Any, paragraph: Callable[..., Block]
) -> None:
    shelf.put("a.txt", paragraph("The bridge was opened in 1932."))
    shelf.put("b.txt", paragraph("The bridge was opened in 1932."))
    reply = answer("When was the bridge opened?", shelf, None)
    assert reply.answer == "The bridge was opened in 1932. [1][2]"
    assert [citation.document for citation in reply.citations] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Who won the football world cup in 1998?", "Nothing in “notes” answers this."),
        ("量子计算机的发明者是谁？", "“notes”中没有能回答这个问题的内容。"),
        ("How much does a ticket to Mars cost?", "Nothing in “notes” answers this."),
    ],
)
def test_when_nothing_supports_an_answer_it_says_so(
    question: str, said: str, shelf: Any, paragraph: Callable[..., Block]
) -> None:
    shelf.put("bread.md", paragraph(BREAD))
    shelf.put("茶.txt", paragraph(TEA))
    reply = answer(question, shelf, None)
    assert (reply.kind, reply.citations) == ("none", [])
    assert reply.answer.startswith(said)
    assert reply.searched.documents == 2
    assert {passage.reason for passage in reply.searched.passages} == {"low score"}


def test_what_could_not_be_read_is_named(shelf: Any) -> None:
    shelf.unread.append(Unread("locked.pdf", "It is protected by a password."))
    reply = answer("Anything?", shelf, None)
    assert reply.kind == "none"
    assert reply.searched.unread == [Unread("locked.pdf", "It is protected by a password.")]
    assert "no readable documents" in reply.answer


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(question: str, shelf: Any) -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        answer(question, shelf, None)


@pytest.mark.parametrize("question", ["???", "the", "的", "🍞", "a" * 5000, "[1] <passage>"])
def test_odd_questions_are_answered_or_not_but_never_crash(
    question: str, shelf: Any, paragraph: Callable[..., Block]
) -> None:
    shelf.put("bread.md", paragraph(BREAD))
    assert answer(question, shelf, None).kind in ("quoted", "none")


@pytest.mark.parametrize(
    ("question", "row"), [("Denmark 的首都是哪里？", "A3:C3"), ("What is the price of 密封件?", "A5:B5")]
)
def test_the_glossary_finds_columns_named_in_the_other_language(
    question: str, row: str, shelf: Any, rows: Callable[..., Any]
) -> None:
    countries = [["Country", "Capital", "Area"], ["Austria", "Vienna", "83"], ["Denmark", "Copenhagen", "42"]]
    shelf.put("countries.xlsx", *rows("Europe", *countries))
    shelf.put(
        "零件.xlsx",
        *rows("零件", ["品名", "单价"], ["轴承", "3"], ["叶轮", "9"], ["垫片", "1"], ["密封件", "7"]),
    )
    assert answer(question, shelf, None).citations[0].anchor.cells == row


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_chapter_that_is_named_answers(number: int, shelf: Any, paragraph: Callable[..., Block]) -> None:
    for at in (1, 2, 3):
        text = f"保修申请需要提供序列号 SN-{at * 111}。"
        shelf.put(f"{at}.csv", paragraph(f"{at} | 零件{at} | {text}"))
        shelf.put(
            f"手册{'甲乙丙'[at - 1]}.epub",
            paragraph(text, chapter=f"第{at}章", heading=(f"第{at}章 Chapter",)),
        )
    first = answer(f"第{number}章说保修申请要提供哪个序列号？", shelf, None).citations[0]
    assert first.anchor.chapter == f"第{number}章"
