"""Questions in other words than the document's: synonyms, the other language, numbers written otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quinze.knowledge.document import Block
from quinze.rag.pipeline import answer

LETTERS = (
    "The harbor of Bergen is open all winter, and its ferries leave at noon.",
    "Bread dough is proved for two hours beside the stove before it is baked.",
    "The library lends twelve books at once to every reader who has a card.",
    "图书馆每天早上九点开门，周一闭馆，读者一次可以借十二本书。",
    "港口冬天不结冰，渡船每天中午开往对岸的小镇。",
)


@pytest.fixture
def filled(shelf: Any, paragraph: Callable[..., Block]) -> Any:
    for at, letter in enumerate(LETTERS):
        shelf.put(f"letter{at}.txt", paragraph(letter))
    return shelf


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("When was Anna Holm born?", "Anna Holm. Date of Birth: 4 May 1971."),
        ("Anna Holm 的生日是哪天？", "Anna Holm. Date of Birth: 4 May 1971."),
        ("How much did Vestland pay for Nordlys?", "Vestland bought Nordlys for 40 million euros in 2019."),
        ("Vestland 收购 Nordlys 花了多少钱？", "Vestland bought Nordlys for 40 million euros in 2019."),
        (
            "After how many hours, 2500 or more, must the pump be serviced?",
            "水泵每运行2,500小时必须保养一次。",
        ),
        ("水泵运行2500小时后要做什么？", "水泵每运行两千五百小时必须保养一次。"),
        ("两千五百小时后要做什么？", "每运行2,500小时更换一次密封件。"),
        ("What happened in March 2024?", "2024年3月，委员会通过了预算。"),
    ],
)
def test_other_words_find_the_sentence(
    question: str, text: str, filled: Any, paragraph: Callable[..., Block]
) -> None:
    filled.put("answer.txt", paragraph(text))
    given = answer(question, filled, None)
    assert given.citations, given.answer
    assert given.citations[0].document == "answer.txt"


def test_a_telephone_number_answers_though_nothing_calls_it_one(
    filled: Any, paragraph: Callable[..., Block]
) -> None:
    filled.put("sign.jpg", paragraph("海湾健身房 二楼"), paragraph("027-88852022"))
    given = answer("健身房的联系电话", filled, None)
    assert "027-88852022" in [one.text for one in given.citations[:3]]


def test_the_line_of_a_form_beside_a_name_is_cited_before_the_other_lines_with_the_name(
    filled: Any, paragraph: Callable[..., Block]
) -> None:
    lines = ["Signature: Dr. Elizabeth Warren", "Name: Elizabeth A. Warren, MD", "License #: WA-MD-45782"]
    filled.put("report.pdf", *(paragraph(line) for line in lines))
    given = answer("license number of Dr. Elizabeth Warren", filled, None)
    assert any("WA-MD-45782" in one.text for one in given.citations[:2])


def test_words_of_the_glossary_alone_do_not_answer_in_another_language(
    filled: Any, paragraph: Callable[..., Block]
) -> None:
    filled.put("phones.txt", paragraph("The company made phones and sold them at a low price."))
    assert answer("零件7的生产厂家电话是多少？", filled, None).kind == "none"
