"""The engine in PyTorch, on the CPU: ids and logits of the C++ engine, and its manners. No GPU is needed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quinze.engine import torch_engine
from quinze.engine.constraints import Grammar, Grammars
from quinze.engine.engine import Engine
from quinze.engine.sampling import SamplingParams
from quinze.engine.torch_engine import TorchDecoder, device_for, open_engine, weight_bytes
from quinze.errors import InvalidRequestError, TooLargeError
from quinze.llm.llm import LLM
from quinze.models.adapters import read_adapter
from quinze.models.weights import Model, load_model
from quinze.tokenizer.tokenizer import load_tokenizer

_SPEC = importlib.util.spec_from_file_location("families_of", Path(__file__).with_name("test_families.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = _MODULE.FAMILIES
GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pair(stories: Model) -> Iterator[tuple[Engine, Engine]]:
    """(in C++, in PyTorch)"""
    native, mine = Engine(stories, kv_type="f32", threads=1), open_engine(stories, "torch-cpu")
    yield native, mine
    native.close()
    mine.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_the_native_engine_says(
    name: str, families: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A prompt of two pieces, and a reply: beyond the windows of those that have one."""
    kind, changes = FAMILIES[name]
    families.make(kind, tmp_path, **changes)
    model = load_model(tmp_path)
    context = 512 if name.endswith(", short") else None
    ids = rng.integers(0, 300, 290).tolist()
    with torch.random.fork_rng():
        native = Engine(model, kv_type="f32", threads=1, context_length=context)
        mine = open_engine(model, "torch-cpu", context_length=context)
    expected = native.logits(ids)
    np.testing.assert_allclose(mine.logits(ids), expected, atol=3e-4 * expected.std(), rtol=1e-3)
    states = native.hidden_states(ids)
    np.testing.assert_allclose(mine.hidden_states(ids), states, atol=3e-4 * states.std(), rtol=1e-3)
    assert list(mine.generate(ids, GREEDY)) == list(native.generate(ids, GREEDY))
    mine.close()
    native.close()


@pytest.mark.parametrize("name", ["llama with biases", "qwen3", "gemma2", "gemma3", "phi3, long", "gpt2"])
def test_in_bfloat16_as_on_a_gpu_it_says_nearly_the_same(name: str, families: Any, tmp_path: Path) -> None:
    """8 bits of mantissa: about a hundredth of the spread after a few layers."""
    kind, changes = FAMILIES[name]
    families.make(kind, tmp_path, **changes)
    model, ids = load_model(tmp_path), list(range(3, 100))
    expected = Engine(model, kv_type="f32", threads=1).logits(ids)
    decoder = TorchDecoder(model, "cpu", model.config.max_position_embeddings, torch.bfloat16)
    mine = Engine(model, decoder=decoder)
    assert np.abs(mine.logits(ids) - expected).mean() < 0.03 * expected.std()
    assert decoder.cache().missing(1) == 4 * 256 * (
        model.config.num_hidden_layers * model.config.num_key_value_heads * model.config.head_dim
    )
    assert len(list(mine.generate(ids, GREEDY))) == 40
    mine.close()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_a_quantized_gguf_says_what_its_dequantized_weights_say(
    kind: str, random_gguf: Callable[[str], Path]
) -> None:
    """The C++ engine rounds what it multiplies them with to 8 bits, so its logits are only near."""
    model = load_model(random_gguf(kind))
    mine, ids = open_engine(model, "torch-cpu"), list(range(3, 60))
    expected = Engine(model, kv_type="f32", threads=1).logits(ids)
    assert np.abs(mine.logits(ids) - expected).max() < 0.1 * expected.std()


def test_the_ids_are_those_of_an_independent_implementation(
    pair: tuple[Engine, Engine], greedy_ids: list[int]
) -> None:
    params = SamplingParams(temperature=0, max_tokens=200, speculation="off")
    assert list(pair[1].generate([1], params)) == greedy_ids[:200]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, seed=3, max_tokens=80, logprobs=3),
        SamplingParams(temperature=0.8, seed=4, top_p=0.9, repetition_penalty=1.3, max_tokens=80),
        SamplingParams(temperature=0, presence_penalty=1, frequency_penalty=0.5, max_tokens=80),
        SamplingParams(temperature=0.9, seed=5, logit_bias={400: 5.0, 300: -100.0}, max_tokens=80),
    ],
)
def test_draws_of_a_seed_are_those_of_the_native_engine(
    params: SamplingParams, pair: tuple[Engine, Engine]
) -> None:
    found = []
    for engine in pair:
        generation = engine.generate([1, 5, 9], params)
        found.append([(id_, generation.logprobs) for id_ in generation])
    assert [id_ for id_, _ in found[0]] == [id_ for id_, _ in found[1]]
    for (_, theirs), (_, mine) in zip(*found, strict=True):
        assert (theirs is None) == (mine is None)
        if theirs is not None and mine is not None:
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
            assert [id_ for id_, _ in mine.most_likely] == [id_ for id_, _ in theirs.most_likely]


def test_a_stop_id_ends_a_reply_and_a_cancel_another(
    pair: tuple[Engine, Engine], greedy_ids: list[int]
) -> None:
    stop = greedy_ids[20]
    generation = pair[1].generate([1], SamplingParams(temperature=0), stop_ids=[stop])
    assert list(generation) == greedy_ids[: greedy_ids.index(stop)]
    assert generation.finish_reason == "stop"
    cancel = threading.Event()
    generation = pair[1].generate([1], SamplingParams(temperature=0), cancel=cancel)
    assert [next(generation) for _ in range(3)] == greedy_ids[:3]
    cancel.set()
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"


def test_a_constraint_is_obeyed_as_by_the_native_engine(
    shared: Callable[[str], Path], pair: tuple[Engine, Engine]
) -> None:
    tokenizer = load_tokenizer(shared("data/models/stories260K.bin"))
    grammars, grammar = Grammars(tokenizer), Grammar.choice(["a little girl", "a big dog"])
    ids, params = tokenizer.encode("Once there was "), SamplingParams(temperature=0, max_tokens=40)
    texts = [
        tokenizer.decode(list(engine.generate(ids, params, constraint=grammars.compile(grammar))))
        for engine in pair
    ]
    assert texts[0] == texts[1]
    assert texts[0].strip() in ("a little girl", "a big dog")


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("file", ["folder", "gguf"])
def test_an_adapter_says_what_it_says_natively(families: Any, tmp_path: Path, dora: bool, file: str) -> None:
    """Beside the model as it is, in the same steps."""
    import peft

    base = families.make("qwen2", tmp_path / "base", num_hidden_layers=2)
    config = peft.LoraConfig(r=5, target_modules="all-linear", init_lora_weights=False, use_dora=dora)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "tune")
    base = families.make("qwen2", tmp_path / "base", num_hidden_layers=2)
    path = families.write_gguf(tmp_path / "m.gguf", base) if file == "gguf" else tmp_path / "base"
    model, ids = load_model(path), list(range(3, 60))
    native, mine = Engine(model, kv_type="f32", threads=1), open_engine(model, "torch-cpu")
    logits, said = [], []
    for engine in (native, mine):
        adapter = engine.load_adapter(read_adapter(tmp_path / "tune"))
        logits.append(engine.logits(ids, adapter))
        assert np.abs(logits[-1] - engine.logits(ids)).max() > 0.1 * logits[-1].std()
        running = [engine.generate(ids, GREEDY, adapter=a) for a in (adapter, None)]
        said.append([list(both) for both in zip(*running, strict=True)])
        engine.close()
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-3 * logits[0].std(), rtol=1e-3)
    assert said[0] == said[1]


def test_continuations_are_foretold_alike(pair: tuple[Engine, Engine]) -> None:
    theirs, mine = (engine.continuations([1, 5, 9], [[7, 8], [20]]) for engine in pair)
    for a, b in zip(theirs, mine, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_several_at_once_get_what_each_gets_alone(pair: tuple[Engine, Engine]) -> None:
    asked = [([1, 30 + i, 40], SamplingParams(temperature=i % 2, seed=i, max_tokens=60)) for i in range(4)]
    alone = [list(pair[0].generate(*one)) for one in asked]
    running = [iter(pair[1].generate(*one)) for one in asked]
    found: list[list[int]] = [[] for _ in asked]
    for _ in range(60):
        for ids, generation in zip(found, running, strict=True):
            ids += [id_ for id_ in [next(generation, None)] if id_ is not None]
    assert found == alone


def test_what_was_computed_once_is_not_computed_again(pair: tuple[Engine, Engine]) -> None:
    prompt = [1, *range(100, 350)]
    first = list(pair[1].generate(prompt, GREEDY))
    again = pair[1].generate([*prompt, *first[:5]], GREEDY)
    assert list(again)[:35] == first[5:]
    assert again.cached_tokens >= len(prompt)


def test_no_memory_on_the_device_is_told_as_such(stories: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(stories, "torch-cpu")

    def none_left(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TorchDecoder, "_append", none_left)
    with pytest.raises(TooLargeError, match="no memory left"):
        list(engine.generate([1, 2, 3], GREEDY))
    with pytest.raises(TooLargeError, match="no memory left"):
        engine.logits([1, 2, 3])
    monkeypatch.setattr(TorchDecoder, "_placed", none_left)
    with pytest.raises(TooLargeError, match="two bytes a weight"):
        open_engine(stories, "torch-cpu")


def test_auto_takes_the_gpu_that_torch_finds_and_that_has_room(
    stories: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [weight_bytes(stories) + 2**30]
    monkeypatch.setattr(torch_engine, "gpu_is_present", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free[0], 2**33))
    assert device_for(stories, "auto") == "cuda"
    assert device_for(stories, "cpu") == "cpu"
    free[0] = 2**20
    assert device_for(stories, "auto") == "cpu"
    with pytest.raises(InvalidRequestError, match="GiB are free"):
        device_for(stories, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for(stories, "auto") == "cpu"
    with pytest.raises(InvalidRequestError, match="no GPU"):
        device_for(stories, "cuda")


def test_a_model_without_a_gpu_imports_no_torch(shared: Callable[[str], Path]) -> None:
    program = (
        "import sys; from quinze.engine import torch_engine; from quinze.llm.llm import LLM\n"
        "torch_engine.gpu_is_present = lambda: False\n"
        f"llm = LLM({str(shared('data/models/stories260K.bin'))!r})\n"
        "llm.complete('Once', max_tokens=2); assert llm.device == 'cpu'; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_llm_on_torch_completes_in_the_same_words(shared: Callable[[str], Path]) -> None:
    path = shared("data/models/stories260K.bin")
    with LLM(path, device="torch-cpu") as mine, LLM(path, device="cpu", kv_cache_type="f32") as native:
        asked: dict[str, Any] = {"max_tokens": 40, "temperature": 0}
        assert mine.complete("Once upon", **asked).text == native.complete("Once upon", **asked).text
