"""Searching: what answers comes first, with an account of how it was found and what was left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import InvalidRequestError
from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.knowledge_base import KnowledgeBase
from quinze.knowledge.ranking import FileName, NamedPlaces

Write = Callable[..., Path]

NOTES = {
    "bread.md": "# Bread\nThe dough is proved for ninety minutes.\n# Tidying\nWipe the table with vinegar.",
    "trains.md": "# Trains\nThe night train to Vienna leaves at 22:10 from platform 7.\nSeats cost 39 EUR.",
    "合同.md": "# 租赁合同\n押金为两个月租金，合同到期后十五日内退还。\n# 维修\n屋顶漏水由出租人负责维修。",
    "ants.txt": "Ants find the shortest path by following the pheromones of other ants.",
    "settings.txt": "The default port of the server is 1515. Set max_upload_bytes to limit uploads.",
}


@pytest.fixture
def notes(kb: KnowledgeBase, source: Path, write: Write) -> KnowledgeBase:
    for name, text in NOTES.items():
        write(name, text)
    kb.add([source])
    return kb


@pytest.mark.parametrize(
    ("question", "document", "words"),
    [
        ("How long is bread dough proved?", "bread.md", "ninety minutes"),
        ("押金什么时候退还？", "合同.md", "十五日内退还"),
        ("租賃合同的押金", "合同.md", "押金"),
        ("屋顶漏水谁负责", "合同.md", "出租人"),
        ("which platform for the vienna night train", "trains.md", "platform 7"),
        ("pheromnes of annts", "ants.txt", "pheromones"),
        ("maxUploadBytes", "settings.txt", "max_upload_bytes"),
        ("port 1515", "settings.txt", "1515"),
        ("what do I wipe the table with", "bread.md", "vinegar"),
    ],
)
def test_the_passage_that_answers_is_first(
    notes: KnowledgeBase, question: str, document: str, words: str
) -> None:
    hit = notes.search(question)[0]
    assert hit.document == f"source/{document}"
    assert words in hit.text


def test_a_hit_can_be_narrowed_to_its_lines(notes: KnowledgeBase) -> None:
    hit = notes.search("seats cost")[0]
    block = next(block for block in hit.blocks if "39" in block.text)
    assert block.place.lines == (3, 3)
    whole = notes.blocks(hit.document_id)
    assert tuple(whole[hit.first_block : hit.first_block + len(hit.blocks)]) == hit.blocks
    assert hit.text == "\n".join(block.text for block in hit.blocks)


@pytest.mark.parametrize("question", ["quantum entanglement of photons", "量子纠缠是什么", "zebra"])
def test_what_nothing_answers_scores_near_nothing(notes: KnowledgeBase, question: str) -> None:
    search = notes.search_account(question)
    assert all(hit.score < 0.1 and hit.scores["coverage"] == 0 for hit in search.hits)
    assert any(note.startswith("Nowhere in these documents") for note in search.notes)


def test_scores_lie_between_0_and_1_and_fall(notes: KnowledgeBase) -> None:
    for question in ("dough", "the train costs how much", "合同", "table of the server port"):
        hits = notes.search(question, 20)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        for hit in hits:
            assert 0 <= hit.score <= 1
            assert all(0 <= value <= 1 for value in hit.scores.values() if value is not None)


def test_coverage_is_the_weighted_share_of_the_words_that_are_there(notes: KnowledgeBase) -> None:
    whole = notes.search("night train Vienna")[0].scores["coverage"]
    part = notes.search("night train Budapest zoo")[0].scores["coverage"]
    assert whole == 1.0
    assert part is not None
    assert 0.3 < part < 0.7


def test_a_question_that_names_a_file_is_answered_from_it(
    kb: KnowledgeBase, source: Path, write: Write
) -> None:
    for i in range(12):
        write(f"report_{i}.txt", f"The profit of the year was {i} million. The profit rose. Profit is good.")
    write("年度总结.txt", "利润减少了。")
    kb.add([source])
    assert kb.search("What was the profit in report_7?")[0].document == "source/report_7.txt"
    assert kb.search("profit, report_3.txt")[0].document == "source/report_3.txt"
    assert kb.search("年度总结里的利润 profit")[0].document == "source/年度总结.txt"


def test_the_page_that_is_named_is_preferred(
    kb: KnowledgeBase, readers: Any, source: Path, write: Write
) -> None:
    def pages(path: Path, **_: object) -> Document:
        blocks = [
            Block(BlockKind.PARAGRAPH, f"Warranty terms, part {i}.", Place(page=i, chapter=str(i)))
            for i in range(1, 200)
        ]
        return Document("pdf", tuple(blocks), pages=199)

    readers.read = pages
    kb.add([write("terms.pdf", "x")])
    assert kb.search("warranty on page 160 of terms.pdf")[0].place.page == 160
    assert kb.search("terms.pdf 第3页的 warranty")[0].place.page == 3
    assert NamedPlaces.of("slide 2").hold(Place(slide=2))
    assert not NamedPlaces.of("slide 2").hold(Place(page=2))


@pytest.mark.parametrize(
    ("name", "question", "named"),
    [
        ("a/report.pdf", "what does report.pdf say", True),
        ("a/report.pdf", "write a report", False),
        ("Q3-2025.xlsx", "sum in q3-2025?", True),
        ("q3.xlsx", "q3", False),
        ("劳动合同范本.docx", "劳动合同范本第三条", True),
        ("data_1.csv", "data_12", False),
    ],
)
def test_a_file_name_in_a_question_is_told_from_a_word(name: str, question: str, named: bool) -> None:
    assert FileName.of(1, name).is_in(question) is named


def test_copies_are_folded_and_accounted_for(kb: KnowledgeBase, source: Path, write: Write) -> None:
    text = "The warranty lasts for two years from the day of purchase, damage by the owner excepted. "
    write("a.txt", text * 3)
    write("b.txt", text * 3)
    write("c.txt", text * 3 + "Signed.")
    write("d.txt", "Another text on the warranty of cars.")
    kb.add([source])
    search = kb.search_account("how long does the warranty last", 8)
    assert len(search.hits) == 2
    assert search.hits[0].document == "source/a.txt"
    reasons = {drop.document: drop.reason for drop in search.dropped}
    assert reasons.keys() == {"source/b.txt", "source/c.txt"}
    assert all("the same text as in source/a.txt" in reason for reason in reasons.values())


def test_one_document_does_not_take_every_place(kb: KnowledgeBase, source: Path, write: Write) -> None:
    section = (
        "# Part {i} on tea\n" + "Green tea is picked in spring and dried at once, part {i}. " * 12 + "\n"
    )
    write("long.txt", "".join(section.format(i=i) for i in range(30)))
    for i in range(4):
        write(f"short{i}.txt", f"Green tea of garden{i} is picked in spring and dried.")
    kb.add([source])
    documents = [hit.document for hit in kb.search("green tea picked in spring", 8)]
    assert documents.count("source/long.txt") == 5
    assert len(set(documents)) == 4


def test_the_account_says_what_was_searched(notes: KnowledgeBase) -> None:
    search = notes.search_account("bread dough train", 1)
    assert (search.documents, search.chunks) == (5, notes.stats().chunks)
    assert search.terms == ["bread", "dough", "train"]
    assert len(search.hits) == 1
    assert search.dropped
    assert all(drop.reason == "not among the 1 best" for drop in search.dropped)
    assert search.seconds > 0


def test_a_row_is_found_by_the_name_of_its_column(kb: KnowledgeBase, readers: Any, write: Write) -> None:
    header = ("Article", "Unit price", "In stock")
    stock = [("bolt M8", "0.12", "4,000"), ("nut M8", "0.05", "9,500"), ("washer", "0.01", "20,000")]

    def rows(path: Path, **_: object) -> Document:
        blocks = [
            Block(
                BlockKind.TABLE_ROW,
                " | ".join(c),
                Place(sheet="Stock", cells=f"A{i}:C{i}"),
                cells=c,
                header=header,
            )
            for i, c in enumerate(stock, 2)
        ]
        return Document("xlsx", tuple(blocks))

    readers.read = rows
    kb.add([write("stock.xlsx", "x")])
    hit = kb.search("unit price of the washer")[0]
    assert hit.scores["coverage"] == 1.0
    assert hit.place.cells == "A2:C4"
    assert [block.place.cells for block in hit.blocks] == ["A2:C2", "A3:C3", "A4:C4"]
    assert kb.search("9500")[0].text.count("9,500") == 1


@pytest.mark.parametrize(("question", "k"), [("", 8), (" \n", 8), ("x" * 30_000, 8), ("x", 0), ("x", 10**6)])
def test_a_question_that_cannot_be_asked_is_refused(notes: KnowledgeBase, question: str, k: int) -> None:
    with pytest.raises(InvalidRequestError):
        notes.search(question, k)


@pytest.mark.parametrize(
    "question", ["?", "！！", '" OR "', "的", "the", "𠮷" * 50, "a " * 5000, "\ud800", "٣٤٥"]
)
def test_odd_questions_are_answered_without_a_fault(notes: KnowledgeBase, question: str) -> None:
    notes.search(question)


def test_an_empty_base_answers_nothing(kb: KnowledgeBase) -> None:
    search = kb.search_account("anything")
    assert (search.hits, search.documents, search.chunks, search.unread) == ([], 0, 0, [])
