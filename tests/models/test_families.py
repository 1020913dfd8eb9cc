"""The configurations of known models: each has the number of parameters that its maker states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quinze.errors import UnsupportedModelError
from quinze.models.families import FAMILIES
from quinze.models.hugging_face_config import from_hugging_face
from quinze.models.weights import load_model

QWEN2_5_0_5B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 21, "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN3_0_6B: dict[str, Any] = {
    "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
    "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama", "attention_bias": False, "hidden_act": "silu", "hidden_size": 576,
    "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "vocab_size": 49152,
}  # fmt: skip
PHI_3_MINI_4K: dict[str, Any] = {
    "model_type": "phi3", "attention_bias": False, "hidden_act": "silu", "hidden_size": 3072,
    "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047,
    "tie_word_embeddings": False, "vocab_size": 32064,
}  # fmt: skip
PHI_4_MINI: dict[str, Any] = {
    "model_type": "phi3", "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
    "max_position_embeddings": 131072, "num_attention_heads": 24, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": True,
    "rope_scaling": {"type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1] * 48},
    "vocab_size": 200064,
}  # fmt: skip
GEMMA_2B: dict[str, Any] = {
    "model_type": "gemma", "attention_bias": False, "head_dim": 256, "hidden_act": "gelu",
    "hidden_activation": None, "hidden_size": 2048, "intermediate_size": 16384,
    "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18,
    "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0,
    "vocab_size": 256000,
}  # fmt: skip
GEMMA_2_2B: dict[str, Any] = {
    "model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
    "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
    "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    "sliding_window": 4096, "vocab_size": 256000,
}  # fmt: skip
QWEN3_30B_A3B: dict[str, Any] = {
    "model_type": "qwen3_moe", "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
    "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": True,
    "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
    "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
MIXTRAL_8X7B: dict[str, Any] = {
    "model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
GEMMA_3_1B: dict[str, Any] = {
    "model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None,
    "cache_implementation": "hybrid", "final_logit_softcapping": None, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
    "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
    "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
    "sliding_window_pattern": 6, "vocab_size": 262144,
}  # fmt: skip
GEMMA_3_4B: dict[str, Any] = {
    "model_type": "gemma3", "image_token_index": 262144,
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}  # fmt: skip
OLMO_2_1B: dict[str, Any] = {
    "model_type": "olmo2", "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_theta": 500000,
    "tie_word_embeddings": False, "vocab_size": 100352,
}  # fmt: skip
GPT_2: dict[str, Any] = {
    "model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "n_ctx": 1024,
    "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
}  # fmt: skip

KNOWN = {
    "Qwen2.5-0.5B": (QWEN2_5_0_5B, 494_032_768),
    "Qwen3-0.6B": (QWEN3_0_6B, 596_049_920),
    "Mistral-7B-v0.1": (MISTRAL_7B, 7_241_732_096),
    "SmolLM2-135M": (SMOLLM2_135M, 134_515_008),
    "Phi-3-mini-4k": (PHI_3_MINI_4K, 3_821_079_552),
    "Phi-4-mini": (PHI_4_MINI, 3_836_021_760),
    "gemma-2b": (GEMMA_2B, 2_506_172_416),
    "gemma-2-2b": (GEMMA_2_2B, 2_614_341_888),
    "gemma-3-1b": (GEMMA_3_1B, 999_885_952),
    "OLMo-2-1B": (OLMO_2_1B, 1_484_916_736),
    "gpt2": (GPT_2, 124_439_808),
    "Qwen3-30B-A3B": (QWEN3_30B_A3B, 30_532_122_624),
    "Mixtral-8x7B-v0.1": (MIXTRAL_8X7B, 46_702_792_704),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_has_the_parameters_that_its_maker_states(name: str) -> None:
    config, parameters = KNOWN[name]
    assert from_hugging_face(name, config).parameters == parameters


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mamba"}, "is a 'mamba' model"),
        ({"model_type": "falcon"}, "is a 'falcon' model"),
        ({"model_type": "gpt_neox"}, "is a 'gpt_neox' model"),
        ({"model_type": "t5"}, "is a 't5' model"),
        ({"model_type": "llava", "text_config": QWEN3_0_6B}, "is a 'llava' model"),
        ({"model_type": "qwen2_5_vl", "text_config": QWEN3_0_6B}, "is a 'qwen2_5_vl' model"),
        ({"model_type": "deepseek_v3"}, "is a 'deepseek_v3' model"),
        ({"model_type": "bert"}, "is a 'bert' model, an encoder"),
        ({"model_type": "xlm-roberta"}, "is a 'xlm-roberta' model, an encoder"),
    ],
)
def test_other_families_are_refused_by_name_with_what_to_do(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        from_hugging_face("m", config)
    assert ("qwen3moe" in caught.value.hint) or ("Qwen3-Embedding" in caught.value.hint)


def test_of_a_mixture_only_the_chosen_experts_count_for_a_token() -> None:
    """Their makers state 3.3 and 12.9 billion activated."""
    assert 3.3e9 < from_hugging_face("m", QWEN3_30B_A3B).active_parameters < 3.4e9
    assert 12.8e9 < from_hugging_face("m", MIXTRAL_8X7B).active_parameters < 12.9e9


def test_the_words_of_a_model_that_also_sees_are_read() -> None:
    config = from_hugging_face("gemma-3-4b", GEMMA_3_4B)
    assert (config.vocab_size, config.num_attention_heads, config.head_dim) == (262_208, 8, 256)
    assert config.max_position_embeddings == 131_072
    assert config.rope_factors == (8.0,) * 128
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)
    assert config.windows[:7] == (1024,) * 5 + (0, 1024)
    assert config.attention_scale == 1 / 16
    # Of 4.3 billion 0.42 belong to the part that sees.
    assert 3.87e9 < config.parameters < 3.89e9


def test_windows_are_where_their_makers_put_them() -> None:
    assert from_hugging_face("m", MISTRAL_7B).windows == (4096,) * 32
    assert from_hugging_face("m", MISTRAL_7B | {"sliding_window": None}).windows == ()
    assert from_hugging_face("q", QWEN2_5_0_5B).windows == ()
    on = {"use_sliding_window": True, "sliding_window": 8}
    assert from_hugging_face("q", QWEN2_5_0_5B | on).windows == (0,) * 21 + (8,) * 3
    assert from_hugging_face("g", GEMMA_2_2B).windows == (4096, 0) * 13
    assert from_hugging_face("o", OLMO_2_1B).windows == ()


def test_yarn_lengthens_the_context_that_the_config_states() -> None:
    yarn = {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
    config = from_hugging_face("q", QWEN2_5_0_5B | yarn)
    assert config.max_position_embeddings == 131_072
    assert config.rope_scale == pytest.approx(0.1 * np.log(4) + 1)


def test_an_unknown_family_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match="'mamba'") as caught:
        from_hugging_face("it", GPT_2 | {"model_type": "mamba"})
    assert all(name in caught.value.hint for name in FAMILIES)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny Gemma 3 with eyes, and the folder it lies in."""
    import torch
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    words = Gemma3TextConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, sliding_window=16,
        query_pre_attn_scalar=16, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    eyes = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
        patch_size=14,
    )  # fmt: skip
    torch.manual_seed(15)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=words, vision_config=eyes, mm_tokens_per_image=4, image_token_index=299,
            boi_token_index=297, eoi_token_index=298,
        )
    ).eval()  # fmt: skip
    folder = tmp_path_factory.mktemp("seeing")
    model.save_pretrained(folder)
    return model, folder


def test_a_model_that_also_sees_speaks_as_in_transformers(
    seeing: tuple[Any, Path], rng: np.random.Generator
) -> None:
    import torch

    from quinze.engine.engine import Engine

    model, folder = seeing
    ids = rng.integers(3, 290, 60).tolist()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    found = Engine(load_model(folder), kv_type="f32", threads=2).logits(ids)
    np.testing.assert_allclose(found, expected, atol=3e-4 * expected.std(), rtol=1e-4)


def test_a_folder_of_a_model_without_its_head_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its tensors bear no "model." before their names; its head is the embedding."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from quinze.engine.engine import Engine

    torch.manual_seed(15)
    peer = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=True,
            initializer_range=0.2,
        )
    ).eval()  # fmt: skip
    peer.model.save_pretrained(tmp_path / "bare")
    ids = rng.integers(0, 300, 60).tolist()
    with torch.no_grad():
        expected = peer(input_ids=torch.tensor([ids])).logits[0].numpy()
    found = Engine(load_model(tmp_path / "bare"), kv_type="f32", threads=2).logits(ids)
    np.testing.assert_allclose(found, expected, atol=3e-4 * expected.std(), rtol=1e-4)
