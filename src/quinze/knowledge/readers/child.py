"""The process that reads: one file after another, for as long as its parent lives.

It is told what to read over one pipe and answers over another. It may be killed at any moment, keeps
nothing, opens no network connection, and dies with its parent. Started by workers.py:

    python -P -m quinze.knowledge.readers.child REQUESTS REPLIES PARENT MEMORY
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from quinze.errors import DocumentError, EmptyDocumentError, QuinzeError, ReaderLimitError, TooLargeError
from quinze.knowledge.document import Document
from quinze.knowledge.readers import READERS, detect, protocol
from quinze.knowledge.readers.detection import damaged, require_file
from quinze.knowledge.readers.hidden import visible_document
from quinze.knowledge.readers.language import language_of
from quinze.knowledge.readers.report import Report

IDLE_SECONDS = 300
"""A child that has nothing to do for so long goes, and gives its memory back."""
ADDRESS_SPACE_SPARE = 8 << 30
"""onnxruntime and PDFium reserve far more addresses than they use; the parent watches what is really used."""
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    requests, replies, parent, memory = map(int, arguments)
    _settle(parent, memory)
    protocol.write(replies, protocol.Ready())
    decoder = msgspec.msgpack.Decoder(protocol.Request)
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        message = protocol.read(requests)
        if message is None:
            return
        request = decoder.decode(message)
        reply = _answer(request, replies)
        try:
            protocol.write(replies, reply)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            protocol.write(
                replies, _failed(DocumentError(f"{request.name} could not be passed on: {error}."))
            )


def read(request: protocol.Read, report: Report) -> Document:
    path = Path(os.fsdecode(request.path))
    require_file(path, report.name)
    size = path.stat().st_size
    most = request.limits.file_bytes
    if size > most:
        raise ReaderLimitError(
            f"{report.name} has {size / 1e6:,.0f} MB; files of at most {most / 1e6:,.0f} MB are read.",
            hint="Split it, and add the parts.",
        )
    report.format = detect(path, report.name)
    document: Document = _function(READERS[report.format], report.format)(path, report)
    return finish(document, report)


def finish(document: Document, report: Report) -> Document:
    """What holds for every format: nothing invisible, nothing endless, never an empty success."""
    document = visible_document(document)
    kept, room = [], report.limits.text_chars
    for block in document.blocks:
        room -= len(block.text)
        if room < 0:
            report.warn(
                f"Only the first {report.limits.text_chars:,} characters were read; the rest was left out."
            )
            break
        kept.append(block)
    if not kept:
        reasons = "".join(f" {warning}" for warning in (*document.warnings, *report.warnings)[:3])
        raise EmptyDocumentError(
            f"{report.name} was read, but no text was found in it.{reasons}",
            hint="If it shows text when you open it, save it as a PDF or a sharper picture and add that.",
        )
    warnings = dict.fromkeys((*document.warnings, *report.warnings))
    return msgspec.structs.replace(
        document,
        blocks=tuple(kept),
        warnings=tuple(warnings),
        language=document.language or language_of(kept),
    )


def _answer(request: protocol.Request, replies: int) -> protocol.Reply:
    name = request.name
    report = Report(name)
    try:
        if isinstance(request, protocol.Read):
            report = Report(
                name,
                limits=request.limits,
                send=lambda page, pages: protocol.write(replies, protocol.Progress(page, pages)),
            )
            return protocol.Done(read(request, report))
        path = Path(os.fsdecode(request.path))
        require_file(path, name)
        render = _function("quinze.knowledge.readers.pages:render_page", request.format)
        return protocol.Image(render(path, request.format, request.page, request.width))
    except TooLargeError as error:
        return _failed(ReaderLimitError(error.message, hint=error.hint))
    except QuinzeError as error:
        return _failed(error)
    except MemoryError:
        return _failed(
            ReaderLimitError(
                f"{name} needs more memory than a reader may take.", hint="Split it, and add the parts."
            )
        )
    except RecursionError:
        return _failed(damaged(name, report.format, "its parts are nested too deeply"))
    except OSError as error:
        return _failed(DocumentError(f"{name} cannot be read: {error.strerror or error}."))
    except Exception as error:  # noqa: BLE001 -- a stranger's parser on a stranger's file may raise anything
        first = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__
        return _failed(damaged(name, report.format, f"its content could not be understood ({reason})"))


def _function(address: str, kind: str) -> Any:
    module, _, function = address.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise DocumentError(
            f"The reader of {kind} files cannot be loaded: {error}.",
            hint="Install Quinze again with all its dependencies: pip install --force-reinstall quinze.",
        ) from None


def _failed(error: QuinzeError) -> protocol.Failed:
    return protocol.Failed(
        error.code,
        error.message.encode("utf-8", "replace").decode(),
        error.hint.encode("utf-8", "replace").decode(),
    )


def _settle(parent: int, memory: int) -> None:
    """Bind this process's life to its parent's, and bound what it may take."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    # Ctrl-C in a terminal reaches the whole group: only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        most = memory + ADDRESS_SPACE_SPARE
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.addaudithook(_no_network)
    # What a parser prints from now on is of no use to anyone.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _no_network(event: str, _: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise PermissionError("a document's reader opens no network connection")


if __name__ == "__main__":
    main(sys.argv[1:])
