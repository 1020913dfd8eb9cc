"""Fit as a person meets it: a verdict in words, a shorter context or a smaller form where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quinze.cli.main import run
from quinze.errors import InvalidRequestError, ModelNotFoundError
from quinze.service import fit as room
from quinze.service.fit import Fit, fit, free_memory
from quinze.service.service import Service
from quinze.service.settings import Settings


@pytest.fixture
def stories(shared: Callable[[str], Path]) -> Path:
    """260,032 parameters in float32 with a context of 512."""
    return shared("data/models/stories260K.bin")


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    found = Service(home, Settings(threads=1))
    yield found
    found.close()


@pytest.fixture
def asked(service: Service, stories: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    """`asked(5_000_000, context=100)`: with so many bytes free."""

    def ask(free: int, context: int | None = None) -> Fit:
        monkeypatch.setattr(room, "free_memory", lambda: free)
        return fit(service, stories, context=context, with_speed=False)

    return ask


def test_a_small_model_fits_and_says_so(asked: Callable[..., Fit]) -> None:
    found = asked(8 * 10**9)
    assert (found.verdict, found.alternative) == ("fits", None)
    assert "It fits" in found.words
    assert "of 8.0 GB free with a context of 512 tokens" in found.words
    assert (found.parameters.total, found.context, found.largest_context) == (260_032, 512, 512)
    assert found.bits_per_weight == 32
    assert found.memory.total == sum(
        (found.memory.weights, found.memory.kv_cache, found.memory.activations, found.memory.tokenizer)
    )


def test_where_only_a_shorter_context_fits_its_length_is_told(asked: Callable[..., Fit]) -> None:
    whole = asked(8 * 10**9).memory.total
    found = asked(int(whole / 0.95) - 100_000)
    assert found.verdict == "shorter_context"
    assert 0 < found.largest_context < 512
    assert f"up to {found.largest_context:,} tokens" in found.words
    assert asked(int(whole / 0.95) - 100_000, context=found.largest_context).verdict == "fits"


def test_what_is_too_large_is_refused_and_a_smaller_form_proposed(asked: Callable[..., Fit]) -> None:
    found = asked(100_000)
    assert (found.verdict, found.largest_context) == ("too_large", 0)
    assert found.alternative is not None
    assert (found.alternative.level, found.alternative.fits) == ("q4_0", False)
    assert "does not fit" in found.words


def test_the_largest_form_that_fits_is_proposed_with_the_size_that_quantize_gives(
    asked: Callable[..., Fit], stories: Path, tmp_path: Path
) -> None:
    whole = asked(8 * 10**9).memory
    smaller = asked(int((whole.total - 300_000) / 0.95)).alternative
    assert smaller is not None
    assert smaller.fits
    assert smaller.level == "q8_0"
    assert run(["quantize", str(stories), "q8_0", "-o", str(tmp_path / "small.gguf")]) == 0
    assert smaller.bytes == pytest.approx((tmp_path / "small.gguf").stat().st_size, rel=0.05)


def test_a_context_that_the_model_has_not_is_refused(asked: Callable[..., Fit]) -> None:
    with pytest.raises(InvalidRequestError, match="at most 512"):
        asked(10**9, context=513)


def test_a_model_that_is_not_there_is_named(service: Service) -> None:
    with pytest.raises(ModelNotFoundError):
        fit(service, "nothing")


def test_the_machine_is_measured_once_and_remembered(
    service: Service, stories: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(service, stories)
    assert first.speed is not None
    assert min(first.speed.prefill, first.speed.decode, first.speed.decode_full) > 0
    assert "tokens a second, measured on this machine" in first.words
    kept = (home / "machine.json").read_bytes()
    again = fit(service, stories)
    assert (again.speed, (home / "machine.json").read_bytes()) == (first.speed, kept)
    (home / "machine.json").write_bytes(b"{broken")
    assert fit(service, stories).speed is not None


def test_the_free_memory_of_a_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:   8000000 kB\n")
    assert free_memory(meminfo, tmp_path) == 8_192_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(meminfo, tmp_path) == 8_192_000_000
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.current").write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000000\nactive_file 1\n")
    assert free_memory(meminfo, tmp_path) == 1_500_000_001


def test_the_command_tells_it_and_json_holds_all_of_it(
    stories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", str(stories), "--no-speed"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("It fits")
    assert "260,032" in out
    assert run(["fit", str(stories), "--no-speed", "--context", "64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["context"], told["verdict"], told["speed"]) == (64, "fits", None)
    assert set(told["memory"]) == {"weights", "kv_cache", "activations", "tokenizer", "total"}
