"""Conversations as rows: what is learned, what is only read, and what is left out with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quinze.errors import InvalidRequestError, UnsupportedModelError
from quinze.tokenizer.chatml import CHATML
from quinze.tokenizer.tokenizer import Tokenizer, load_tokenizer
from quinze.training.batch import IGNORE
from quinze.training.data.conversations import conversation
from quinze.training.data.dataset import TokenData
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.order import Batches
from quinze.training.data.prepare import prepare
from quinze.training.data.preview import preview
from quinze.training.data.rendering import Renderer
from quinze.training.data.sources import Source

TWO_TURNS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A cat?"},
        {"role": "assistant", "content": "the cat <|im_end|> took"},
        {"role": "user", "content": "And a dog?"},
        {"role": "assistant", "content": "\n the dog"},
    ]
}


def prepared(folder: Path, tokenizer: Path, records: Sequence[dict[str, Any]], **settings: Any) -> TokenData:
    chosen = {"kind": "chat", "sequence_length": 128, "val_fraction": 0.0, "workers": 1, **settings}
    prepare([Source.of_documents("talks", lambda: records)], tokenizer, folder, PrepareSettings(**chosen))
    return TokenData.open(folder)


def with_template(tokenizer: Path, folder: Path, template: str) -> Path:
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    config = json.loads((tokenizer / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(chatty: Path) -> Tokenizer:
    return load_tokenizer(chatty)


def said(data: TokenData, tokenizer: Tokenizer, i: int = 0) -> list[str]:
    """The pieces of a row that are learned."""
    spans = [span for part in preview(data, tokenizer, "train", i).documents for span in part]
    learned: list[str] = []
    before = False
    for span in spans:
        if span.trained:
            learned[-1:] = [learned[-1] + span.text] if before else [*learned[-1:], span.text]
        before = span.trained
    return learned


def test_masks_equal_those_of_transformers(chatty: Path, tokenizer: Tokenizer, tmp_path: Path):
    """Its {% generation %} marks what the assistant says; ours come without any mark in the template."""
    peer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(chatty)
    opening = "{{- '<|im_start|>assistant\\n' -}}\n        {%- if message.reasoning"
    assert opening in CHATML
    marked = CHATML.replace(opening, opening.replace("{%- if", "{%- generation -%}{%- if"))
    marked = marked.replace(
        "{{- '<|im_end|>\\n' -}}\n    {%- elif",
        "{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}\n    {%- elif",
    )
    plain = [dict(m) for m in TWO_TURNS["messages"] if "<|" not in m["content"]]
    plain.insert(2, {"role": "assistant", "content": "the cat took"})
    plain[-1]["content"] = "the dog"
    wanted = peer.apply_chat_template(
        plain, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
    )
    data = prepared(tmp_path / "data", chatty, [{"messages": plain}])
    ((ids, trained),) = data.documents("train", 0)
    length = len(ids)
    assert ids.tolist() == wanted["input_ids"][:length]
    assert trained.tolist() == [bool(m) for m in wanted["assistant_masks"][:length]]
    # Only the line end after the last token that is learned is left away.
    assert tokenizer.decode(wanted["input_ids"][length:]) == "\n"


def test_each_turn_is_learned_with_its_end_and_nothing_else(
    chatty: Path, tokenizer: Tokenizer, tmp_path: Path
):
    data = prepared(tmp_path / "data", chatty, [TWO_TURNS])
    assert said(data, tokenizer) == ["the cat <|im_end|> took<|im_end|>", "\n the dog<|im_end|>"]
    # What somebody typed is never the token: two turns have two ends that are learned.
    row = data.row("train", 0)
    assert (row.labels == tokenizer.id("<|im_end|>")).sum() == 2
    assert data.manifest.splits["train"].supervised_tokens == (row.labels != IGNORE).sum()


def test_a_reply_begins_where_the_generation_prompt_ends(chatty: Path, tokenizer: Tokenizer, tmp_path: Path):
    """Serving reads the prompt and samples after it: the same ids, even where a word would run on."""
    data = prepared(tmp_path / "data", chatty, [TWO_TURNS])
    ((ids, trained),) = data.documents("train", 0)
    from quinze.tokenizer.chat_template import ChatTemplate

    template = ChatTemplate.of(tokenizer)
    assert template is not None
    prompt = tokenizer.encode_segments(template.render(TWO_TURNS["messages"][:2]))
    template.close()
    assert ids[: len(prompt)].tolist() == prompt
    assert not trained[: len(prompt)].any()
    assert trained[len(prompt)]


@pytest.mark.parametrize(
    ("train_on", "wanted"),
    [("last", ["\n the dog<|im_end|>"]), ("assistant", None), ("all", None)],
)
def test_train_on_chooses_the_turns(chatty, tokenizer, tmp_path, train_on, wanted):
    data = prepared(tmp_path / "data", chatty, [TWO_TURNS], train_on=train_on)
    learned = said(data, tokenizer)
    if wanted:
        assert learned == wanted
    assert len(learned) == {"last": 1, "assistant": 2, "all": 1}[train_on]
    if train_on == "all":
        row = data.row("train", 0)
        assert (row.labels != IGNORE).sum() == data.manifest.splits["train"].tokens - 1


def test_a_turn_of_weight_0_is_read_only(chatty, tokenizer, tmp_path):
    messages = [dict(m) for m in TWO_TURNS["messages"]]
    messages[2]["weight"] = 0
    data = prepared(tmp_path / "data", chatty, [{"messages": messages}])
    assert said(data, tokenizer) == ["\n the dog<|im_end|>"]


def test_a_template_that_rewrites_its_past_gives_each_turn_its_own_sample(
    shared: Callable[[str], Path], chatty: Path, tmp_path: Path
):
    """Qwen3 shows the thought of the last turn only: the first is learned as it looked when it was said."""
    qwen3 = json.loads(shared("data/tokenizers/qwen3/tokenizer_config.json").read_text("utf-8"))
    folder = with_template(chatty, tmp_path / "tokenizer", qwen3["chat_template"])
    record = {
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "2", "reasoning_content": "Easy."},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4", "reasoning_content": "Hard."},
        ]
    }
    data = prepared(tmp_path / "data", folder, [record])
    tokenizer = load_tokenizer(folder)
    learned = {
        "".join(s.text for s in part if s.trained) for part in preview(data, tokenizer, "train", 0).documents
    }
    assert learned == {"<think>\nEasy.\n</think>\n\n2<|im_end|>", "<think>\nHard.\n</think>\n\n4<|im_end|>"}
    assert data.manifest.apart == 1


def talk(length: int, seed: int = 0) -> dict[str, Any]:
    turns = []
    for i in range(length):
        turns += [
            {"role": "user", "content": f"question {seed} {i}"},
            {"role": "assistant", "content": f"answer {seed} {i}"},
        ]
    return {"messages": [{"role": "system", "content": "Be kind."}, *turns]}


def test_what_is_too_long_loses_whole_exchanges_from_its_front(chatty, tokenizer, tmp_path):
    data = prepared(tmp_path / "data", chatty, [talk(20)], sequence_length=128)
    ((ids, _),) = data.documents("train", 0)
    text = tokenizer.decode(ids.tolist(), skip_special=False)
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nquestion")
    assert text.endswith("answer 0 19<|im_end|>")
    assert 128 - 45 < len(ids) <= 129
    kept = text.count("question")
    assert data.manifest.shortened == 2 * (20 - kept)


def test_what_is_too_long_can_be_refused_and_is_counted(chatty, tmp_path):
    data = prepared(tmp_path / "data", chatty, [talk(20), talk(1, 1)], too_long="refuse")
    assert data.manifest.dropped["too long"].count == 1
    assert data.manifest.splits["train"].documents == 1
    with pytest.raises(InvalidRequestError, match="too long: 1"):
        prepared(tmp_path / "none", chatty, [talk(20)], too_long="refuse")


def test_packed_conversations_see_only_themselves(chatty, tokenizer, tmp_path):
    records = [talk(1 + i % 3, i) for i in range(40)]
    data = prepared(tmp_path / "data", chatty, records, sequence_length=256)
    assert data.manifest.packing > 0.9
    met = []
    for i in range(data.rows("train")):
        row = data.row("train", i)
        assert row.segments is not None
        assert (np.diff(row.segments) >= 0).all()
        for number, (ids, trained) in enumerate(data.documents("train", i)):
            mine = row.segments == number
            assert row.ids[mine].tolist() == ids[:-1].tolist()
            assert row.labels[mine].tolist() == [
                int(id_) if on else IGNORE for id_, on in zip(ids[1:], trained[1:], strict=True)
            ]
            met.append(tokenizer.decode(ids.tolist()))
        padding = row.segments == len(data.documents("train", i))
        assert (row.labels[padding] == IGNORE).all()
    assert len(met) == len(set(met)) == 40


SHAPES = {
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "text", "value": "a"}]},
            {"role": "user", "content": "trailing"},
        ]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "question": {"question": "q", "answer": "a"},
    "prompt": {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_says_the_same(name):
    found = conversation(SHAPES[name], "auto", {}, "here")
    assert [(m["role"], m["content"]) for m in found.messages] == [("user", "q"), ("assistant", "a")]


def test_tool_calls_of_both_worlds_are_the_same_messages():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    openai = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"role": "tool", "content": "r"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": tools,
    }  # fmt: skip
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": json.dumps([{"name": "f", "parameters": {}}]),
    }
    assert conversation(openai, "auto", {}, "") == conversation(sharegpt, "auto", {}, "")


PAIRS = {
    "anthropic": {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    "trl": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "lists": {
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}],
    },
    "ranking": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "alpaca": {"instruction": "q", "input": "", "output": ["good", "bad"]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_shape_of_a_preference_is_a_pair_of_rows(chatty, tokenizer, tmp_path, name):
    data = prepared(tmp_path / "data", chatty, [PAIRS[name]], kind="preference")
    assert data.rows("train") == 2
    assert [said(data, tokenizer, i) for i in (0, 1)] == [["good<|im_end|>"], ["bad<|im_end|>"]]
    first, second = data.row("train", 0), data.row("train", 1)
    prompt = int(np.flatnonzero(first.labels != IGNORE)[0])
    assert first.ids[: prompt + 1].tolist() == second.ids[: prompt + 1].tolist()


def test_pairs_stay_together_in_every_batch(chatty, tmp_path):
    pairs = [{"prompt": f"q {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(7)]
    data = prepared(tmp_path / "data", chatty, pairs, kind="preference")
    batches = Batches(data, "train", 4, seed=1)
    for step in range(9):
        rows = batches.at(step).rows
        assert (rows[0::2] % 2 == 0).all()
        assert (rows[1::2] == rows[0::2] + 1).all()
    with pytest.raises(InvalidRequestError, match="pairs"):
        Batches(data, "train", 3, seed=1)


@pytest.mark.parametrize(
    ("record", "settings", "message"),
    [
        ({"goal": "g", "target": "t"}, {}, "fields are goal, target"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, {}, 'kind = "preference"'),
        ({"text": "words"}, {"kind": "preference"}, "fields are text"),
        ({"messages": [{"role": "user", "content": "q"}]}, {}, "no reply of the assistant: 1"),
        ({"messages": [{"role": "narrator", "content": "q"}]}, {}, "malformed: 1"),
        ({"instruction": "q", "output": ""}, {}, "an empty reply: 1"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, {"kind": "preference"}, "are equal: 1"),
        ({"messages": SHAPES["messages"]["messages"], "label": False}, {}, "rejected by its label: 1"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_its_reason(chatty, tmp_path, record, settings, message):
    with pytest.raises(InvalidRequestError, match=message):
        prepared(tmp_path / "data", chatty, [record], **settings)


def test_columns_name_what_is_called_otherwise(chatty, tokenizer, tmp_path):
    data = prepared(
        tmp_path / "data", chatty, [{"问": "q", "答": "a {{name}}"}],
        columns={"prompt": "问", "response": "答"}, replace={"{{name}}": "Q"},
    )  # fmt: skip
    assert said(data, tokenizer) == ["a Q<|im_end|>"]


def test_a_tokenizer_that_cannot_chat_is_refused(characters: Path, tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        prepared(tmp_path / "data", characters, [TWO_TURNS])


def test_a_template_without_an_end_is_refused(chatty: Path, tmp_path: Path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    folder = with_template(chatty, tmp_path / "tokenizer", template)
    with pytest.raises(InvalidRequestError, match="writes no token that ends a reply: 1"):
        prepared(tmp_path / "data", folder, [TWO_TURNS])


def test_renderings_of_real_files_load_or_say_why_not(shared: Callable[[str], Path], chatty: Path):
    """Every file of the shared instructions: at least one sample of its first records, or a clear refusal."""
    from quinze.training.data.chat_tasks import Talk, render_block
    from quinze.training.data.sources import read_file

    refused = {}
    folder = shared("data/instruct")
    renderers = {}
    for kind in ("chat", "preference"):
        settings = PrepareSettings(kind=kind, sequence_length=4096, near_duplicates="off")
        renderers[kind] = (settings, Renderer(load_tokenizer(chatty), settings))
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        settings, renderer = renderers["preference" if "dpo" in path.name else "chat"]
        talks = []
        for record in read_file(path):
            value = record.value if isinstance(record.value, str) else dict(record.value)
            talks.append(Talk(0, record.where, value))
            if len(talks) == 5:
                break
        try:
            block = render_block(talks, settings, renderer, Path(chatty) / "block")
            assert block.lengths, path
        except InvalidRequestError as error:
            refused[path.name] = error.message
    for _, renderer in renderers.values():
        renderer.close()
    assert set(refused) == {
        "dataset_info.json", "medical_corpus.txt", "advbench_harmful_behaviors_part.csv",
        "criskeval_zh_part.csv",
    }  # fmt: skip
    assert all("its fields are" in message for message in refused.values())
