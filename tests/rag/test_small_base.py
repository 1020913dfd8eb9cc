"""A first knowledge base is one document: a question that shares a word with it deserves its sentence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quinze.embeddings.loading import load_embedder
from quinze.knowledge.knowledge_base import KnowledgeBase
from quinze.rag.pipeline import answer

LEASE = """# Article 4

## Rent

The rent is paid by the 5th of each month to the landlord's account.

It is 1,250 euros.

# Article 5

## Pets

Cats are welcome; dogs need written consent.
"""
CONTRACT = """# 第四条 租金

乙方应于每月5日前将当月租金汇入甲方指定账户。

月租金为人民币六千五百元。

# 第五条 宠物

未经甲方书面同意，乙方不得饲养犬只。
"""


@pytest.fixture(scope="module", params=["alone", "together"])
def shelf(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "lease.md").write_text(LEASE, "utf-8")
    (folder / "租赁合同.md").write_text(CONTRACT, "utf-8")
    if request.param == "together":
        for number in range(30):
            text = f"# Note {number}\n\nThe hall is swept on day {number}. 第{number}天打扫大厅。\n"
            (folder / f"note{number}.md").write_text(text, "utf-8")
    base = KnowledgeBase.open(folder / "base", embedder=load_embedder("hashing"), create=True)
    base.add(sorted(folder.glob("*.md")))
    yield base
    base.close()


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ("When is the rent due?", "paid by the 5th"),
        ("How much is the rent?", "1,250 euros"),
        ("May I have a dog?", "dogs need written consent"),
        ("pets", "Cats are welcome"),
        ("租金每个月几号之前要付？", "每月5日前"),
        ("租金什么时候交？", "每月5日前"),
        ("月租金是多少？", "六千五百元"),
        ("合同里关于宠物是怎么规定的？", "不得饲养犬只"),
    ],
)
def test_a_question_in_other_words_finds_its_sentence(
    shelf: KnowledgeBase, question: str, quoted: str
) -> None:
    reply = answer(question, shelf, None)
    assert reply.kind == "quoted"
    assert any(quoted in citation.text for citation in reply.citations[:3]), reply.answer


@pytest.mark.parametrize(
    "question",
    [
        "Who discovered the neutron star?",
        "What is the capital of Portugal?",
        "How do I bake bread?",
        "谁发现了中子星？",
        "葡萄牙的首都是哪里？",
        "面包怎么烤？",
    ],
)
def test_a_question_about_something_else_finds_nothing(shelf: KnowledgeBase, question: str) -> None:
    reply = answer(question, shelf, None)
    assert (reply.kind, reply.citations) == ("none", [])
