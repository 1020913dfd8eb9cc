"""Pulling: from the name of a repository on a model hub to a model in HOME/models/.

Given what a person writes, hf.co/ORG/NAME:Q4_K_M; chooses the files, sees whether the disk holds them, and
brings them here. They gather in HOME/models/.incoming/ and appear under their name when all are whole; what a
stopped pull has brought is taken up by the next. Only GGUF, safetensors and texts: never a pickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quinze.errors import BusyError, ConflictError, InvalidRequestError, NotFoundError, StorageError
from quinze.hub.hub import Hub, Kind, Stopped
from quinze.hub.part import RemoteFile
from quinze.paths import sync_folder
from quinze.service.names import valid_name

DEFAULT_QUANT = "Q4_K_M"
PREFERRED = (
    DEFAULT_QUANT, "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q8_0",
    "BF16", "F16", "F32",
)  # fmt: skip
"""What is taken where no quant is asked for: the first of these that there is. The engine runs them all."""
FOLDER, INCOMING = "models", ".incoming"
DISK_RESERVE = 64 * 2**20
"""Bytes of the disk that a pull leaves free."""
SPEED_WINDOW = 10.0
"""Seconds over which the speed is taken."""

_HOSTS: dict[str, Kind] = {
    "hf.co": "huggingface", "huggingface.co": "huggingface", "modelscope.cn": "modelscope",
    "www.modelscope.cn": "modelscope",
}  # fmt: skip
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(I?Q[1-9](?:_[0-9A-Za-z]+)*|BF16|F?P?16|F32|MXFP4)(?![A-Za-z0-9])", re.I
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_BESIDE = frozenset(
    ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
     "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
     "model.safetensors.index.json", "LICENSE", "LICENSE.txt", "LICENSE.md")
)  # fmt: skip
"""What is taken along with a folder's weights."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What is to be pulled."""

    kind: Kind
    repository: str
    quant: str
    """A quant, or the name of a GGUF file; "" where none is asked for."""


class PullProgress(msgspec.Struct, frozen=True):
    """How far a pull is."""

    file: str
    done: int
    total: int
    bytes_per_second: float
    seconds_left: float | None
    """None while nothing can be said."""


class Pulled(msgspec.Struct, frozen=True):
    """What is here now."""

    name: str
    path: str
    repository: str
    quantization: str
    files: list[str]
    bytes: int
    verified: int
    """How many of the files were checked against a sha256 that the hub states; the others by their size."""
    seconds: float
    already: bool
    """It was here before; nothing was pulled."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Files that make one model."""

    name: str
    quant: str
    files: Sequence[RemoteFile]
    folder: bool


def read_reference(text: str) -> Reference:
    """
    >>> read_reference("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:q8_0").quant
    'q8_0'
    """
    plain = re.sub(r"^https?://", "", text.strip()).rstrip("/")
    head, _, rest = plain.partition("/")
    kind: Kind = "huggingface"
    if head.lower() in _HOSTS:
        kind = _HOSTS[head.lower()]
        plain = rest.removeprefix("models/") if kind == "modelscope" else rest
    repository, _, quant = plain.partition(":")
    parts = repository.split("/")
    right = len(parts) == 2 and all(_PART.fullmatch(part) and ".." not in part for part in parts)
    if not right or not re.fullmatch(r"[\w.-]{0,200}", quant):
        raise InvalidRequestError(
            f"{text[:200]!r} is no repository of a model hub.",
            hint="Write hf.co/ORG/NAME, hf.co/ORG/NAME:Q4_K_M or modelscope.cn/ORG/NAME.",
            param="model",
        )
    return Reference(kind, repository, quant)


def choose(reference: Reference, files: Sequence[RemoteFile]) -> Choice:
    """Which of a repository's files make the model that is asked for."""
    models = _gguf_models(files)
    if models:
        return _one_gguf(reference, models)
    if reference.quant:
        raise NotFoundError(
            f"{reference.repository} has no GGUF files, so none of {reference.quant}.",
            hint="Pull it without a quant, then: quinze quantize NAME q4_k_m",
            param="model",
        )
    return _whole_folder(reference, files)


def _gguf_models(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Stem without the number of a part -> its files, in order."""
    found: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = file.path.rpartition("/")[2]
        if name.lower().endswith(".gguf") and not re.search(r"mmproj|imatrix", name, re.I):
            found.setdefault(_SHARD.sub("", name[:-5]), []).append(file)
    return found


def _quant_of(stem: str) -> str:
    found = _QUANT.findall(stem)
    return found[-1].upper().replace("FP16", "F16") if found else ""


def _one_gguf(reference: Reference, models: dict[str, list[RemoteFile]]) -> Choice:
    asked = reference.quant
    stem = asked[:-5] if asked.lower().endswith(".gguf") else asked
    if stem not in models:
        by_quant: dict[str, list[str]] = {}
        for name in models:
            by_quant.setdefault(_quant_of(name), []).append(name)
        wanted = [_alias(asked)] if asked else [*PREFERRED, *by_quant]
        quant = next((quant for quant in wanted if quant in by_quant), None)
        there = ", ".join(
            f"{_quant_of(name) or name} ({sum(file.size for file in parts) / 1e9:.2f} GB)"
            for name, parts in sorted(models.items(), key=lambda item: sum(f.size for f in item[1]))
        )
        if quant is None:
            raise NotFoundError(
                f"{reference.repository} has no {asked}.", hint=f"It has {there}.", param="model"
            )
        if len(by_quant[quant]) > 1:
            raise InvalidRequestError(
                f"{reference.repository} has {len(by_quant[quant])} models in {quant or 'GGUF'}.",
                hint=f"Name one: {reference.repository}:{by_quant[quant][0]}. "
                f"There are {', '.join(by_quant[quant][:8])}.",
                param="model",
            )
        stem = by_quant[quant][0]
    parts = models[stem]
    _check_parts(reference, stem, parts)
    return Choice(stem, _quant_of(stem), parts, folder=len(parts) > 1)


def _alias(quant: str) -> str:
    quant = quant.upper()
    return {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16"}.get(quant, quant)


def _check_parts(reference: Reference, stem: str, parts: Sequence[RemoteFile]) -> None:
    numbers = [_SHARD.search(file.path[:-5]) for file in parts]
    if len(parts) == 1 and numbers[0] is None:
        return
    there = [int(number[1]) for number in numbers if number]
    totals = {int(number[2]) for number in numbers if number}
    if len(there) != len(parts) or len(totals) != 1 or there != list(range(1, totals.pop() + 1)):
        raise NotFoundError(
            f"{stem} in {reference.repository} is not whole: parts of it are missing, or there twice.",
            hint="Choose another quant.",
            param="model",
        )


def _whole_folder(reference: Reference, files: Sequence[RemoteFile]) -> Choice:
    top = {file.path: file for file in files if "/" not in file.path}
    shards = [file for name, file in top.items() if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)]
    single = [top["model.safetensors"]] if "model.safetensors" in top else []
    weights = single or shards
    if not weights or "config.json" not in top:
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in top)
        raise NotFoundError(
            f"{reference.repository} holds no model that Quinze runs: neither GGUF nor safetensors"
            + (" with a config.json." if weights else ", only pickles." if pickled else "."),
            hint="Opening a pickle runs its author's code. Look for a GGUF version of the model."
            if pickled
            else "Look for a repository of the same model whose name ends in -GGUF.",
            param="model",
        )
    chosen = [file for name, file in sorted(top.items()) if name in _BESIDE]
    if single:
        chosen = [file for file in chosen if file.path != "model.safetensors.index.json"]
    return Choice(reference.repository.rpartition("/")[2], "", [*chosen, *weights], folder=True)


def pull(
    home: Path,
    hub: Hub,
    reference: Reference,
    *,
    name: str | None = None,
    progress: Callable[[PullProgress], None] = lambda _: None,
    cancel: threading.Event | None = None,
) -> Pulled | None:
    """The model in HOME/models/; None when it was cancelled: the next pull goes on where this one stopped."""
    began = time.monotonic()
    stop = cancel or threading.Event()
    try:
        choice = choose(reference, hub.files(reference.repository, stop))
    except Stopped:
        return None
    called = valid_name(name or choice.name, of="model")
    models = home / FOLDER
    target = models / (called if choice.folder else f"{called}.gguf")
    total = sum(file.size for file in choice.files)

    def pulled(already: bool) -> Pulled:
        return Pulled(
            name=called, path=str(target), repository=reference.repository, quantization=choice.quant,
            files=[_local(file) for file in choice.files], bytes=total,
            verified=sum(file.sha256 is not None for file in choice.files),
            seconds=time.monotonic() - began, already=already,
        )  # fmt: skip

    if target.exists():
        if _same(target, choice):
            return pulled(True)
        raise ConflictError(
            f"There is already another model at {target}.", hint="Give this one a name: --name.", param="name"
        )
    with _gathering(
        models / INCOMING / f"{reference.repository.replace('/', '--')}--{choice.name}"
    ) as folder:
        _check_disk(folder, choice.files)
        meter = _Meter(total, progress)
        for file in choice.files:
            to = folder / _local(file)
            if to.exists() and file.sha256 and _sha256(to) == file.sha256:
                meter.passed(file)
                continue
            if not hub.download(file, to, progress=meter.told(file), cancel=stop):
                return None
            meter.passed(file)
        _publish(folder, choice, target)
    return pulled(False)


def _publish(folder: Path, choice: Choice, target: Path) -> None:
    """Under its name, all at once."""
    try:
        if choice.folder:
            for left in {path.name for path in folder.iterdir()} - {_local(file) for file in choice.files}:
                (folder / left).unlink()
            folder.rename(target)
        else:
            (folder / _local(choice.files[0])).rename(target)
            shutil.rmtree(folder, ignore_errors=True)
        sync_folder(target.parent)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}.") from error


def _local(file: RemoteFile) -> str:
    """The name of a file here: only the last part of its path, and nothing that could lead elsewhere."""
    name = file.path.rpartition("/")[2]
    if not re.fullmatch(r"[\w][\w .+()\[\]-]{0,199}", name):
        raise InvalidRequestError(f"The hub names a file {name[:100]!r}, which Quinze does not take.")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(target: Path, choice: Choice) -> bool:
    try:
        if not choice.folder:
            return target.is_file() and target.stat().st_size == choice.files[0].size
        return all((target / _local(file)).stat().st_size == file.size for file in choice.files)
    except OSError:
        return False


@contextlib.contextmanager
def _gathering(folder: Path) -> Iterator[Path]:
    """The folder where files gather, ours alone while the block lasts."""
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock.open("ab")
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made: {error.strerror or error}.", hint="Is the disk full, or read-only?"
        ) from error
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(
                "The same model is being pulled already.", hint="Wait for that pull, or stop it."
            ) from None
        yield folder
        # Only behind a pull that succeeded: where one was stopped, the lock is found again.
        lock.unlink(missing_ok=True)


def _check_disk(folder: Path, files: Sequence[RemoteFile]) -> None:
    here = sum(path.stat().st_size for path in folder.iterdir() if not path.name.endswith(".json"))
    needed = max(0, sum(file.size for file in files) - here) + DISK_RESERVE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"The pull needs {needed / 1e9:.2f} GB more in {folder.parent.parent}; "
            f"the disk has {free / 1e9:.2f} GB free.",
            hint="Make room, take a smaller quant, or set QUINZE_HOME to another disk.",
        )


class _Meter:
    """Counts bytes over all files, and tells speed and time left a few times a second."""

    def __init__(self, total: int, tell: Callable[[PullProgress], None]) -> None:
        self._total, self._tell = total, tell
        self._before = 0
        self._past: list[tuple[float, int]] = []
        self._told = 0.0

    def told(self, file: RemoteFile) -> Callable[[int], None]:
        return lambda here: self._note(file, self._before + here)

    def passed(self, file: RemoteFile) -> None:
        self._before += file.size
        self._note(file, self._before, final=True)

    def _note(self, file: RemoteFile, done: int, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now - self._told < 0.2:
            return
        self._told = now
        if self._past and done < self._past[-1][1]:
            self._past.clear()  # a file began anew
        self._past.append((now, done))
        while len(self._past) > 2 and now - self._past[0][0] > SPEED_WINDOW:
            self._past.pop(0)
        seconds, come = now - self._past[0][0], done - self._past[0][1]
        speed = come / seconds if seconds > 0 else 0.0
        left = (self._total - done) / speed if speed > 0 else None
        self._tell(PullProgress(file.path, done, self._total, speed, left))
