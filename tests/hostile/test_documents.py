"""Documents made to do harm: each ends soon, in a clear error or its harmless text; the next file is read.

Zip and entity bombs, external entities and pictures, endless files, devices, pipes, wrong and hostile names,
deep nesting, giant lines, huge declared sizes.
"""

from __future__ import annotations

import http.server
import io
import os
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quinze.errors import (
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    ReaderLimitError,
    UnsupportedDocumentError,
)
from quinze.knowledge.readers.report import MIB, Limits
from quinze.knowledge.readers.workers import Readers

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
LIMITS = Limits(seconds=60, idle_seconds=20, memory=700 * MIB)


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers(workers=1, limits=LIMITS) as readers:
        yield readers


@pytest.fixture(autouse=True)
def still_reads(readers: Readers, tmp_path: Path) -> Iterator[None]:
    """After whatever a test did, the next honest file is read."""
    yield
    path = tmp_path / "honest.txt"
    path.write_text("An honest sentence.", "utf-8")
    assert readers.read(path).blocks[0].text == "An honest sentence."


def refused(
    readers: Readers, path: Path, kind: type[DocumentError], words: str | None = None
) -> DocumentError:
    """The error that reading raises: of exactly that kind, naming the file, and saying what to do."""
    begun = time.monotonic()
    with pytest.raises(DocumentError, match=words) as caught:
        readers.read(path)
    assert type(caught.value) is kind
    assert path.name[:40] in caught.value.message
    assert caught.value.hint
    assert "Traceback" not in caught.value.message
    assert time.monotonic() - begun < LIMITS.seconds + 10
    return caught.value


def texts_of(readers: Readers, path: Path) -> list[str] | None:
    """What is read of a file; None if it is refused, by its name."""
    try:
        return [block.text for block in readers.read(path).blocks]
    except DocumentError as error:
        if path.name not in error.message or not error.hint:
            raise
        return None


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("bomb.docx", ReaderLimitError, "unpacks to 300 MB"),
        ("laughs.docx", DocumentError, "not a readable Word file"),
        ("bad_trunc.docx", DocumentError, "damaged"),
        ("bad_random.docx", DocumentError, "damaged"),
        ("bad_trunc.pptx", DocumentError, "damaged"),
        ("bad_trunc.xlsx", DocumentError, "damaged"),
        ("bad_trunc.pdf", DocumentError, None),
        ("bad_random.pdf", DocumentError, None),
        ("bad_empty.docx", EmptyDocumentError, "empty"),
        ("bad_empty.pdf", EmptyDocumentError, "empty"),
        ("enc.docx", EncryptedDocumentError, "password"),
        ("enc.xlsx", EncryptedDocumentError, "password"),
        ("enc.pptx", EncryptedDocumentError, "password"),
        ("enc_rc4.pdf", EncryptedDocumentError, "password"),
        ("enc_aes256.pdf", EncryptedDocumentError, "password"),
    ],
)
def test_broken_locked_and_exploding_files(
    readers: Readers, shared: Callable[[str], Path], name: str, kind: type[DocumentError], words: str | None
) -> None:
    refused(readers, shared(f"data/documents/made/{name}"), kind, words)


def test_an_external_entity_is_not_fetched(readers: Readers, shared: Callable[[str], Path]) -> None:
    document = readers.read(shared("data/documents/made/xxe.docx"))
    texts = [block.text for block in document.blocks]
    assert "XXE[]" in texts
    assert not any("root:" in text for text in texts)
    assert any("entities" in warning for warning in document.warnings)


def docx(path: Path, body: str, prolog: str = "", **others: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", f"{prolog}<w:document {W}><w:body>{body}</w:body></w:document>")
        for name, content in others.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("secret", ["file:///etc/passwd", "http://127.0.0.1:9/x", "php://input"])
def test_entities_of_a_document_are_left_out(readers: Readers, tmp_path: Path, secret: str) -> None:
    prolog = f'<!DOCTYPE d [<!ENTITY x SYSTEM "{secret}"><!ENTITY y "inner">]>'
    path = docx(tmp_path / "a.docx", "<w:p><w:r><w:t>[&x;&y;]</w:t></w:r></w:p>", prolog)
    assert readers.read(path).blocks[0].text == "[]"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address where any fetch is written down."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_no_document_can_make_us_fetch(
    readers: Readers, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    address, seen = listener
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="a" Type="x/header" Target="{address}/header" TargetMode="External"/>'
        f'<Relationship Id="b" Type="x/attachedTemplate" Target="{address}/template" TargetMode="External"/>'
        f'<Relationship Id="c" Type="x/styles" Target="{address}/styles"/></Relationships>'
    )
    docx(
        tmp_path / "a.docx",
        "<w:p><w:r><w:t>Text</w:t></w:r></w:p>",
        f'<!DOCTYPE d SYSTEM "{address}/dtd">',
        **{"word/_rels/document.xml.rels": relations},
    )
    (tmp_path / "a.html").write_text(
        f"<html><head><link rel=stylesheet href={address}/css><base href={address}/></head><body><p>Text"
        f"<img src={address}/img alt=''><iframe src={address}/frame></iframe>"
        f"<script src={address}/js></script>",
        "utf-8",
    )
    (tmp_path / "a.md").write_text(f"Text ![]({address}/img)\n\n<img src='{address}/raw'>\n", "utf-8")
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE d SYSTEM "{address}/dtd"><d>Text</d>', "utf-8")
    for name in ("a.docx", "a.html", "a.md", "a.xml"):
        assert any("Text" in block.text for block in readers.read(tmp_path / name).blocks)
    assert seen == []


def test_a_part_that_lies_about_its_size_is_not_unpacked_beyond_it(readers: Readers, tmp_path: Path) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<a>" + b" " * 50_000_000)
    data = bytearray(memory.getvalue())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<I", 100)
    path = tmp_path / "liar.docx"
    path.write_bytes(data)
    refused(readers, path, DocumentError)


@pytest.mark.parametrize(
    ("name", "member"),
    [("a.xlsx", "xl/workbook.xml"), ("a.pptx", "ppt/presentation.xml"), ("a.epub", "META-INF/container.xml")],
)
def test_bombs_of_every_packed_format(tmp_path: Path, name: str, member: str) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, b"<a>" + bytes(20 * MIB))
    assert path.stat().st_size < 100_000
    with Readers(workers=1, limits=Limits(part_bytes=4 * MIB)) as strict:
        refused(strict, path, ReaderLimitError, "unpacks to 21 MB")


def sheet_of(path: Path, rows: str) -> None:
    """A workbook with one sheet and nothing else."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{rels}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{rels}"><sheets>'
            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{rels}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
        )


def test_a_sheet_that_claims_to_be_endless(readers: Readers, tmp_path: Path) -> None:
    """Two cells in opposite corners: seventeen billion cells if one counts all between them."""
    path = tmp_path / "corners.xlsx"
    far = '<row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    sheet_of(path, f'<row r="1"><c r="A1"><v>1</v></c></row>{far}')
    assert texts_of(readers, path) == ["1", "2"]
    assert readers.read(path).blocks[1].place.cells == "XFD1048576"


def test_a_sheet_with_a_cell_at_the_end_of_each_of_many_rows(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "right.xlsx"
    sheet_of(path, "".join(f'<row r="{n}"><c r="XFD{n}"><v>2</v></c></row>' for n in range(1, 9000)))
    refused(readers, path, EmptyDocumentError, "was left out")


@pytest.mark.parametrize("tag", ["div", "b", "ul><li", "table><tr><td", "blockquote", "x-unknown"])
def test_deeply_nested_pages(readers: Readers, tmp_path: Path, tag: str) -> None:
    for depth in (2_000, 60_000):
        path = tmp_path / f"deep{depth}.html"
        path.write_text("<html><body>" + f"<{tag}>" * depth + "innermost", "utf-8")
        if (texts := texts_of(readers, path)) is not None:
            assert any("innermost" in text for text in texts)
        else:
            assert depth > 10_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.docx", "<w:sdt><w:sdtContent>" * 5_000),
        ("tables.docx", "<w:tbl><w:tr><w:tc>" * 60 + "<w:p/>" + "</w:tc></w:tr></w:tbl>" * 60),
    ],
)
def test_deeply_nested_word_files(readers: Readers, tmp_path: Path, name: str, content: str) -> None:
    refused_or_empty = docx(tmp_path / name, content)
    with pytest.raises(DocumentError, match=name):
        readers.read(refused_or_empty)


@pytest.mark.parametrize("opening", ["> ", "- ", "[", "*a ", "![a](", "`" * 3 + "\n> "])
def test_markdown_that_nests_or_never_closes(readers: Readers, tmp_path: Path, opening: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(opening * 5_000 + "innermost\n", "utf-8")
    texts = texts_of(readers, path)
    assert texts is None or any("innermost" in text for text in texts)


@pytest.mark.parametrize("name", ["line.txt", "line.csv", "line.md", "line.html", "line.json", "line.log"])
def test_a_line_of_five_million_characters(readers: Readers, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("word " * 1_000_000, "utf-8")
    document = readers.read(path)
    assert sum(block.text.count("word") for block in document.blocks) == 1_000_000


def test_a_csv_whose_quote_never_closes_is_read_as_text(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"' + "x,y\n" * 400_000, "utf-8")
    document = readers.read(path)
    assert sum(block.text.count("x,y") for block in document.blocks) == 400_000
    assert document.warnings


def test_a_text_beyond_all_measure_is_refused_and_a_long_one_is_cut_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("A sentence of thirty letters.\n\n" * 2_000, "utf-8")
    with Readers(workers=1, limits=Limits(text_chars=10_000)) as readers:
        document = readers.read(path)
        assert sum(len(block.text) for block in document.blocks) <= 10_000
        assert any("10,000 characters" in warning for warning in document.warnings)
        path.write_text("A sentence of thirty letters.\n\n" * 4_000, "utf-8")
        refused(readers, path, ReaderLimitError, "at most 0.1 MB")


def test_a_sparse_file_of_a_terabyte_is_refused_unread(readers: Readers, tmp_path: Path) -> None:
    for name in ("huge.txt", "huge.docx", "huge.bin"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(b"begins like text\n")
            file.truncate(1 << 38)
        refused(readers, path, ReaderLimitError, "GB|MB")


def test_devices_pipes_folders_and_missing_files_are_not_opened(readers: Readers, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    refused(readers, pipe, UnsupportedDocumentError, "is a pipe")
    for device in ("/dev/zero", "/dev/random", "/dev/stdin"):
        link = tmp_path / f"{device[5:]}.pdf"
        link.symlink_to(device)
        if not link.is_file():
            with pytest.raises(UnsupportedDocumentError, match=link.name):
                readers.read(link)
    folder = tmp_path / "folder.docx"
    folder.mkdir()
    refused(readers, folder, UnsupportedDocumentError, "is a folder")
    refused(readers, tmp_path / "gone.txt", DocumentError, "cannot be opened")
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    refused(readers, loop, DocumentError, "cannot be opened")
    refused(readers, tmp_path / ("n" * 300 + ".txt"), DocumentError, "cannot be opened")
    with pytest.raises(DocumentError):
        readers.read(tmp_path / "nul\0.txt")


@pytest.mark.parametrize(
    "name",
    [
        "--help.txt", "-rf.txt", "a b;rm -rf ~.txt", "$(id).txt", "quote'\".txt", "new\nline.txt", "..txt",
        "名字 ☃.txt", "n" * 250 + ".txt", "<b>.txt", "%s%n.txt", "a.txt.", ".hidden", "tab\t.txt",
        "\u202egnp.txt",
    ],
)  # fmt: skip
def test_hostile_names_are_only_names(readers: Readers, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("Only a name.", "utf-8")
    assert readers.read(path).blocks[0].text == "Only a name."


def test_binaries_that_call_themselves_text_are_refused(readers: Readers, tmp_path: Path) -> None:
    noise = zlib.compress(os.urandom(5_000))
    for name in ("a.txt", "a.csv", "a.md", "a.py", "a.html", "a.json"):
        path = tmp_path / name
        path.write_bytes(noise)
        with pytest.raises((UnsupportedDocumentError, DocumentError), match=name):
            readers.read(path)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 10)])
def test_pictures_that_claim_to_be_huge_are_not_unfolded(
    readers: Readers, tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(width, height))
    with pytest.raises(DocumentError, match=r"huge\.png"):
        readers.read(path)


def test_a_pdf_whose_pages_contain_themselves(readers: Readers, tmp_path: Path) -> None:
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[2 0 R 3 0 R]/Count 1000000>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 3 0 R/Resources 3 0 R>>",
    ]
    data = b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % each for each in enumerate(objects, start=1))
    path = tmp_path / "loop.pdf"
    path.write_bytes(data + b"trailer<</Root 1 0 R/Size 4>>\n%%EOF")
    with pytest.raises(DocumentError, match=r"loop\.pdf"):
        readers.read(path)


def test_names_of_members_that_climb_out_are_not_followed(readers: Readers, tmp_path: Path) -> None:
    """A relation to ../../../etc/passwd leads to a member of that name, or nowhere."""
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="a" Type="x/header" Target="../../../../../../etc/passwd"/>'
        '<Relationship Id="b" Type="x/footer" Target="/etc/passwd"/></Relationships>'
    )
    path = docx(
        tmp_path / "a.docx",
        "<w:p><w:r><w:t>Body</w:t></w:r></w:p>",
        **{"word/_rels/document.xml.rels": relations},
    )
    assert [block.text for block in readers.read(path).blocks] == ["Body"]


def test_marks_that_are_never_closed_are_not_searched_for_again_and_again(
    readers: Readers, tmp_path: Path
) -> None:
    path = tmp_path / "open.xlsx"
    sheet_of(path, "<row><c " + 'r="A1 <c s="1" ' * 200_000)
    texts_of(readers, path)
    feed = tmp_path / "instructions.xml"
    feed.write_text("<?a?>" * 500 + "<!--" * 200 + "<note>An honest note.</note>", "utf-8")
    assert "An honest note." in "".join(texts_of(readers, feed) or [])
