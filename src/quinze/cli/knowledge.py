"""`quinze kb ...` and `quinze ask`: documents in, passages and answers out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quinze.cli import console
from quinze.cli.main import json_option, opened_service
from quinze.cli.progress import IngestDisplay
from quinze.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quinze.knowledge.knowledge_base import DocumentInfo
    from quinze.knowledge.results import IngestReport
    from quinze.rag.pipeline import Answer, AnswerEvent, Searched
    from quinze.service.service import Service


@click.group(name="kb")
def kb() -> None:
    """Knowledge bases: documents that Quinze has read."""


@kb.command(name="add")
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--embedder",
    metavar="NAME",
    help="What makes the vectors of a new base: starter, hashing, an embedding model, or its path.",
)
@click.option("--strict", is_flag=True, help="Exit with 5 if any document could not be read.")
@click.option(
    "-v", "--verbose", is_flag=True, help="A line for every file, not only for the ones that failed."
)
@json_option
def kb_add(
    name: str, paths: tuple[Path, ...], embedder: str | None, strict: bool, verbose: bool, as_json: bool
) -> None:
    """Read PATHS, files or folders, into the knowledge base NAME; it is made if there is none.

    Word, PDF, PowerPoint, Excel, CSV, Markdown, HTML, EPUB, text, notebooks, source code, images and scans.
    What is unchanged is skipped. Each file is whole in the base or not at all: stop at any moment, and run it
    again.

    A file that cannot be read is named with its reason. The exit code is then still 0 if other files were
    read; it is 5 if none was, or with --strict.
    """
    with opened_service() as service, console.stoppable() as stop:
        with IngestDisplay(verbose=verbose, silent=as_json) as display:
            report = service.ingest(name, list(paths), progress=display.event, cancel=stop, embedder=embedder)
        stats = service.knowledge_bases.overview(name)
    if as_json:
        console.print_json({**_plain(report), "cancelled": stop.is_set(), "knowledge_base": stats})
    else:
        console.print_text(_summary(name, report, stats))
        if stop.is_set():
            console.remark(
                "Stopped. What was read stays; the same command goes on from here.", style="yellow"
            )
    raise click.exceptions.Exit(_exit_code(report, strict=strict, stopped=stop.is_set()))


def _plain(report: IngestReport) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    return plain


def _exit_code(report: IngestReport, *, strict: bool, stopped: bool) -> int:
    if stopped:
        return console.INTERRUPTED
    nothing_read = not (report.added or report.updated or report.skipped)
    return DocumentError.exit_code if report.failed and (strict or nothing_read) else 0


def _summary(name: str, report: IngestReport, stats: dict[str, Any]) -> str:
    counts = [
        (report.added, "added"),
        (report.updated, "updated"),
        (report.skipped, "unchanged"),
        (report.removed, "removed"),
        (len(report.failed), "could not be read"),
    ]
    done = ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing found"
    holds = f"{counted(stats['ready'], 'document')}, {counted(stats['chunks'], 'passage')}"
    return f"{name}: {done}, in {report.seconds:.1f} s. It now holds {holds}."


@kb.command(name="ls")
@json_option
def kb_ls(as_json: bool) -> None:
    """List the knowledge bases."""
    with opened_service() as service:
        found = [service.knowledge_bases.overview(name) for name in service.knowledge_bases.names()]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.remark("No knowledge bases yet. Make one: quinze kb add notes FILES")
        return
    head = ("NAME", "DOCUMENTS", "UNREADABLE", "PASSAGES", "SIZE", "CHANGED")
    rows = [
        (
            base["name"],
            f"{base['ready']:,}",
            str(base["failed"] or ""),
            f"{base['chunks']:,}",
            console.in_bytes(base["bytes"]),
            base["error"] or base["updated_at"] or "",
        )
        for base in found
    ]
    console.print_table(head, rows)


@kb.command(name="show")
@click.argument("name")
@click.argument("document", required=False)
@click.option("--failed", is_flag=True, help="Only the documents that could not be read.")
@json_option
def kb_show(name: str, document: str | None, failed: bool, as_json: bool) -> None:
    """Show what the knowledge base NAME holds; or the text that was read from one DOCUMENT."""
    with opened_service() as service:
        base = service.knowledge_bases.get(name)
        if document is not None:
            info = base.document(document)
            _show_document(info, base.blocks(info.id), as_json=as_json)
            return
        overview = service.knowledge_bases.overview(name)
        documents = [info for info in base.documents() if info.status == "failed" or not failed]
    if as_json:
        console.print_json({**overview, "contents": documents})
        return
    size, passages = console.in_bytes(overview["bytes"]), f"{overview['chunks']:,} passages"
    console.print_text(
        f"{name}: {overview['ready']:,} documents, {passages}, {size}, embedder {overview['embedder']}"
    )
    console.print_text()
    console.print_table(
        ("DOCUMENT", "KIND", "PAGES", "PASSAGES", ""), [_document_row(info) for info in documents]
    )


def _document_row(info: DocumentInfo) -> tuple[str, ...]:
    remark = info.error if info.status == "failed" else "; ".join(info.warnings)
    return (info.name, info.format, str(info.pages or ""), str(info.chunks or ""), remark)


def _show_document(info: DocumentInfo, blocks: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        told = [{"kind": b.kind, "text": b.text, "place": b.place.label()} for b in blocks]
        console.print_json({"document": info, "blocks": told})
        return
    console.print_facts(
        [
            ("document", info.name),
            ("path", info.path),
            ("kind", info.format),
            ("pages", str(info.pages or "")),
            ("read", f"{info.added_at}, in {info.seconds:.1f} s"),
            ("error", f"{info.error} {info.hint}".strip()),
            *[("note", warning) for warning in info.warnings],
        ]
    )
    for block in blocks:
        console.print_text()
        console.print_text(f"[{block.place.label()}]")
        console.print_text(block.text)


@kb.command(name="search")
@click.argument("name")
@click.argument("query")
@click.option("-k", type=click.IntRange(1, 100), help="Passages to show.")
@json_option
def kb_search(name: str, query: str, k: int | None, as_json: bool) -> None:
    """Find the passages of NAME that answer QUERY best, by words and by vectors."""
    with opened_service() as service:
        found = service.search(name, query, k)
    if as_json:
        console.print_json(found)
        return
    for rank, hit in enumerate(found.hits, 1):
        console.print_text(f"{rank}. {hit.document}, {hit.place.label()}  ({hit.score:.2f})")
        console.print_text(_indented(_shortened(hit.text)))
    if not found.hits:
        console.remark(f"Nothing of it stands in the {found.documents:,} documents of {name}.")


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most].rstrip() + " …"


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())


@kb.command(name="rm")
@click.argument("name")
@click.argument("document", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def kb_rm(name: str, document: str | None, yes: bool, as_json: bool) -> None:
    """Remove the knowledge base NAME, or one DOCUMENT from it. Your own files stay where they are."""
    with opened_service() as service:
        if document is not None:
            service.knowledge_bases.get(name).remove(document)
        else:
            stats = service.knowledge_bases.overview(service.knowledge_bases.get(name).name)
            if not yes:
                click.confirm(
                    f"Remove {name} with its {stats['documents']:,} documents?", abort=True, err=True
                )
            service.knowledge_bases.remove(name)
    removed = document if document is not None else name
    if as_json:
        console.print_json({"removed": removed})
    else:
        console.print_text(f"{removed} is removed.")


@click.command()
@click.argument("name")
@click.argument("question")
@click.option(
    "-m", "--model", help="Chat model that writes the answer; by default the one set, or the first there is."
)
@click.option("--quote", is_flag=True, help="Use no model: quote the sentences that answer best.")
@click.option("-k", type=click.IntRange(1, 100), help="Passages to read.")
@json_option
def ask(name: str, question: str, model: str | None, quote: bool, k: int | None, as_json: bool) -> None:
    """Answer QUESTION from the documents of the knowledge base NAME, with sources.

    Without a chat model the answer is quoted, word for word. When nothing in the documents supports an
    answer, it says so and tells what was searched.
    """
    with opened_service() as service:
        chosen = "" if quote else model
        tell_who_answers(service, chosen)
        if as_json:
            console.print_json(service.ask(name, question, model=chosen, k=k))
            return
        print_answer(service.stream_ask(name, question, model=chosen, k=k))


def tell_who_answers(service: Service, model: str | None) -> None:
    """Whether questions leave this machine. None: the default model; "": none."""
    name = service.models.default() if model is None else model
    if name:
        console.tell_where(name, service.models.info(name).upstream)


def print_answer(events: Iterable[AnswerEvent]) -> None:
    """An answer as it comes, then where each claim stands, and what was searched.

    What a model writes is shown at once and checked when it is whole; if the checked answer is another one,
    it follows.
    """
    streamed = ""
    for event in events:
        if event.text:
            console.print_text(event.text, end="")
            streamed += event.text
        if event.answer is not None:
            _print_checked(event.answer, streamed)


def _print_checked(answer: Answer, streamed: str) -> None:
    if streamed:
        console.print_text()
    if answer.answer.strip() != streamed.strip():
        if streamed:
            console.remark("Checked against the documents:", style="yellow")
        console.print_text(answer.answer)
    if answer.citations:
        console.print_text()
    for citation in answer.citations:
        doubt = f"  ({citation.status})" if citation.status in {"weak", "unsupported"} else ""
        console.print_text(f"[{citation.number}] {citation.document}, {citation.place}{doubt}")
    console.remark(searched_line(answer.searched), style="dim")


def searched_line(searched: Searched) -> str:
    """One line that hides nothing: what was searched, and what could not be."""
    much = f"{counted(searched.documents, 'document')} ({counted(searched.chunks, 'passage')})"
    line = f"Searched {much} in {searched.seconds:.2f} s"
    unread = f"{len(searched.unread):,} could not be read: quinze kb show {searched.knowledge_base} --failed"
    return " ".join([f"{line}.", *searched.notes, *([unread] if searched.unread else [])])


def counted(number: int, thing: str) -> str:
    """
    >>> counted(1, "document"), counted(2_000, "document")
    ('1 document', '2,000 documents')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
