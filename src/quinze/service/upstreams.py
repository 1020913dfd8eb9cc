"""Models on other servers: what is kept of them, how a server is looked at, and where its key is.

In models.json beside the links: {"big": {"upstream": "http://gpu:8000/v1", "model": "Qwen/Qwen3-32B",
"context_length": 32768, "kind": "vllm", "key_env": "VLLM_KEY"}}. The key itself is in that variable of the
environment, or in HOME/keys.json, which only its owner may read; it goes to that address and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quinze.errors import ConflictError, InvalidRequestError, ModelNotFoundError, QuinzeError, StorageError
from quinze.paths import atomic_write
from quinze.service.model_info import ModelInfo

if TYPE_CHECKING:
    from quinze.hub.upstream import Upstream

KEYS = "keys.json"
_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "library": "ollama",
    "openai": "openai",
    "system": "openai",
    "quinze": "quinze",
}
"""`owned_by` of a server's models, and the kind of server that says so."""


class UpstreamLink(msgspec.Struct, frozen=True):
    """A model on another server, as it is kept."""

    upstream: str
    model: str
    context_length: int
    kind: str = ""
    key_env: str | None = None
    """Variable that holds the key."""


def upstream_info(name: str, link: UpstreamLink) -> ModelInfo:
    """What is known of a model on another server."""
    return ModelInfo(
        name=name, path=link.upstream, format=link.kind or "openai", architecture=link.model,
        context_length=link.context_length, can_chat=True, upstream=link.upstream,
    )  # fmt: skip


def taken(name: str) -> ConflictError:
    """A model of this name is known already."""
    return ConflictError(
        f"There is already a model named {name!r}.",
        hint="Give another name, or remove the other one first.",
        param="name",
    )


class Keys:
    """The keys that a person had kept for servers by the names of their models."""

    def __init__(self, home: Path, secret: Callable[[str], str | None]) -> None:
        """secret: the value of a variable of the environment."""
        self._path, self._secret = home / KEYS, secret

    def of(self, name: str, link: UpstreamLink) -> str | None:
        """InvalidRequestError where a variable is named and empty."""
        if link.key_env is not None:
            found = self._secret(link.key_env)
            if not found:
                raise InvalidRequestError(
                    f"The key of {name!r} is to be in the variable {link.key_env}, which is empty.",
                    hint=f"export {link.key_env}=...",
                    param="key_env",
                )
            return found
        return self._kept().get(name)

    def keep(self, name: str, key: str | None) -> None:
        """None: forget it."""
        kept = self._kept()
        if kept.get(name) == key:
            return
        changed = {other: value for other, value in kept.items() if other != name}
        if key is not None:
            changed[name] = key
        try:
            with atomic_write(self._path) as file:
                os.fchmod(file.fileno(), stat.S_IRUSR | stat.S_IWUSR)
                file.write(msgspec.json.format(msgspec.json.encode(changed), indent=2))
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}.") from error

    def _kept(self) -> dict[str, str]:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise StorageError(f"{self._path} can be read by others.", hint=f"chmod 600 {self._path}")
                return msgspec.json.decode(file.read(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Not what it says: that would print keys.
            raise StorageError(
                f"{self._path} cannot be read.", hint='It holds {"NAME": "key"}; mend or delete it.'
            ) from error


def look_at(
    upstream: Upstream, *, model: str | None = None, context_length: int | None = None
) -> UpstreamLink:
    """What the server tells of a model: the named one, or the only one that it has.

    UpstreamError where it cannot be reached or understood, ModelNotFoundError for a model that it has not,
    InvalidRequestError where the context's length is neither told nor given.
    """
    told = upstream.get("/models")
    listed = told.get("data") if isinstance(told, dict) else None
    models = [m for m in listed or [] if isinstance(m, dict) and isinstance(m.get("id"), str)]
    names = [str(entry["id"]) for entry in models]
    chosen = next((entry for entry in models if entry["id"] == model), None)
    if model is None and len(models) == 1:
        chosen = models[0]
    if chosen is None:
        shown = ", ".join(names[:20]) or "none"
        if model is None:
            raise InvalidRequestError(
                f"{upstream.server} has {len(models)} models.", hint=f"Choose one with --model: {shown}.",
                param="model",
            )  # fmt: skip
        raise ModelNotFoundError(
            f"{upstream.server} has no model {model[:200]!r}.", hint=f"It has: {shown}.", param="model"
        )
    kind = _OWNERS.get(str(chosen.get("owned_by")), "")
    length = context_length or _context_length(upstream, chosen)
    if length is None:
        raise InvalidRequestError(
            f"{upstream.server} does not tell how long the context of {chosen['id']} is.",
            hint="Give it: --context-length 32768. With Ollama it is num_ctx, 4096 unless you changed it.",
            param="context_length",
        )
    return UpstreamLink(upstream.address, str(chosen["id"]), length, kind)


def _context_length(upstream: Upstream, entry: Mapping[str, Any]) -> int | None:
    """vLLM, SGLang and Quinze state it in the list, llama.cpp among its properties."""
    found: Any = entry.get("max_model_len") or entry.get("context_length") or entry.get("context_window")
    if found is None and entry.get("owned_by") == "llamacpp":
        with contextlib.suppress(QuinzeError):
            told = upstream.get("/props", root=True)
            settings = told.get("default_generation_settings") if isinstance(told, dict) else None
            found = settings.get("n_ctx") if isinstance(settings, dict) else None
    return found if type(found) is int and 0 < found < 2**31 else None
