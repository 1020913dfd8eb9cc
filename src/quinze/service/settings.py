"""Settings: every default of the service, in its one home.

Given the home folder and the environment; a later one wins: the defaults below, `settings.json` in the home,
then QUINZE_<NAME> in the environment (QUINZE_PORT=8080). Both are checked, and a wrong value is named with
its source. Below this file nobody reads the environment.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from quinze.engine.devices import DEFAULT_DEVICE, device_of
from quinze.engine.options import DEFAULT_KV_TYPE, DEFAULT_PREFIX_BYTES, kv_type_of
from quinze.engine.packing import DEFAULT_PACKING, packing_of
from quinze.engine.sampling import speculation_of
from quinze.errors import InvalidRequestError
from quinze.knowledge.defaults import EMBEDDER, SEARCH_RESULTS
from quinze.llm.context import DEFAULT_OVERFLOW
from quinze.llm.overflow import overflow_of

FILE_NAME = "settings.json"
VARIABLE_PREFIX = "QUINZE_"
KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may choose. The line under each one is its documentation."""

    host: str = "127.0.0.1"
    """Address that `quinze serve` listens on. Only loopback addresses: there is no login yet."""
    port: int = 1515
    """Port that `quinze serve` listens on; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that the Host header may carry, beside localhost, 127.0.0.1 and [::1]:
    ["quinze.local:1515"]."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages of other origins that may ask this service: ["http://localhost:5173"].

    They are sent CORS headers.
    """
    max_body_bytes: int = 8 * MIB
    """Largest JSON request."""
    max_upload_bytes: int = 1 * GIB
    """Largest file that may be uploaded."""
    body_timeout: float = 30.0
    """Seconds that a request may pause while it sends its body."""
    ping_seconds: float = 10.0
    """A streamed reply that is silent this long sends a comment, so that nobody on the way hangs up."""
    max_generations: int = 16
    """Requests that may be answered at the same time; a pass over the weights serves all of them."""
    max_waiting: int = 256
    """Requests that may wait for a model; further ones are told to come again (503)."""
    default_model: str | None = None
    """Model that answers questions to documents when none is named."""
    context_length: int | None = None
    """Tokens that a model is loaded with, at most; none: what the model's file states."""
    context_overflow: str = DEFAULT_OVERFLOW
    """What is done with a prompt that does not fit, where a request does not say: "error" refuses it,
    "drop_oldest" leaves whole turns out, "keep_ends" what is in the middle. Each reply tells what it lost."""
    kv_cache_type: str = DEFAULT_KV_TYPE
    """What the keys and values of a context are kept in: "f16", "q8_0" (about half the memory, and hardly
    another answer) or "f32"."""
    kv_cache_bytes: int | None = None
    """Most memory for them, of all replies at once; none: nine tenths of what is free when a model is loaded,
    less its weights. When it is used up the youngest reply waits; it is computed again, in the same words."""
    prefix_cache_bytes: int = DEFAULT_PREFIX_BYTES
    """Of that, for texts that ended: whoever begins alike (a system prompt, a document, the turn before) does
    not compute it again. 0 keeps none."""
    speculation: str = "auto"
    """"auto" guesses what a reply repeats of its context and checks several tokens at once, where that pays;
    the reply stays the same. Or "off"."""
    device: str = DEFAULT_DEVICE
    """Where models run: "cpu"; "cuda", an NVIDIA GPU, by PyTorch (`quinze[train]`); "auto" takes the GPU
    where there is one and the model, two bytes a weight, fits its free memory, and the CPU otherwise."""
    threads: int | None = None
    """Threads of the engine; none: one for each core that the process may use."""
    pack_weights: str = DEFAULT_PACKING
    """Whether the first load of a quantized model leaves a rearranged copy of its weights beside it ("auto"),
    as large as its file, from which it runs faster; `quinze rm` deletes it. With "off" models run from their
    own files."""
    max_loaded_models: int = 1
    """Models kept in memory at the same time; the one unused for longest makes room."""
    unload_after: float = 900.0
    """Seconds after which an unused model leaves memory; 0 keeps it."""
    max_runs: int = 1
    """Training runs that may be under way at the same time when one is started over HTTP or from the page."""
    embedder: str = EMBEDDER
    """What turns passages into vectors when a knowledge base is created: "starter", "hashing",
    the name of an embedding model, or its path."""
    search_results: int = SEARCH_RESULTS
    """Passages that a search returns, and that an answer reads, when no number is given."""
    page_image_width: int = 1200
    """Width in pixels of a rendered page when none is given."""
    page_cache_bytes: int = 256 * MIB
    """Room for rendered pages in the home folder."""
    page_render_timeout: float = 20.0
    """Seconds after which the rendering of one page is killed."""
    upstream_timeout: float = 300.0
    """Seconds that a model's own server (`quinze add --upstream`) may be silent before it is given up."""
    hub_mirror: str | None = None
    """Address that `quinze pull` asks instead of the hub's own: "https://hf-mirror.com"."""

    def __post_init__(self) -> None:
        """Raises InvalidRequestError, naming the setting, for a value out of its range."""
        overflow_of(self.context_overflow)
        packing_of(self.pack_weights)
        kv_type_of(self.kv_cache_type)
        speculation_of(self.speculation)
        device_of(self.device)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InvalidRequestError(
                    f"The setting {name} is {value}; it must lie between {low:g} and {high:g}.", param=name
                )


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("port", 0, 65535),
    ("max_body_bytes", KIB, GIB),
    ("max_upload_bytes", KIB, 1024 * GIB),
    ("body_timeout", 0.05, 3600),
    ("ping_seconds", 0.05, 3600),
    ("max_generations", 1, 1024),
    ("max_waiting", 0, 100_000),
    ("context_length", 8, 2**31 - 1),
    ("kv_cache_bytes", MIB, 2**50),
    ("prefix_cache_bytes", 0, 2**50),
    ("threads", 1, 1024),
    ("max_loaded_models", 1, 64),
    ("unload_after", 0, 10**9),
    ("max_runs", 1, 64),
    ("search_results", 1, 100),
    ("page_image_width", 16, 4096),
    ("page_cache_bytes", 0, 1024 * GIB),
    ("page_render_timeout", 0.1, 3600),
    ("upstream_timeout", 0.1, 86_400),
)


def load_settings(home: Path, environ: Mapping[str, str]) -> Settings:
    """The defaults, over them `settings.json` of the home, over that the environment.

    >>> load_settings(Path("/nowhere"), {"QUINZE_PORT": "8080"}).port
    8080
    """
    chosen = _from_file(home / FILE_NAME) | _from_environment(environ)
    return Settings(**chosen)


def secret(variable: str) -> str | None:
    """A key that somebody put into the environment; read when it is needed, and kept nowhere."""
    return os.environ.get(variable) or None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read: {error}.", hint="Mend the file, or delete it to return to the defaults."
        ) from error
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{path} must hold one JSON object.", hint='An example: {"port": 8080}')
    unknown = sorted(set(found) - set(_TYPES))
    if unknown:
        raise InvalidRequestError(
            f"{path} names settings that do not exist: {', '.join(unknown)}.",
            hint=f"Known are {', '.join(_TYPES)}.",
            param=unknown[0],
        )
    return {name: _convert(name, value, source=str(path), strict=True) for name, value in found.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in _TYPES:
        variable = VARIABLE_PREFIX + name.upper()
        text = environ.get(variable)
        if text is None or not text.strip():
            continue
        value: Any = text.strip()
        if _TYPES[name] == tuple[str, ...]:
            value = [word.strip() for word in value.split(",") if word.strip()]
        chosen[name] = _convert(name, value, source=variable, strict=False)
    return chosen


def _convert(name: str, value: Any, *, source: str, strict: bool) -> Any:
    try:
        return msgspec.convert(value, _TYPES[name], strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(
            f"{source}: {name} cannot be {value!r}; it must be {_in_words(_TYPES[name])}.", param=name
        ) from error


def _in_words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", types.NoneType: "null"}
    if kind == tuple[str, ...]:
        return "a list of texts"
    if isinstance(kind, types.UnionType):
        return " or ".join(words[part] for part in typing.get_args(kind))
    return words[kind]


_TYPES: dict[str, Any] = {
    field.name: typing.get_type_hints(Settings)[field.name] for field in dataclasses.fields(Settings)
}
