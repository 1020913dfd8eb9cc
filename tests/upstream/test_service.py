"""Names for models on other servers: how they are added, where their keys are, and every face with them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
import xllamacpp

from quinze.cli.main import run
from quinze.errors import ConflictError, InvalidRequestError, ModelNotFoundError, StorageError
from quinze.quantization.levels import level
from quinze.quantization.quantize import quantize
from quinze.quantization.source import open_source
from quinze.server.run import LocalServer
from quinze.service.rooms import Rooms
from quinze.service.service import Service
from quinze.service.settings import Settings

from .conftest import HELLO, KEY, FakeServer, delta, endless, refusing, saying, until, usage


def test_a_server_is_asked_once_and_known_from_then_on(server: FakeServer, service: Service) -> None:
    info = service.models.add_upstream("big one", server.url)
    assert (info.upstream, info.context_length, info.format) == (server.url, 4096, "vllm")
    again = Service(service.home, service.settings)
    assert again.models.names() == ["big one"]
    assert again.models.info("big one") == info
    with again.models.use("big one") as llm:
        assert (llm.name, llm.context_length) == ("big one", 4096)
        assert llm.chat([{"role": "user", "content": "Hello!"}]).text == "Hello, 世界"
    assert server.asked()["model"] == "big"
    with pytest.raises(InvalidRequestError, match="no file of it here"):
        again.models.path_of("big one")
    again.models.remove("big one")
    assert again.models.names() == []


def test_its_model_and_context_must_be_clear(server: FakeServer, service: Service) -> None:
    add = service.models.add_upstream
    server.models = [{"id": "a"}, {"id": "b", "max_model_len": 100}]
    with pytest.raises(InvalidRequestError, match="has 2 models"):
        add("x", server.url)
    with pytest.raises(ModelNotFoundError, match="It has: a, b"):
        add("x", server.url, model="c")
    with pytest.raises(InvalidRequestError, match="does not tell how long"):
        add("x", server.url, model="a")
    assert add("x", server.url, model="a", context_length=777).context_length == 777
    assert add("y", server.url, model="b").context_length == 100
    server.owner = "llamacpp"
    server.routes["/props"] = {"default_generation_settings": {"n_ctx": 1234}}
    assert add("z", server.url, model="a").context_length == 1234
    server.models = []
    with pytest.raises(InvalidRequestError, match="has 0 models"):
        add("x", server.url)
    assert service.models.names() == ["x", "y", "z"]


def test_a_name_means_one_model(server: FakeServer, service: Service, shared: Callable[[str], Path]) -> None:
    service.models.add_upstream("far", server.url)
    service.models.add(shared("data/models/stories260K.bin"), "near")
    with pytest.raises(ConflictError):
        service.models.add_upstream("near", server.url)
    with pytest.raises(ConflictError):
        service.models.add(shared("data/models/stories260K.bin"), "far")


def test_nothing_leaves_this_machine_unasked(
    server: FakeServer, service: Service, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model elsewhere is the default only where the setting says so; questions are quoted without one."""
    service.models.add_upstream("far", server.url)
    assert service.models.default() is None
    note = tmp_path / "note.md"
    note.write_text("The key of the cellar hangs behind the clock.\n")
    service.ingest("notes", [note])
    before = len(server.requests)
    assert "behind the clock" in service.ask("notes", "Where does the key of the cellar hang?").answer
    assert len(server.requests) == before
    chosen = Service(service.home, Settings(default_model="far"))
    assert chosen.models.default() == "far"
    chosen.close()


def test_documents_are_asked_with_it(server: FakeServer, service: Service, tmp_path: Path) -> None:
    service.models.add_upstream("far", server.url)
    note = tmp_path / "note.md"
    note.write_text("The key of the cellar hangs behind the clock.\n")
    service.ingest("notes", [note])
    server.answers = [
        saying(delta(content="It hangs behind the clock [1]."), delta(finish_reason="stop"), usage(300, 9))
    ]
    answer = service.ask("notes", "Where does the key of the cellar hang?", model="far")
    assert answer.answer.startswith("It hangs behind the clock")
    assert (answer.kind, answer.model) == ("generated", "far")
    assert answer.citations
    assert "behind the clock" in json.dumps(server.asked()["messages"])


def test_the_key_is_in_the_environment_or_in_a_file_of_its_owner(
    server: FakeServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(home, Settings())
    with pytest.raises(InvalidRequestError, match="VLLM_KEY, which is empty"):
        service.models.add_upstream("far", server.url, key_env="VLLM_KEY")
    monkeypatch.setenv("VLLM_KEY", KEY)
    info = service.models.add_upstream("far", server.url, key_env="VLLM_KEY")
    service.models.add_upstream("other", server.url, key="another-key")
    for name, key in (("far", KEY), ("other", "another-key")):
        with service.models.use(name) as llm:
            llm.chat([{"role": "user", "content": "Hello!"}])
        assert server.requests[-1][1]["Authorization"] == f"Bearer {key}"
    kept = home / "keys.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert KEY not in (home / "models.json").read_text() + kept.read_text() + repr(info)
    assert "another-key" not in (home / "models.json").read_text()
    kept.chmod(0o644)
    with pytest.raises(StorageError, match="can be read by others"), service.models.use("other"):
        pass
    kept.write_text("{nonsense another-key")
    kept.chmod(0o600)
    with pytest.raises(StorageError) as caught, service.models.use("other"):
        pass
    assert "another-key" not in str(caught.value)
    kept.write_text('{"other": "another-key"}')
    service.models.remove("other")
    assert kept.read_text().split() == ["{}"]


def test_the_terminal_says_that_it_is_elsewhere(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = server.url.split("/")[2]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    assert run(["add", "far", "--upstream", server.url, "--ask-key"]) == 0
    told = capsys.readouterr()
    assert "4,096 tokens" in told.out
    assert "is remote" in told.err
    assert KEY not in told.out + told.err
    assert run(["ls"]) == 0
    assert f"remote: {server.url}" in capsys.readouterr().out
    assert run(["run", "far", "Hello!"]) == 0
    spoken = capsys.readouterr()
    assert "Hello, 世界" in spoken.out
    assert f"what you write is sent to {host}" in " ".join(spoken.err.split())
    assert server.requests[-1][1]["Authorization"] == f"Bearer {KEY}"
    assert run(["show", "far", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upstream"] == server.url
    for wrong in (
        ["add", "x", "--model", "big"],
        ["add", "x", "--name", "y", "--upstream", server.url],
        ["add", "x", "--upstream", "nonsense"],
        ["add", "x", "--upstream", server.url, "--ask-key", "--key-env", "A"],
        ["fit", "far"],
    ):
        assert run(wrong) == 2
    capsys.readouterr()


@contextlib.contextmanager
def served(service: Service) -> Iterator[str]:
    """Its address, for as long as the block lasts."""
    local = LocalServer(service)
    thread = threading.Thread(target=lambda: local.run(sockets=[local.socket]), daemon=True)
    thread.start()
    until(lambda: local.started)
    try:
        yield local.url
    finally:
        local.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def through(server: FakeServer, service: Service) -> Iterator[openai.OpenAI]:
    """The official client, our server, and behind it the fake one."""
    service.models.add_upstream("far", server.url)
    with served(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_gets_thoughts_calls_and_usage_through_us(
    server: FakeServer, through: openai.OpenAI
) -> None:
    listed = {model.id: model for model in through.models.list()}
    assert listed["far"].owned_by.startswith("upstream 127.0.0.1")
    call = {"index": 0, "id": "call_a", "function": {"name": "weather", "arguments": "{}"}}
    server.answers = [
        saying(delta(reasoning_content="Hm."), delta(content="Let me see."), delta(tool_calls=[call]),
               delta(finish_reason="tool_calls"), usage(30, 8))
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    asked = {"model": "far", "messages": [{"role": "user", "content": "Weather?"}], "tools": tools}
    whole = through.chat.completions.create(**asked)  # type: ignore[call-overload]
    message = whole.choices[0].message
    assert (message.content, message.reasoning_content) == ("Let me see.", "Hm.")
    assert message.tool_calls[0].function.name == "weather"
    assert (whole.choices[0].finish_reason, whole.usage.total_tokens) == ("tool_calls", 38)
    assert whole.context["counted_by"] == "upstream"
    chunks = list(through.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    thoughts = [getattr(c.choices[0].delta, "reasoning_content", None) for c in chunks if c.choices]
    assert "Hm." in thoughts
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Let me see."


def test_refusals_and_hanging_up_go_through_us(server: FakeServer, through: openai.OpenAI) -> None:
    asked = {"model": "far", "messages": [{"role": "user", "content": "Hello!"}]}
    server.answers = [refusing(429, {"error": {"message": "Slow down"}}, Retry_After="3")]
    with pytest.raises(openai.APIStatusError) as caught:
        through.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "3")
    server.answers = [refusing(401, {"error": {"message": "No"}})]
    with pytest.raises(openai.APIStatusError) as caught:
        through.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert caught.value.status_code == 502
    server.answers = [endless]
    stream = through.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    for chunk, _ in zip(stream, range(3), strict=False):
        assert chunk
    stream.close()
    assert server.hung_up.wait(10)
    server.answers = [HELLO]
    assert through.chat.completions.create(**asked).choices[0].message.content  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def stories(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model as a GGUF."""
    folder = tmp_path_factory.mktemp("stories")
    for name in ("stories260K.bin", "tok512.bin"):
        shutil.copy(shared(f"data/models/{name}"), folder)
    quantize(open_source(folder / "stories260K.bin"), level("f32"), folder / "stories.gguf")
    return folder / "stories.gguf"


GREEDY = ["--temperature", "0", "--max-tokens", "24", "--json", "--raw"]


def test_our_own_server_continues_as_the_model_does_here(
    stories: Path, tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Service(tmp_path / "there", Settings(port=0), Rooms())
    there.models.add(stories, "stories")
    with served(there) as url:
        service.models.add_upstream("far", f"{url}/v1", model="stories")
        assert service.models.info("far").context_length == 512
        assert run(["run", str(stories), "Once upon a time", *GREEDY]) == 0
        here = json.loads(capsys.readouterr().out)
        assert run(["run", "far", "Once upon a time", *GREEDY]) == 0
        far = json.loads(capsys.readouterr().out)
    there.close()
    assert far["text"] == here["text"]
    assert far["usage"]["prompt_tokens"] == here["usage"]["prompt_tokens"]


def test_llama_cpps_server_continues_as_the_model_does_here(
    stories: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_predict, params.warmup = str(stories), 512, 64, False
    params.n_parallel, params.cpuparams.n_threads, params.port = 1, 2, 0
    peer = xllamacpp.Server(params)
    service.models.add_upstream("far", f"{peer.listening_address}/v1")
    info = service.models.info("far")
    assert (info.format, info.context_length) == ("llamacpp", 512)
    with service.models.use("far") as llm:
        assert llm.count_tokens("Once upon a time") == 4
    assert run(["run", str(stories), "Once upon a time", *GREEDY]) == 0
    here = json.loads(capsys.readouterr().out)
    assert run(["run", "far", "Once upon a time", *GREEDY]) == 0
    far = json.loads(capsys.readouterr().out)
    assert far["text"] == here["text"]
    assert far["usage"] == {**far["usage"], "prompt_tokens": 5, "completion_tokens": 24}
