"""Small whole files of several kinds, for the fuzzer to damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

from quinze.formats import quants
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.gguf import write_gguf
from quinze.quantization.encoder import encode_rows

NUMBERS = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64,
    "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
WORDS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "b", "c", "ab", "▁"]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def make_seeds(folder: Path, shared: Path) -> None:
    """Folders gguf, safetensors, tokenizer and template. The real tokenizers need the shared data."""
    seeds = folder / "seeds"
    for kind in ("gguf", "safetensors", "tokenizer", "template"):
        (seeds / kind).mkdir(parents=True)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    for family in ("Llama", "Qwen2", "Qwen3", "Gemma2", "Phi3", "Olmo2"):
        config = getattr(transformers, f"{family}Config")(**NUMBERS)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        model.save_pretrained(seeds / "safetensors" / family.lower())
    rng = np.random.default_rng(0)
    for kind in (TensorType.F32, TensorType.Q8_0, TensorType.Q4_K):
        _gguf(seeds / "gguf" / f"{kind.name.lower()}.gguf", kind, rng)
    _tokenizers(seeds / "tokenizer", shared / "data" / "tokenizers")
    _templates(seeds / "template", shared / "data" / "tokenizers")


def _gguf(path: Path, kind: TensorType, rng: np.random.Generator) -> None:
    wide = max(32, kind.block)

    def tensor(name: str, *shape: int) -> Tensor:
        weights = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1 or kind is TensorType.F32:
            return quants.encode(name, weights, TensorType.F32)
        return Tensor(name, kind, shape, encode_rows(weights, kind).reshape(-1))

    heads = {"attn_q": wide, "attn_k": wide // 2, "attn_v": wide // 2, "attn_output": wide}
    tensors = [
        tensor("token_embd.weight", len(WORDS), wide),
        *(tensor(f"{name}.weight", wide) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")),
        *(tensor(f"blk.0.{name}.weight", rows, wide) for name, rows in heads.items()),
        *(tensor(f"blk.0.ffn_{name}.weight", wide, wide) for name in ("gate", "up", "down")),
    ]
    metadata = {
        "general.architecture": "llama",
        "general.name": "seed",
        "llama.context_length": 64,
        "llama.embedding_length": wide,
        "llama.block_count": 1,
        "llama.feed_forward_length": wide,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(WORDS))],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(WORDS) - 259)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    write_gguf(path, metadata, tensors)


def _tokenizers(folder: Path, real: Path) -> None:
    for name in ("minimind", "internlm2"):
        if (real / name).is_dir():
            (folder / name).mkdir()
            for path in (real / name).iterdir():
                shutil.copyfile(path, folder / name / path.name)
    (folder / "small").mkdir()
    model = tokenizers.models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])
    tokenizers.Tokenizer(model).save(str(folder / "small" / "tokenizer.json"))


def _templates(folder: Path, real: Path) -> None:
    (folder / "chatml").write_text(CHATML, "utf-8")
    for name in ("qwen3", "minimind"):
        path = real / name / "tokenizer_config.json"
        if path.is_file():
            (folder / name).write_text(json.loads(path.read_text("utf-8"))["chat_template"], "utf-8")
