"""The pipeline between the real knowledge base and the real engine: a random model convinces nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from quinze.embeddings.hashing import HashingEmbedder
from quinze.knowledge.knowledge_base import KnowledgeBase
from quinze.llm.llm import LLM
from quinze.rag.pipeline import answer, stream_answer

HIDDEN, LAYERS = 32, 1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp("rooms")
    (folder / "bridge.md").write_text(
        "# Halden\n\nThe Halden bridge was opened in 1932.\n\n"
        "| Bridge | Length |\n|---|---|\n| Halden | 412 m |\n"
    )
    (folder / "钟楼.txt").write_text("海登钟楼建于1887年。\n\n登楼票价为十五元。\n", "utf-8")
    (folder / "empty.txt").write_text("")
    names = ["bridge.md", "钟楼.txt", "empty.txt"]
    with KnowledgeBase.open(folder / "town", embedder=HashingEmbedder(), create=True) as base:
        base.add([folder / name for name in names], names=names)
        yield base


@pytest.fixture(scope="module")
def babbler(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: a Llama of random weights, with the tokens and the chat template of MiniMind."""
    folder = tmp_path_factory.mktemp("babbler")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared(f"data/tokenizers/minimind/{name}"), folder)
    vocabulary = 6400
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary,
        "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(15)
    shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        begin = f"model.layers.{layer}"
        shapes |= {
            f"{begin}.self_attn.q_proj.weight": (32, HIDDEN),
            f"{begin}.self_attn.k_proj.weight": (16, HIDDEN),
            f"{begin}.self_attn.v_proj.weight": (16, HIDDEN),
            f"{begin}.self_attn.o_proj.weight": (HIDDEN, 32),
            f"{begin}.mlp.gate_proj.weight": (64, HIDDEN),
            f"{begin}.mlp.up_proj.weight": (64, HIDDEN),
            f"{begin}.mlp.down_proj.weight": (HIDDEN, 64),
            f"{begin}.input_layernorm.weight": (HIDDEN,),
            f"{begin}.post_attention_layernorm.weight": (HIDDEN,),
        }
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("question", "text", "place"),
    [
        ("When was the Halden bridge opened?", "The Halden bridge was opened in 1932.", "lines"),
        ("海登钟楼是哪一年建的？", "海登钟楼建于1887年。", "lines"),
        ("What is the length of the Halden bridge?", "Halden | 412 m", "row"),
    ],
)
def test_files_are_quoted_at_their_place(base: KnowledgeBase, question: str, text: str, place: str) -> None:
    first = answer(question, base, None).citations[0]
    assert first.text == text
    assert getattr(first.anchor, place)
    assert base.blocks(first.document_id, start=first.block, limit=1)[0].text.count(text) == 1


def test_the_file_that_could_not_be_read_is_named(base: KnowledgeBase) -> None:
    searched = answer("When was the Halden bridge opened?", base, None).searched
    assert [unread.document for unread in searched.unread] == ["empty.txt"]
    assert (searched.knowledge_base, searched.documents) == ("town", 2)


def test_what_a_random_model_says_is_not_believed(base: KnowledgeBase, babbler: Path) -> None:
    with LLM(babbler, threads=1) as llm:
        events = list(stream_answer("When was the Halden bridge opened?", base, llm))
    assert sum(event.type == "delta" for event in events) > 1
    given = events[-1].answer
    assert given is not None
    assert given.kind == "quoted"
    assert given.context is not None
    assert any(note for note in given.searched.notes if llm.name in note)
    assert given.citations[0].text == "The Halden bridge was opened in 1932."


def test_a_small_context_holds_what_it_can(base: KnowledgeBase, babbler: Path) -> None:
    with LLM(babbler, threads=1, context_length=64) as llm:
        given = answer("When was the Halden bridge opened?", base, llm)
    assert given.kind == "quoted"
    assert "64" in given.searched.notes[-1]


def test_a_model_that_only_tells_stories_is_not_asked(
    base: KnowledgeBase, shared: Callable[[str], Path]
) -> None:
    shared("data/models/tok512.bin")
    with LLM(shared("data/models/stories260K.bin"), threads=1) as llm:
        assert not llm.can_chat
        given = answer("When was the Halden bridge opened?", base, llm)
    assert given.kind == "quoted"
    assert "chat template" in given.searched.notes[-1]


def test_an_answer_becomes_json_and_comes_back(base: KnowledgeBase) -> None:
    given = answer("When was the Halden bridge opened?", base, None)
    plain = json.loads(msgspec.json.encode(given))
    assert list(plain) == ["answer", "kind", "citations", "searched", "model", "context"]
    assert msgspec.convert(plain, type(given)) == given


def test_of_two_files_with_the_same_text_both_are_cited(tmp_path: Path) -> None:
    text = "The lighthouse of Halden was lit for the first time in 1844. It stands on the northern cape.\n"
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text(text)
    with KnowledgeBase.open(tmp_path / "twins", embedder=HashingEmbedder(), create=True) as base:
        base.add([tmp_path / "a.txt", tmp_path / "b.md"], names=["a.txt", "b.md"])
        given = answer("When was the lighthouse lit for the first time?", base, None)
    assert {citation.document for citation in given.citations} == {"a.txt", "b.md"}
    assert given.answer.endswith("[1][2]")
    assert all(passage.used for passage in given.searched.passages)
