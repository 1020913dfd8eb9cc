"""One model with several adapters, as its users see it: apart, at the same time, and never mixed up."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from quinze.errors import UnsupportedModelError
from quinze.llm.llm import LLM


def shipping() -> ModuleType:
    """shipping/conftest.py: a small chat model, and adapters of any size for it."""
    path = Path(__file__).resolve().parents[1] / "shipping" / "conftest.py"
    spec = importlib.util.spec_from_file_location("llm_shipping", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    importlib.import_module("sys").modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, and `a`, `b`, `c` for it."""
    from quinze.models.save import save_model
    from quinze.models.transformer import Transformer

    peer, folder = shipping(), tmp_path_factory.mktemp("adapted")
    peer.write_tokenizer(folder / "words")
    model = Transformer(peer.CONFIG)
    model.initialize(15, std=0.2)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    save_model(folder / "base", peer.CONFIG, weights, tokenizer=folder / "words", eos_ids=(2,))
    for seed, name in enumerate("abc"):
        peer.write_tune(folder / name, folder / "base", 0.1, seed)
    return folder


@pytest.fixture(scope="module")
def llm(made: Path) -> Iterator[LLM]:
    with LLM(made / "base", threads=1) as loaded:
        yield loaded


def said(llm: LLM, words: str = "Once upon a time there was a small dog and it ran ") -> str:
    return llm.complete(words * 3, max_tokens=12, temperature=0).text


def test_each_adapter_says_what_its_merged_model_says(made: Path, llm: LLM, tmp_path: Path) -> None:
    from quinze.shipping.export import export

    for name in "abc":
        export(made / name, tmp_path / name, to="merged")
        with LLM(tmp_path / name, threads=1) as merged:
            assert said(llm.adapted(made / name)) == said(merged)
    assert len({said(llm), *(said(llm.adapted(made / n)) for n in "abc")}) == 4


def test_a_prompt_computed_with_one_adapter_serves_no_other(made: Path, llm: LLM) -> None:
    """The same prompt again shares its keys and values; the one of another adapter never does."""
    prompt = "The bakery on the corner opens at six. " * 4
    first = llm.adapted(made / "a").complete(prompt, max_tokens=4, temperature=0)
    other = llm.adapted(made / "b").complete(prompt, max_tokens=4, temperature=0)
    again = llm.adapted(made / "a").complete(prompt, max_tokens=4, temperature=0)
    assert other.usage.cached_tokens == 0
    assert again.usage.cached_tokens > 0
    assert again.text == first.text
    assert llm.complete(prompt, max_tokens=4, temperature=0).usage.cached_tokens == 0


def test_requests_of_all_adapters_at_once_get_what_each_gets_alone(made: Path, llm: LLM) -> None:
    models = [llm, *(llm.adapted(made / name) for name in "abc")] * 3
    alone = [said(model, "He said: ") for model in models[:4]] * 3
    found: list[str] = [""] * len(models)

    def ask(index: int) -> None:
        found[index] = said(models[index], "He said: ")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_over_quantized_weights_that_run_packed_too(made: Path, tmp_path: Path) -> None:
    """As they are served: the first load leaves a rearranged copy of the weights."""
    from quinze.shipping.export import export

    export(made / "base", tmp_path / "q8.gguf", to="gguf", level_name="q8_0")
    found = []
    for packing in ("off", "auto"):
        with LLM(tmp_path / "q8.gguf", threads=1, pack_weights=packing) as quantized:
            found.append([said(quantized), *(said(quantized.adapted(made / name)) for name in "abc")])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_it_chats_by_the_template_of_its_base_and_closing_it_closes_nothing(made: Path, llm: LLM) -> None:
    adapted = llm.adapted(made / "a", "bread")
    assert adapted.name == "bread"
    assert adapted.can_chat
    assert adapted.chat([{"role": "user", "content": "Hi"}], max_tokens=4).usage.completion_tokens > 0
    adapted.close()
    assert said(llm.adapted(made / "a"))


def test_an_adapter_of_another_model_is_refused(made: Path, llm: LLM, tmp_path: Path) -> None:
    other = shipping().low_ranks(0.1)
    from quinze.models.adapters import LowRank, write_adapter

    name, low = next(iter(other.items()))
    write_adapter(tmp_path / "x", {name: LowRank(low.a[:, :32].copy(), low.b, 1.0)})
    with pytest.raises(UnsupportedModelError, match="was not made for"):
        llm.adapted(tmp_path / "x")


def test_one_that_was_trained_on_is_loaded_anew(made: Path, llm: LLM, tmp_path: Path) -> None:
    folder = tmp_path / "growing"
    shipping().write_tune(folder, made / "base", 0.1, 1)
    before = said(llm.adapted(folder))
    shipping().write_tune(folder, made / "base", 0.1, 9)
    assert said(llm.adapted(folder)) != before


def test_the_python_face_takes_an_adapter_like_a_model(made: Path, llm: LLM) -> None:
    import quinze

    with quinze.LLM(made / "a", threads=1) as adapted:
        assert said(adapted) == said(llm.adapted(made / "a"))
        assert adapted.name == "a"
        engine = adapted._engine
    assert engine._decoder is None
