"""Words: Chinese is found, English is stemmed, identifiers meet, and no question is a command."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quinze.embeddings.hashing import HashingEmbedder
from quinze.knowledge import ranking
from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.fulltext import Analyzer, match_expression
from quinze.knowledge.indexing import chunk_rows
from quinze.knowledge.ranking import Collection, Weights
from quinze.knowledge.stores.records import ChunkRow, Entry
from quinze.knowledge.stores.sqlite import SQLiteStore

CHINESE = [
    "面团需要在温暖的地方发酵九十分钟，然后放入烤箱。",
    "长城始建于春秋战国时期，全长两万多公里。",
    "量子计算机利用叠加态同时处理大量状态。",
    "公司的年度报告显示，去年的净利润增长了百分之十二。",
    "糖尿病患者应当定期检查血糖和眼底。",
    "租赁合同到期后，押金应在十五日内退还承租人。",
    "鲁迅原名周树人，是中国现代文学的奠基人。",
    "列车于上午八点从上海虹桥站出发，下午一点到达北京南站。",
    "服务器的默认端口是一五一五，可在设置中更改。",
    "蚂蚁通过信息素寻找最短的路径。",
    "本产品的保修期为两年，人为损坏除外。",
    "茶叶应当密封，放在阴凉干燥处保存。",
    "会议记录由秘书整理，三天内发给全体成员。",
    "珠穆朗玛峰的高度是八千八百四十八米。",
]
QUESTIONS = [
    ("面团发酵多久？", 0),
    ("长城有多长", 1),
    ("量子计算", 2),
    ("去年的净利润", 3),
    ("血糖检查", 4),
    ("押金什么时候退还", 5),
    ("周树人", 6),
    ("鲁迅是谁", 6),
    ("列车几点到北京", 7),
    ("默认端口", 8),
    ("蚂蚁怎么找路", 9),
    ("保修期多久", 10),
    ("茶叶如何保存", 11),
    ("茶", 11),
    ("谁整理会议记录", 12),
    ("珠穆朗瑪峰的高度", 13),
    ("電腦伺服器的默認端口", 8),
]


@pytest.fixture
def ranked(tmp_path: Path) -> Callable[[list[str], str], list[int]]:
    """The numbers of the texts that FTS5 finds for a question, best first."""

    def search(texts: list[str], question: str) -> list[int]:
        analyzer = Analyzer()
        store = SQLiteStore.create(tmp_path / "words.sqlite", {})
        if not store.known():
            rows = [
                ChunkRow(i, 1, 0, None, (), "", " ".join(analyzer.tokens(text)), None, 1, i)
                for i, text in enumerate(texts)
            ]
            blocks = [Block(BlockKind.PARAGRAPH, text, Place()) for text in texts]
            entry = Entry("path:/a", "a", "/a", "", "0", 0, 0, "ready", "")
            store.put(entry, blocks, rows, HashingEmbedder().embed(texts))
        terms = analyzer.query(question).terms
        found = store.match(match_expression(terms), 20, (1.0, 1.0)) if terms else []
        first = min(run[0] for run in store.chunk_runs().values())
        store.close()
        return [chunk - first for chunk, _ in found]

    return search


@pytest.mark.parametrize(("question", "right"), QUESTIONS)
def test_chinese_questions_find_their_sentence_first(
    ranked: Callable[[list[str], str], list[int]], question: str, right: int
) -> None:
    assert ranked(CHINESE, question)[:1] == [right]


def test_the_tokenizer_of_sqlite_would_find_hardly_any_of_them() -> None:
    """Why the tokens are made here: unicode61 takes what stands between two signs for one word."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE VIRTUAL TABLE plain USING fts5(text, tokenize='unicode61')")
    connection.executemany("INSERT INTO plain VALUES (?)", [(text,) for text in CHINESE])
    found = 0
    for question, right in QUESTIONS:
        words = question.strip("？")
        sql = "SELECT rowid FROM plain WHERE plain MATCH ? ORDER BY rank LIMIT 1"
        row = connection.execute(sql, (f'"{words}"',)).fetchone()
        found += row is not None and row[0] == right + 1
    assert found <= 1


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("The doughs were proving overnight", "prove dough"),
        ("Call max_tokens or parseArgs first", "maxtokens parse_args max tokens"),
        ("def parseArgs(self): ...", "parse args"),
        ("The GPT-4 model", "GPT4"),
        ("Rent is 1,234.50 EUR", "1234.5"),
        ("Written in C++ and C#", "c++"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ　１２３", "full width 123"),
        ("臺灣的資料庫", "台湾资料库"),
        ("Café Zürich", "cafe zurich"),
        ("version 3.10.2 of 2024-05-01", "3.10.2"),
        ("2023年第3季度", "2023年3季度"),
        ("dog's breakfast", "dogs"),
    ],
)
def test_spellings_of_the_same_meet(text: str, question: str) -> None:
    analyzer = Analyzer()
    assert set(analyzer.tokens(text)) & set(analyzer.query(question).terms)


def test_what_only_asks_is_not_looked_up() -> None:
    analyzer = Analyzer()
    assert analyzer.query("What is the price of the bolt?").terms == ("price", "bolt")
    assert analyzer.query("北京的首都是什么？").terms == ("北京", "首都")
    assert analyzer.query("这个项目的目的是什么").terms[-2:] == ("项目", "目的")
    assert analyzer.query("How long does the warranty last?").terms == ("warranti", "last")
    # Unless nothing else is left.
    assert analyzer.query("who is who").terms == ("who", "is")


@settings(deadline=None)
@given(st.text())
def test_no_question_is_an_error_to_fts5(question: str) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE words"
        " USING fts5(context, body, content='', tokenize=\"ascii tokenchars '_.+#'\")"
    )
    analyzer = Analyzer()
    tokens = analyzer.tokens(question)
    connection.execute("INSERT INTO words (rowid, context, body) VALUES (1, '', ?)", (" ".join(tokens),))
    terms = analyzer.query(question).terms
    if terms:
        rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (match_expression(terms),))
        # What is looked up is what was indexed, so that a text always finds itself.
        assert [row[0] for row in rows] == [1]


@pytest.mark.parametrize(
    "hostile", ['" OR 1=1 --', "a NEAR(b, 2)", "body : x", "^start*", "NOT AND OR", "'; DROP TABLE x"]
)
def test_operators_in_a_question_are_words(
    ranked: Callable[[list[str], str], list[int]], hostile: str
) -> None:
    assert isinstance(ranked(CHINESE, hostile), list)


def test_a_word_is_tokenized_alike_by_many_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    words = [
        f"{stem}{ending}"
        for stem in ("nation", "relat", "comput")
        for ending in ("al", "ional", "ing", "ers")
    ]
    texts = [" ".join(words[i:] + words[:i]) for i in range(len(words))] * 20
    alone = [Analyzer().tokens(text) for text in texts[: len(words)]] * 20
    for _ in range(5):
        analyzer = Analyzer()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(analyzer.tokens, texts)) == alone


# -- BM25


def bm25_by_numpy(
    texts: list[list[str]], terms: list[str], idf: str, k1: float = 1.2, b: float = 0.75
) -> np.ndarray:
    """The formula of Robertson and Zaragoza (2009), over a matrix of term frequencies."""
    tf = np.array([[text.count(term) for term in terms] for text in texts], float)  # (N, terms)
    lengths = np.array([len(text) for text in texts], float)[:, None]
    n = (tf > 0).sum(axis=0)
    ratio = (len(texts) - n + 0.5) / (n + 0.5)
    weight = np.maximum(np.log(ratio), 1e-6) if idf == "fts5" else np.log1p(ratio)
    scored: np.ndarray = (weight * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths / lengths.mean()))).sum(
        axis=1
    )
    return scored


ENGLISH = [
    "bread dough is proved twice then baked",
    "the dough of a pizza is proved once",
    "bread bread bread and butter",
    "steel bolts and steel nuts of size eight",
    "a loaf of bread keeps for three days in a paper bag and longer in the freezer",
    "butter is churned from cream",
    "nuts are not always made of steel",
    "oil paint dries slowly",
]


@pytest.mark.parametrize(
    "question", ["bread dough", "steel nuts", "butter bread", "proved dough pizza", "cream"]
)
def test_fts5_ranks_as_the_formula_does(ranked: Callable[[list[str], str], list[int]], question: str) -> None:
    analyzer = Analyzer()
    texts = [analyzer.tokens(text) for text in ENGLISH]
    expected = bm25_by_numpy(texts, list(analyzer.query(question).terms), "fts5")
    found = ranked(ENGLISH, question)
    assert set(found) == set(np.flatnonzero(expected > 0).tolist())
    scores = expected[found]
    assert (np.diff(scores) <= 1e-9).all()


@pytest.mark.parametrize("question", ["bread dough", "steel nuts", "butter bread"])
def test_our_bm25_is_the_formula(question: str) -> None:
    analyzer = Analyzer()
    weights = Weights(k1=1.4, b=0.6)
    texts = [[t for t in analyzer.tokens(text) if not ranking.is_function_word(t)] for text in ENGLISH]
    terms = list(analyzer.query(question).terms)
    counts = {term: sum(term in text for text in texts) for term in terms}
    collection = Collection(len(texts), sum(map(len, texts)) / len(texts), counts)
    found = [
        ranking.bm25(terms, ranking.count_terms([], text, weights.context), collection, weights)
        for text in texts
    ]
    expected = bm25_by_numpy(texts, terms, "lucene", 1.4, 0.6)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert max(found) <= ranking.best_possible_bm25(terms, collection, weights)


def test_a_word_of_the_heading_counts_more_than_one_of_the_text() -> None:
    weights = Weights()
    collection = Collection(10, 3.0, {"bread": 2})
    above = ranking.count_terms(["bread"], ["a", "b", "c"], weights.context)
    within = ranking.count_terms([], ["bread", "b", "c"], weights.context)
    assert ranking.bm25(["bread"], above, collection, weights) > ranking.bm25(
        ["bread"], within, collection, weights
    )


def test_the_index_holds_the_name_the_title_and_the_headings() -> None:
    from quinze.knowledge.chunking import chunk_document
    from quinze.knowledge.document import Document

    block = Block(BlockKind.PARAGRAPH, "Ninety minutes.", Place(heading=("Bread", "Proving")))
    document = Document("text", (block,), title="Baking")
    (row,) = chunk_rows("notes/kitchen_2026.txt", document, chunk_document(document), Analyzer())
    assert set(row.context.split()) >= {"kitchen_2026", "kitchen", "2026", "bake", "bread", "prove"}
    assert math.isclose(row.length, 2)
