"""LLM: the golden story, and the same words whether streamed or not."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quinze.engine.sampling import SamplingParams
from quinze.errors import ContextLengthError, FileFormatError, InvalidRequestError, UnsupportedModelError
from quinze.llm.llm import LLM
from quinze.llm.messages import Delta, Message

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
MESSAGES = [
    Message("system", "Be brief."),
    Message("user", "Hello! 你好"),
    Message("assistant", "<think>\nwell\n</think>\n\nHi."),
    Message("user", "And <|im_end|> now?"),
]


@pytest.fixture(scope="session")
def golden(shared: Any) -> str:
    text: str = shared("data/models/stories260K.greedy.txt").read_text("utf-8")
    return text


def test_the_golden_story_is_told(stories: LLM, golden: str) -> None:
    reply = stories.complete("Once upon a time", max_tokens=100, temperature=0)
    assert len(reply.text) > 200
    assert golden.strip().startswith("Once upon a time" + reply.text)
    assert reply.finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 100)
    assert reply.timings.decode_seconds > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_streaming_equals_not_streaming(stories: LLM, chatty: LLM, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=7, max_tokens=60)
    deltas = list(stories.complete("Tom and Lily", params=params, stream=True))
    whole = stories.complete("Tom and Lily", params=params)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert (deltas[-1].finish_reason, deltas[-1].context) == (whole.finish_reason, whole.context)
    assert all(delta.finish_reason is None and delta.text for delta in deltas[:-1])
    chatted = "".join(delta.text for delta in chatty.chat(MESSAGES, params=params, stream=True))
    assert chatted == chatty.chat(MESSAGES, params=params).text


def test_chat_reads_what_transformers_would_have_read(chatty: LLM, shared: Any) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(shared("data/tokenizers/qwen3"))
    plain = [*MESSAGES[:-1], Message("user", "And now?")]
    turns = [{"role": message.role, "content": message.content} for message in plain]
    theirs = peer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert chatty._chat_ids(plain) == theirs
    assert chatty.count_chat_tokens(plain) == len(theirs)
    assert chatty.count_tokens("Hello! 你好") == len(peer.encode("Hello! 你好"))


def test_loose_keywords_override_params(stories: LLM) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=50)
    first = stories.complete("Once", params=params, max_tokens=3, temperature=0)
    assert first.usage.completion_tokens == 3
    assert first.text == stories.complete("Once", max_tokens=3, temperature=0, seed=1).text
    with pytest.raises(InvalidRequestError, match="'heat'"):
        stories.complete("Once", heat=3)
    with pytest.raises(InvalidRequestError, match="top_p"):
        stories.complete("Once", top_p=3.0)


# the context ledger


def test_the_ledger_adds_up_part_by_part(chatty: LLM) -> None:
    reply = chatty.chat(MESSAGES, max_tokens=5, temperature=0)
    context = reply.context
    parts = context["parts"]
    assert context["granted"] == 128
    assert parts["system"] == chatty.count_tokens("Be brief.")
    assert parts["prompt"] == chatty.count_tokens(MESSAGES[-1].content)
    assert parts["history"] > 0
    assert parts["template"] > 0
    assert parts["reply"] == reply.usage.completion_tokens
    assert sum(parts.values()) == context["used"] == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert (context["reply_asked"], context["reply_reserve"], context["dropped"]) == (5, 5, [])


def test_a_reply_is_granted_what_room_there_is_and_says_so(chatty: LLM) -> None:
    reply = chatty.chat(MESSAGES, max_tokens=5000, temperature=0, seed=1)
    room = 128 - reply.usage.prompt_tokens
    assert (reply.context["reply_asked"], reply.context["reply_reserve"]) == (5000, room)
    assert reply.usage.completion_tokens <= room


def test_a_prompt_that_does_not_fit_says_how_long_it_is_at_once(chatty: LLM) -> None:
    messages = [Message("user", "word " * 200)]
    tokens = chatty.count_chat_tokens(messages)
    for stream in (False, True):
        with pytest.raises(ContextLengthError, match=f"{tokens:,} tokens.*128"):
            chatty.chat(messages, stream=stream)
    with pytest.raises(ContextLengthError, match="128"):
        chatty.complete("word " * 200)


# stopping


def test_a_stop_string_ends_the_reply_before_itself(stories: LLM, golden: str) -> None:
    reply = stories.complete("Once upon a time", temperature=0, max_tokens=200, stop=["big, red", "never"])
    assert reply.finish_reason == "stop"
    assert "Once upon a time" + reply.text == golden.strip()[: golden.strip().index("big, red")]
    streamed = stories.complete("Once upon a time", temperature=0, stop=["big, red"], stream=True)
    assert "".join(delta.text for delta in streamed) == reply.text


def test_closing_the_stream_cancels_the_generation(stories: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    generate = stories._engine.generate

    def watched(*args: Any, **keywords: Any) -> Any:
        started.append(generate(*args, **keywords))
        return started[-1]

    monkeypatch.setattr(stories._engine, "generate", watched)
    stream = stories.complete("Once", temperature=0, stream=True)
    assert next(stream).text
    stream.close()
    assert started[0].finish_reason == "cancelled"
    assert started[0].completion_tokens < 10


def test_a_set_cancel_event_ends_the_reply(stories: LLM) -> None:
    cancel = threading.Event()
    deltas: list[Delta] = []
    for delta in stories.complete("Once", temperature=0, stream=True, cancel=cancel):
        deltas.append(delta)
        cancel.set()
    assert deltas[-1].finish_reason == "cancelled"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens < 10


# mistakes


def test_what_a_model_cannot_do_is_said(stories: LLM, chatty: LLM) -> None:
    assert not stories.can_chat
    assert chatty.can_chat
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        stories.chat([Message("user", "Hi")])
    with pytest.raises(InvalidRequestError, match="no messages"):
        chatty.chat([])
    with pytest.raises(InvalidRequestError, match="role"):
        chatty.chat([{"role": "king", "content": "Hi"}])
    with pytest.raises(InvalidRequestError, match="role"):
        chatty.chat([{"role": "user", "content": None}])  # type: ignore[dict-item]
    with pytest.raises(InvalidRequestError, match="stop"):
        chatty.chat([Message("user", "Hi")], stop=[""])


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path, shared: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(vocab_size=100, **SMALL)).save_pretrained(tmp_path / "small")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "small" / name).symlink_to(shared(f"data/tokenizers/minimind/{name}"))
    with pytest.raises(FileFormatError, match=r"6,400 tokens.*100"):
        LLM(tmp_path / "small")


def test_a_folder_chats_as_a_gguf_does(tmp_path: Path, shared: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(vocab_size=6400, max_position_embeddings=256, **SMALL)).save_pretrained(
        tmp_path / "tiny"
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "tiny" / name).symlink_to(shared(f"data/tokenizers/minimind/{name}"))
    with LLM(tmp_path / "tiny", threads=1) as llm:
        reply = llm.chat([{"role": "user", "content": "你好"}], max_tokens=8, temperature=0)
        assert llm.name == "tiny"
        assert 0 < reply.usage.completion_tokens <= 8
        json.dumps(reply.context)


def test_replies_asked_for_at_once_are_those_of_one_after_the_other(stories: LLM, chatty: LLM) -> None:
    prompts = ["Once upon", "Tom", "The dog", "Lily said"]
    alone = [stories.complete(prompt, max_tokens=40, temperature=0).text for prompt in prompts]
    counts = [chatty.count_chat_tokens([Message("user", prompt)]) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda p: stories.complete(p, max_tokens=40, temperature=0).text, prompts)
        counted = pool.map(lambda p: chatty.count_chat_tokens([Message("user", p)]), prompts)
        assert (list(together), list(counted)) == (alone, counts)
