"""Models by name: which there are, what each is, and the loaded ones, lent out in turn.

Given the home folder. A model is linked by name in models.json (never copied), or simply lies in
HOME/models/; or it runs on another server (upstreams.py). A request asks with `use`; requests are served
first come, first served, so that a busy model starves no other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quinze.errors import (
    ConflictError,
    FileFormatError,
    InvalidRequestError,
    ModelNotFoundError,
    QuinzeError,
)
from quinze.service.adapter_models import base_written, describe_adapter, is_adapter, parted
from quinze.service.model_info import ModelInfo as ModelInfo
from quinze.service.model_links import Links
from quinze.service.model_paths import (
    Stamp,
    absolute,
    exists,
    first_part,
    looks_like_path,
    name_of,
    stamp_of,
)
from quinze.service.names import valid_name
from quinze.service.rooms import Rooms
from quinze.service.settings import Settings
from quinze.service.turns import Turns
from quinze.service.upstreams import Keys, UpstreamLink, look_at, taken, upstream_info

if TYPE_CHECKING:
    from quinze.llm.llm import LLM
    from quinze.llm.model import LanguageModel

FILE_NAME = "models.json"
FOLDER = "models"


class Registry:
    def __init__(self, home: Path, settings: Settings, rooms: Rooms) -> None:
        self._links, self._folder = Links(home / FILE_NAME), home / FOLDER
        self._settings, self._rooms = settings, rooms
        self._keys = Keys(home, rooms.secret)
        self._lock = threading.RLock()
        self._described: dict[Path, tuple[Stamp, ModelInfo]] = {}
        self._turns: Turns[LLM] = Turns(
            lambda path: rooms.load_llm(
                path,
                context_length=settings.context_length,
                threads=settings.threads,
                context_overflow=settings.context_overflow,
                pack_weights=settings.pack_weights,
                kv_cache_type=settings.kv_cache_type,
                kv_cache_bytes=settings.kv_cache_bytes or _kv_budget(path),
                prefix_cache_bytes=settings.prefix_cache_bytes,
                speculation=settings.speculation,
                device=settings.device,
            ),
            most_loaded=settings.max_loaded_models,
            most_users=settings.max_generations,
            most_waiting=settings.max_waiting,
            unload_after=settings.unload_after,
        )

    # --- which there are

    def names(self) -> list[str]:
        return sorted({*self._paths(), *self._links.upstreams()})

    def info(self, name_or_path: str | Path) -> ModelInfo:
        """Of one model; a broken one raises nothing, its `error` tells.

        ModelNotFoundError when there is none.
        """
        if (link := self._links.upstreams().get(str(name_or_path))) is not None:
            return upstream_info(str(name_or_path), link)
        name, path = self._resolve(name_or_path)
        return self._info(name, path)

    def path_of(self, name_or_path: str | Path) -> Path:
        """Where its file lies. InvalidRequestError for one that runs on another server."""
        if (link := self._links.upstreams().get(str(name_or_path))) is not None:
            raise InvalidRequestError(
                f"{name_or_path} runs at {link.upstream}: there is no file of it here.", param="model"
            )
        return self._resolve(name_or_path)[1]

    def base_of(self, name_or_path: str | Path) -> Path | None:
        """Of an adapter: the file of the model that it runs on; None for a whole model."""
        return self._base_of(str(name_or_path), self.path_of(name_or_path))

    def require(self, name: str) -> str:
        """`name` if a model bears it. What comes over a wire must be one: paths are for this machine."""
        paths = self._paths()
        if name not in paths and name not in self._links.upstreams() and parted(name, set(paths)) is None:
            raise self._unknown(name)
        return name

    def loaded(self) -> list[str]:
        """Names of the models in memory now."""
        in_memory = self._turns.loaded()
        return [name for name, path in sorted(self._paths().items()) if path in in_memory]

    def devices(self) -> dict[str, str]:
        """Name of each model in memory -> where it runs: "cpu" or "cuda"."""
        held = {name: self._turns.held(path) for name, path in sorted(self._paths().items())}
        return {name: llm.device for name, llm in held.items() if llm is not None}

    def list(self) -> list[ModelInfo]:
        """Those of this machine first."""
        here = [self._info(name, path) for name, path in sorted(self._paths().items())]
        elsewhere = [upstream_info(name, link) for name, link in sorted(self._links.upstreams().items())]
        return [*here, *elsewhere]

    def default(self) -> str | None:
        """The setting `default_model`; else the first model that can chat; else the first that is
        whole; else None. One on another server only by the setting: nothing leaves this machine unasked."""
        chosen = self._settings.default_model
        if chosen and chosen in self._links.upstreams():
            return chosen
        if chosen:
            path = absolute(chosen)
            return next((name for name, known in self._paths().items() if known == path), chosen)
        whole = [model for model in self.list() if not model.error and not model.upstream]
        able = [model for model in whole if model.can_chat] or whole
        return able[0].name if able else None

    # --- links

    def add(self, path: str | Path, name: str | None = None, *, base: str | None = None) -> ModelInfo:
        """Link the model at `path` by `name` (its file's name when none is given).

        It is checked first, not copied. `base`: name or path of the model that an adapter runs on, where its
        own config does not say.
        """
        path = absolute(path)
        if exists(path):
            path = first_part(path)
        else:
            raise ModelNotFoundError(
                f"There is no file or folder {path}.", hint="Check the path.", param="path"
            )
        name = valid_name(name if name is not None else name_of(path), of="model")
        entry = {"path": str(path)}
        if base is not None and not is_adapter(path):
            raise InvalidRequestError(f"{path.name} is a whole model: it runs on no other.", param="base")
        if base is not None:
            found = self._adapter_info(name, path, self._resolve(base)[1])
            entry["base"] = base if base in self._paths() else str(absolute(base))
        else:
            found = self._info(name, path)
        if found.error:
            raise FileFormatError(found.error, param="path")
        with self._links.editing():
            known = self._paths().get(name)
            if (known is not None and known != path) or name in self._links.upstreams():
                raise taken(name)
            self._links.write({**self._links.entries(), name: entry})
        return found

    def add_upstream(
        self,
        name: str,
        address: str,
        *,
        model: str | None = None,
        key_env: str | None = None,
        key: str | None = None,
        context_length: int | None = None,
    ) -> ModelInfo:
        """Know a model on another server by `name`. The server is asked at once (upstreams.look_at).

        model    the server's name for it; None: its only one
        key_env  variable of the environment that holds its key; `key`: to be kept in HOME/keys.json instead
        """
        name = valid_name(name, of="model")
        if name in self._paths():
            raise taken(name)
        asked = UpstreamLink(address, model or "", 0, key_env=key_env)
        upstream = self._rooms.upstream(
            address, key or self._keys.of(name, asked), self._settings.upstream_timeout
        )
        link = msgspec.structs.replace(
            look_at(upstream, model=model, context_length=context_length), key_env=key_env
        )
        with self._links.editing():
            if key is not None or key_env is not None:
                self._keys.keep(name, key)
            self._links.write({**self._links.entries(), name: msgspec.to_builtins(link)})
        return upstream_info(name, link)

    def remove(self, name: str) -> None:
        """Forget the link. The model's own file is never touched."""
        with self._links.editing():
            links = self._links.paths()
            if name in self._links.upstreams():
                self._keys.keep(name, None)
                self._links.write(
                    {other: entry for other, entry in self._links.entries().items() if other != name}
                )
                return
            if name not in links:
                path = self._resolve(name)[1]
                raise ConflictError(
                    f"The model {name!r} is no link; it lies at {path}.",
                    hint="Quinze deletes no model: move or delete the file yourself.",
                    param="name",
                )
            path = links.pop(name)
            self._links.write(
                {other: entry for other, entry in self._links.entries().items() if other != name}
            )
            self._described.pop(path, None)
        self._turns.unload(path)
        self._rooms.forget_model(path)

    # --- use

    @contextlib.contextmanager
    def use(
        self, name_or_path: str | Path, *, cancel: threading.Event | None = None
    ) -> Iterator[LanguageModel]:
        """The model, loaded if it is not yet, for as long as the block lasts.

        Waits its turn; BusyError when too many do. One on another server waits for nobody here.
        """
        if (link := self._links.upstreams().get(str(name_or_path))) is not None:
            yield self._elsewhere(str(name_or_path), link, cancel)
            return
        path = self.path_of(name_or_path)
        base = self._base_of(str(name_or_path), path)
        lent = path if base is None else base
        with self._turns.use(lent, stamp_of(lent), cancel) as llm:
            yield llm if base is None else llm.adapted(path, str(name_or_path))

    def waiting(self) -> int:
        return self._turns.waiting()

    def close(self) -> None:
        self._turns.close()

    # --- inside

    def _paths(self) -> dict[str, Path]:
        """Name -> path: what lies in HOME/models/, and over it the links."""
        found: dict[str, Path] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                if path.name.startswith("."):
                    continue
                if path.is_dir() or path.suffix.lower() == ".gguf":
                    with contextlib.suppress(InvalidRequestError):
                        found.setdefault(valid_name(name_of(path), of="model"), path.absolute())
        found |= self._links.paths()
        # A default given by its path is a model like the others, by its file's name.
        chosen = self._settings.default_model
        if chosen and chosen not in found and looks_like_path(chosen) and exists(absolute(chosen)):
            found.setdefault(name_of(absolute(chosen)), absolute(chosen))
        return found

    def _elsewhere(self, name: str, link: UpstreamLink, cancel: threading.Event | None) -> LanguageModel:
        upstream = self._rooms.upstream(
            link.upstream, self._keys.of(name, link), self._settings.upstream_timeout
        )
        return self._rooms.upstream_llm(
            name, upstream, model=link.model, context_length=link.context_length, kind=link.kind,
            context_overflow=self._settings.context_overflow, cancel=cancel,
        )  # fmt: skip

    def _resolve(self, name_or_path: str | Path) -> tuple[str, Path]:
        """A name first; else something that exists and looks like a path."""
        given = str(name_or_path)
        paths = self._paths()
        if isinstance(name_or_path, str) and given in paths:
            return given, paths[given]
        if (pair := parted(given, set(paths))) is not None:
            return given, paths[pair[1]]
        if (
            "\x00" not in given
            and given.strip()
            and (isinstance(name_or_path, Path) or looks_like_path(given))
        ):
            path = absolute(given)
            if exists(path):
                path = first_part(path)
                return next((name for name, known in paths.items() if known == path), str(path)), path
        raise self._unknown(given)

    def _unknown(self, given: str) -> ModelNotFoundError:
        known = ", ".join(self.names()[:20])
        return ModelNotFoundError(
            f"There is no model {given[:200]!r}.",
            hint=f"Known are {known}." if known else "Link one: quinze add PATH",
            param="model",
        )

    def _base_of(self, name: str, path: Path) -> Path | None:
        """Of an adapter: the model named before the +, the linked one, or the one in its own config."""
        if not is_adapter(path):
            return None
        pair = parted(name, set(self._paths()))
        entries = self._links.entries().values()
        linked = (str(e["base"]) for e in entries if e.get("path") == str(path) and e.get("base"))
        named = pair[0] if pair else next(linked, None)
        found = self._resolve(named)[1] if named is not None else base_written(path)
        if found is None or is_adapter(found):
            raise InvalidRequestError(
                f"{path.name} is an adapter, and nothing says on which model it runs.",
                hint="Say it: quinze add ADAPTER --base MODEL; or ask for MODEL+ADAPTER.",
                param="base",
            )
        return found

    def _info(self, name: str, path: Path) -> ModelInfo:
        llm, packed = self._turns.held(path), self._rooms.packed_bytes(path)
        stamp = stamp_of(path)
        if is_adapter(path):
            return self._adapter_info(name, path)
        with self._lock:
            known = self._described.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, self._describe(path))
            with self._lock:
                self._described[path] = known
        return msgspec.structs.replace(
            known[1],
            name=name,
            loaded=llm is not None,
            device="" if llm is None else llm.device,
            packed_bytes=packed,
        )

    def _adapter_info(self, name: str, path: Path, base: Path | None = None) -> ModelInfo:
        try:
            found = base or self._base_of(name, path)
            assert found is not None
            on = self._info(next((n for n, p in self._paths().items() if p == found), str(found)), found)
            if on.error:
                return ModelInfo(name=name, path=str(path), base=on.name, error=on.error)
            return ModelInfo(
                name=name, path=str(path), loaded=on.loaded, device=on.device, **describe_adapter(path, on)
            )
        except QuinzeError as error:
            return ModelInfo(name=name, path=str(path), format="adapter", error=str(error))

    def _describe(self, path: Path) -> ModelInfo:
        if not path.exists():
            return ModelInfo(name="", path=str(path), error=f"{path} is no longer there.")
        try:
            return ModelInfo(name="", path=str(path), **self._rooms.describe_model(path))
        except QuinzeError as error:
            return ModelInfo(name="", path=str(path), error=str(error))
        except OSError as error:
            return ModelInfo(
                name="", path=str(path), error=f"{path} cannot be read: {error.strerror or error}."
            )


def _kv_budget(path: Path) -> int | None:
    """Memory for the keys and values of a model: of what is free, what its weights leave, less a tenth."""
    from quinze.service.fit import free_memory

    free = free_memory()
    return max(free * 9 // 10 - stamp_of(path)[1], free // 8) or None


def created_at(info: ModelInfo) -> int:
    """Unix time at which the model's file was last written (OpenAI's `created`)."""
    return stamp_of(Path(info.path))[0] // 10**9 or int(time.time())
