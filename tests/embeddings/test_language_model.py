"""Language models as embedders: vectors of transformers and of llama.cpp from the same weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from quinze.embeddings.embedder import shortened
from quinze.embeddings.language_model import LanguageModelEmbedder
from quinze.embeddings.loading import load_embedder
from quinze.embeddings.pooling import QWEN3_QUERY, pooling_of
from quinze.errors import ConflictError, ContextLengthError, InvalidRequestError, UnsupportedModelError
from quinze.formats.checkpoint import open_checkpoint
from quinze.knowledge.knowledge_base import KnowledgeBase

TEXTS = ["how long is dough proved", "面团要醒多久", "a", "The quick brown fox jumps over the lazy dog. " * 3]
QUERY = "Instruct: find it\nQuery:"


def _peers() -> ModuleType:
    path = Path(__file__).parents[1] / "engine" / "peer_families.py"
    spec = importlib.util.spec_from_file_location("peer_families_for_embedders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """(model, tokenizer, folder): a tiny Qwen 3 of transformers as sentence-transformers keeps it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-embedder")
    model = _peers().make("qwen3", folder, head_dim=32)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|endoftext|>"])
    end = raw.token_to_id("<|endoftext|>")
    raw.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    _write(
        folder / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True, "word_embedding_dimension": 64}
    )
    parts = [
        {"idx": i, "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(("Transformer", "Pooling", "Normalize"))
    ]
    _write(folder / "modules.json", parts)
    _write(folder / "config_sentence_transformers.json", {"prompts": {"query": QUERY, "document": ""}})
    return model, tokenizer, folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def theirs(peer: tuple[Any, Any, Path], text: str, kind: str = "last") -> np.ndarray:
    """The hidden state behind the last norm, pooled and made a unit vector."""
    import torch

    model, tokenizer, _ = peer
    with torch.no_grad():
        states = model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    vector = states.mean(axis=0) if kind == "mean" else states[-1]
    return np.asarray(vector / np.linalg.norm(vector))


def test_vectors_are_those_of_transformers_from_the_last_token(peer: tuple[Any, Any, Path]) -> None:
    embedder = LanguageModelEmbedder(peer[2], threads=1)
    expected = np.stack([theirs(peer, text) for text in TEXTS])
    found = embedder.embed(TEXTS)
    assert found.shape == (len(TEXTS), embedder.dimensions)
    # Its keys and values are float16.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    queries = np.stack([theirs(peer, QUERY + text) for text in TEXTS])
    np.testing.assert_allclose(embedder.embed_queries(TEXTS), queries, atol=2e-3)
    assert embedder.count_tokens("abc") == 4


def test_the_mean_of_all_tokens_is_that_of_transformers(peer: tuple[Any, Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mean"
    folder.mkdir()
    for file in peer[2].iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    (folder / "1_Pooling").mkdir()
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    found = LanguageModelEmbedder(folder, threads=1)
    expected = np.stack([theirs(peer, text, "mean") for text in TEXTS])
    np.testing.assert_allclose(found.embed(TEXTS), expected, atol=2e-3)
    assert found.id != LanguageModelEmbedder(peer[2]).id


def test_a_gguf_says_by_its_own_keys_how_it_pools(peer: tuple[Any, Any, Path], tmp_path: Path) -> None:
    import gguf

    model, tokenizer, _ = peer
    path, peers = tmp_path / "m.gguf", _peers()

    def vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
        names = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
        names += [names[0] + names[1]]  # the one merge, of letters that no text of ours has together
        names += [f"<unused{i}>" for i in range(size - len(names))]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(names)
        writer.add_token_types([1] * 256 + [3] * (size - 256))
        writer.add_token_merges([f"{names[0]} {names[1]}"])
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_add_eos_token(True)
        writer.add_pooling_type(gguf.PoolingType.LAST)

    peers._write_vocabulary = vocabulary
    peers.write_gguf(path, model)
    found = LanguageModelEmbedder(path, threads=1)
    pooling = pooling_of(path, open_checkpoint(path))
    assert pooling is not None
    assert (pooling.kind, pooling.query_prefix) == ("last", QWEN3_QUERY)
    expected = np.stack([theirs(peer, text) for text in TEXTS])
    np.testing.assert_allclose(found.embed(TEXTS), expected, atol=2e-3)


def test_the_first_numbers_are_a_vector_by_themselves(peer: tuple[Any, Any, Path]) -> None:
    whole = LanguageModelEmbedder(peer[2], threads=1).embed([*TEXTS, ""])
    short = shortened(whole, 16)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), [1, 1, 1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(short[0], whole[0, :16] / np.linalg.norm(whole[0, :16]), atol=1e-6)


def test_a_text_that_is_too_long_is_refused_with_both_numbers(peer: tuple[Any, Any, Path]) -> None:
    with pytest.raises(ContextLengthError, match=r"601 tokens; .* at most 512"):
        LanguageModelEmbedder(peer[2], threads=1).embed(["a" * 600])


def test_what_is_no_embedder_is_refused_by_name(peer: tuple[Any, Any, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in peer[2].iterdir():
        if file.is_file():
            (plain / file.name).symlink_to(file)
    with pytest.raises(UnsupportedModelError, match="plain is no embedding model: its file names no pooling"):
        LanguageModelEmbedder(plain)
    (plain / "1_Pooling").mkdir()
    _write(plain / "1_Pooling" / "config.json", {"pooling_mode_max_tokens": True})
    with pytest.raises(UnsupportedModelError, match="pooling_mode_max_tokens"):
        LanguageModelEmbedder(plain)
    _write(plain / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True})
    (plain / "modules.json").unlink()
    _write(plain / "modules.json", [{"type": "sentence_transformers.models.Dense"}])
    with pytest.raises(UnsupportedModelError, match="'Dense'"):
        LanguageModelEmbedder(plain)
    with pytest.raises(InvalidRequestError, match="There is no embedder"):
        load_embedder("text-embedding-3-small")


def test_a_knowledge_base_remembers_its_model_and_takes_no_other(
    peer: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Bread dough is proved for an hour.")
    with KnowledgeBase.open(tmp_path / "kb", embedder=load_embedder(str(peer[2])), create=True) as base:
        base.add([tmp_path / "a.txt"])
    with KnowledgeBase.open(tmp_path / "kb", embedder=None, create=False) as again:
        assert again.embedder.id == LanguageModelEmbedder(peer[2]).id
        assert again.search("how long is dough proved?")[0].document == "a.txt"
    with pytest.raises(ConflictError, match=r"was made with .*, not with hashing"):
        KnowledgeBase.open(tmp_path / "kb", embedder=load_embedder("hashing"), create=False)
