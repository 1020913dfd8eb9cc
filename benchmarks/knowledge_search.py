"""Knowledge search: how good, how fast.

    python benchmarks/knowledge_search.py quality    Cranfield: words, vectors, fused; the peer is bm25s
    python benchmarks/knowledge_search.py similarity STS-B: Spearman
    python benchmarks/knowledge_search.py heldout    titles, leads and paragraphs that the starter never saw
    python benchmarks/knowledge_search.py embed      texts a second
    python benchmarks/knowledge_search.py latency    milliseconds a question at 10,000 and 100,000 passages

Speeds are given in processor time, which a busy machine changes little, latency also by the clock.

`--embedder NAME` takes another than the default: hashing, or any that `quinze` knows.

Cranfield is read from QUINZE_SHARED (default ../shared). A document is relevant whatever its grade (1-4).
The peer is optional: pip install bm25s PyStemmer. Rows go to docs/benchmarks.md.
"""

from __future__ import annotations

import csv
import lzma
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from quinze.embeddings.loading import load_embedder
from quinze.knowledge.chunking import chunk_document
from quinze.knowledge.defaults import EMBEDDER
from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.indexing import chunk_rows, indexed_texts
from quinze.knowledge.ranking import Weights
from quinze.knowledge.retriever import Limits, Retriever
from quinze.knowledge.stores.records import Entry
from quinze.knowledge.stores.sqlite import SQLiteStore

ROOT = Path(__file__).resolve().parent.parent
Numbers = npt.NDArray[np.floating[Any]]
SHARED = (ROOT / os.environ.get("QUINZE_SHARED", "../shared")).resolve()


# -- Cranfield


class Cranfield(msgspec.Struct):
    documents: dict[int, tuple[str, str]]
    queries: list[str]
    relevant: dict[int, set[int]]


def cranfield() -> Cranfield:
    folder = SHARED / "data/retrieval/cranfield"
    if not folder.is_dir():
        sys.exit(f"Cranfield is not in {folder}; set QUINZE_SHARED.")
    documents = {}
    for part in re.split(r"^\.I ", (folder / "cran.all.1400").read_text(), flags=re.MULTILINE)[1:]:
        number, rest = part.split("\n", 1)
        found = re.search(r"^\.T\n(.*?)^\.A\n.*?^\.W\n(.*)", rest, re.DOTALL | re.MULTILINE)
        assert found is not None
        documents[int(number)] = " ".join(found[1].split()), found[2].strip()
    parts = re.split(r"^\.I ", (folder / "cran.qry").read_text(), flags=re.MULTILINE)[1:]
    queries = [" ".join(part.split(".W\n", 1)[1].split()) for part in parts]
    # Judgements count the queries from 1 in the order of the file, not by the numbers in it.
    relevant: dict[int, set[int]] = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        fields = line.split()
        if len(fields) == 3 and int(fields[2]) > 0:
            relevant.setdefault(int(fields[0]), set()).add(int(fields[1]))
    return Cranfield(documents, queries, relevant)


def measure(search: Callable[[str], Sequence[int]], data: Cranfield) -> tuple[float, float]:
    """(nDCG@10, recall@10) with binary gains, averaged over the queries that have a relevant document."""
    gains, recalls = [], []
    for i, query in enumerate(data.queries, 1):
        relevant = data.relevant.get(i, set())
        if not relevant:
            continue
        ranked = search(query)[:10]
        gain = sum(1 / math.log2(rank + 2) for rank, doc in enumerate(ranked) if doc in relevant)
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
        gains.append(gain / ideal)
        recalls.append(len(relevant.intersection(ranked)) / len(relevant))
    return statistics.mean(gains), statistics.mean(recalls)


def put(store: SQLiteStore, name: str, document: Document) -> None:
    embedder, analyzer = _EMBEDDER, _ANALYZER
    chunks = chunk_document(document)
    rows = chunk_rows(name, document, chunks, analyzer)
    vectors = embedder.embed(indexed_texts(name, document, chunks))
    entry = Entry(
        key=name, name=name, path="/" + name, root="", sha256=name, size=0, mtime_ns=0, status="ready",
        added_at="", title=document.title,
    )  # fmt: skip
    store.put(entry, document.blocks, rows, vectors)


_NAME = sys.argv[sys.argv.index("--embedder") + 1] if "--embedder" in sys.argv else EMBEDDER
_EMBEDDER, _ANALYZER = load_embedder(_NAME), Analyzer()


def quality(folder: Path) -> None:
    data = cranfield()
    store = SQLiteStore.create(folder / "cranfield.sqlite", {})
    for number, (title, text) in data.documents.items():
        # The abstracts repeat their title; it is not given twice.
        text = " ".join(text.split()).removeprefix(title).strip() or title
        put(store, f"{number}", Document("text", (Block(BlockKind.PARAGRAPH, text, Place()),), title=title))
    rows = [
        ("words only (BM25)", Weights(coverage=0, focus=0).with_vectors(0)),
        (f"vectors only ({_EMBEDDER.id})", Weights(coverage=0, focus=0).with_vectors(1)),
        ("fused, no boosts", Weights(coverage=0, focus=0)),
        ("as shipped", Weights()),
    ]
    for label, weights in rows:
        retriever = Retriever(store, _EMBEDDER, _ANALYZER, weights, Limits(of_one_document=1.0))
        begun = time.perf_counter()
        ndcg, recall = measure(lambda q, r=retriever: _documents(r, q), data)  # type: ignore[misc]
        took = (time.perf_counter() - begun) / len(data.queries) * 1000
        print(f"{label:32} nDCG@10 {ndcg:.4f}  recall@10 {recall:.4f}  {took:.1f} ms a question", flush=True)
    peer = bm25s_search(data)
    if peer is not None:
        ndcg, recall = measure(peer, data)
        print(f"{'peer: bm25s (Lucene, stemmed)':32} nDCG@10 {ndcg:.4f}  recall@10 {recall:.4f}")


def _documents(retriever: Retriever, query: str) -> list[int]:
    hits = retriever.search(query, 14).hits
    return list(dict.fromkeys(int(hit.document) for hit in hits))


def bm25s_search(data: Cranfield) -> Callable[[str], Sequence[int]] | None:
    try:
        import bm25s  # type: ignore[import-not-found]
        import Stemmer  # type: ignore[import-not-found]
    except ImportError:
        print("bm25s is not here to compare with: pip install bm25s PyStemmer")
        return None
    stemmer = Stemmer.Stemmer("english")
    numbers = list(data.documents)
    texts = [text if text.startswith(title) else f"{title} {text}" for title, text in data.documents.values()]
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )

    def search(query: str) -> list[int]:
        tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        found, _ = index.retrieve(tokens, k=10, show_progress=False)
        return [numbers[i] for i in found[0]]

    return search


def similarity(_: Path) -> None:
    """STS-B, development sets: does the likeness of two sentences rank pairs as people do?"""
    for language in ("en", "zh"):
        path = SHARED / f"data/retrieval/stsb/stsb-{language}-dev.csv"
        if not path.is_file():
            sys.exit(f"{path} is not here; set QUINZE_SHARED.")
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if re.fullmatch(r"[\d.]+", row[2])]
        left, right = (_EMBEDDER.embed([row[side] for row in rows]) for side in (0, 1))
        found, people = (left * right).sum(axis=1), np.array([float(row[2]) for row in rows])
        print(f"{language}: Spearman {_rank_correlation(found, people):.3f} over {len(rows):,} pairs")


def heldout(_: Path) -> None:
    """Every twentieth article of the corpora (which the starter never saw): which text belongs to which?"""
    for language, name in (("English", "en_wiki_leads"), ("Chinese", "zh_wiki"), ("news", "en_wikinews")):
        articles = [a for i, a in enumerate(_articles(name)) if i % 20 == 7 and len(a["text"]) > 100]
        parts = [article["text"].split("\n") for article in articles]
        leads = [part[0][:600] for part in parts]
        _belong(f"{language}, title to lead", [article["title"] for article in articles], leads)
        longer = [part for part in parts if len(part) > 2]
        bodies = [max(part[1:], key=len)[:700] for part in longer]
        _belong(f"{language}, lead to a paragraph below", [part[0][:400] for part in longer], bodies)
    english, chinese = [], []
    for i, page in enumerate(_articles("parallel_docs_en_zh")):
        left, right = (re.split(r"\n\s*\n", page[side]) for side in ("en", "zh"))
        if i % 20 == 7 and len(left) == len(right):
            english, chinese = english + left, chinese + right
    _belong("Chinese paragraph to its English original", chinese, english)


def _articles(name: str) -> Iterator[dict[str, str]]:
    path = SHARED / "data/corpora" / f"{name}.jsonl.xz"
    if not path.is_file():
        sys.exit(f"{path} is not here; set QUINZE_SHARED.")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from map(msgspec.json.decode, file)


def _belong(label: str, questions: Sequence[str], texts: Sequence[str]) -> None:
    """MRR and recall by vectors, and by bm25s's BM25 over the analyzer's terms where it is installed."""
    likeness = _EMBEDDER.embed_queries(questions) @ _EMBEDDER.embed(texts).T
    told = _ranks(likeness)
    try:
        import bm25s
    except ImportError:
        print(f"{label:45} {len(texts):5,} texts: {_EMBEDDER.id} {told}", flush=True)
        return
    index = bm25s.BM25()
    index.index([_ANALYZER.tokens(text) for text in texts], show_progress=False)
    words = np.array([index.get_scores(_ANALYZER.tokens(question) or ["-"]) for question in questions])
    share = Weights().share_of(_EMBEDDER.id)
    best = np.maximum(words.max(axis=1, keepdims=True), 1e-9)
    fused = (1 - share) * words / best + share * likeness / np.maximum(
        likeness.max(axis=1, keepdims=True), 1e-9
    )
    print(
        f"{label:45} {len(texts):5,} texts: vectors {told}; BM25 {_ranks(words)}; both {_ranks(fused)}",
        flush=True,
    )


def _ranks(scores: Numbers) -> str:
    own = scores.diagonal()[:, None]
    # Among equals one stands in the middle: a text without any word in common is not found by chance.
    place = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return f"MRR {(1 / (place + 1)).mean():.3f}, among ten {(place < 10).mean():.3f}"


def _rank_correlation(a: Numbers, b: Numbers) -> float:
    def ranks(x: Numbers) -> Numbers:
        _, place, count = np.unique(x, return_inverse=True, return_counts=True)
        # Equal values share the mean of their ranks.
        mean = np.cumsum(count) - (count - 1) / 2
        ranked: Numbers = mean[place]
        return ranked

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


# -- speed


def texts_of(name: str, count: int, characters: int) -> list[str]:
    """`count` texts of a corpus, cut to `characters`; short corpora are taken again."""
    path = SHARED / "data/corpora" / name
    if not path.is_file():
        sys.exit(f"{path} is not here; set QUINZE_SHARED.")
    texts: list[str] = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            text = msgspec.json.decode(line)["text"]
            texts += [text[i : i + characters] for i in range(0, len(text) - characters // 2, characters)]
            if len(texts) >= count:
                break
    return texts[:count]


def embed(_: Path) -> None:
    for label, name, characters in [
        ("English, 80 characters", "en_wiki_leads.jsonl.xz", 80),
        ("English, 1,200 characters", "en_wiki_leads.jsonl.xz", 1200),
        ("Chinese, 40 characters", "zh_wiki.jsonl.xz", 40),
        ("Chinese, 400 characters", "zh_wiki.jsonl.xz", 400),
    ]:
        texts = texts_of(name, 4_000_000 // (characters + 20) // 4, characters)
        begun = time.process_time()
        _EMBEDDER.embed(texts)
        rate = len(texts) / (time.process_time() - begun)
        print(f"{label:28} {rate:10,.0f} texts a second of processor time", flush=True)


QUESTIONS = [
    "who discovered the moons of jupiter",
    "capital of the province of quebec",
    "which river flows through vienna",
    "what is the population of brazil",
    "symptoms of lead poisoning in children",
    "photosynthesis chlorophyll",
    "treaty of versailles 1919",
    "中国古代的造纸术是谁发明的",
    "长江的长度是多少",
    "北京大学成立于哪一年",
    "量子力学的基本原理",
    "台湾的主要铁路",
    "2008年奥运会的主办城市",
    "唐朝的首都",
]


def latency(folder: Path) -> None:
    for count in (10_000, 100_000):
        store = SQLiteStore.create(folder / f"{count}.sqlite", {})
        begun = time.process_time()
        for i, blocks in enumerate(_batches(count)):
            put(store, f"{i}", Document("text", blocks))
        _, _, chunks, _ = store.counts()
        built = time.process_time() - begun
        begun = time.process_time()
        retriever = Retriever(store, _EMBEDDER, _ANALYZER)
        retriever.search(QUESTIONS[0], 8)
        opened = time.process_time() - begun
        times: list[float] = []
        begun = time.process_time()
        for _ in range(3):
            times += [retriever.search(question, 8).seconds * 1000 for question in QUESTIONS]
        cpu = (time.process_time() - begun) / len(times) * 1000
        size = (folder / f"{count}.sqlite").stat().st_size / 1e6
        print(
            f"{chunks:,} passages: {cpu:.1f} ms of processor time a question; by the clock p50"
            f" {np.percentile(times, 50):.1f}, p95 {np.percentile(times, 95):.1f}, least {min(times):.1f};"
            f" first search {opened:.2f} s; {chunks / built:,.0f} passages written a second of processor"
            f" time; {size:,.0f} MB",
            flush=True,
        )


def _batches(count: int) -> Iterator[tuple[Block, ...]]:
    """Half English (600 characters), half Chinese (200) passages, a thousand to a document, each a chunk."""
    english = texts_of("en_wiki_leads.jsonl.xz", count // 2, 600)
    chinese = texts_of("zh_wiki.jsonl.xz", count // 2, 200)
    texts = [text for pair in zip(english, chinese, strict=False) for text in pair]
    for start in range(0, len(texts), 1000):
        yield tuple(
            Block(BlockKind.PARAGRAPH, text, Place(slide=i + 1))
            for i, text in enumerate(texts[start : start + 1000])
        )


def main(arguments: Sequence[str]) -> None:
    what: Mapping[str, Callable[[Path], None]] = {
        "quality": quality,
        "similarity": similarity,
        "heldout": heldout,
        "embed": embed,
        "latency": latency,
    }
    if "--embedder" in arguments:
        at = arguments.index("--embedder")
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    for name in arguments or list(what):
        if name not in what:
            sys.exit(__doc__)
        with tempfile.TemporaryDirectory() as folder:
            print(f"-- {name}")
            what[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
