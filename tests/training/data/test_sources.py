"""Every kind of file gives its documents, or an error that says which line is at fault."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from quinze.errors import FileFormatError, InvalidRequestError, MissingPackageError, NotFoundError
from quinze.training.data.sources import Record, Source, read_file, text_of

RECORDS = [{"text": "first 一"}, {"text": "second"}]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)


def texts(path: Path) -> list[str]:
    return [text_of(record, ()) for record in read_file(path)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.ndjson", b"\xef\xbb\xbf" + LINES.replace("\n", "\n\n").encode()),
        ("a.json", json.dumps(RECORDS).encode()),
        ("b.json", json.dumps({"data": RECORDS}).encode()),
        ("lines.json", LINES.encode()),
        ("lines.txt", LINES.encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode())),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.jsonl.bz2", bz2.compress(LINES.encode())),
        ("a.csv", "text,more\nfirst 一,x\nsecond,y\n".encode()),
        ("a.tsv", "text\tmore\nfirst 一\tx\nsecond\ty\n".encode()),
    ],
)
def test_every_kind_of_file_gives_its_documents(tmp_path: Path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    assert texts(path) == ["first 一", "second"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_texts_are_read_in_the_encoding_they_are_in(tmp_path: Path, encoding):
    text = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 5
    path = tmp_path / "poem.txt"
    path.write_bytes(text.encode(encoding))
    assert texts(path) == [text]


def test_parquet_is_read_row_by_row(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["first 一", "second"]


def test_parquet_without_its_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingPackageError, match=r"quinze\[train\]"):
        texts(tmp_path / "a.parquet")


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/two.md", "a.txt", ".hidden/three.txt", "picture.png"):
        (tmp_path / name).write_text(name)
    source = Source.of(tmp_path)
    assert [record.value for record in source.open()] == ["a.txt", "b/two.md"]
    assert source.bytes == len("a.txt") + len("b/two.md")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl, line 2, is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1, holds a list"),
        ("a.json", b"17", "holds a int"),
        ("a.jsonl.gz", b"no gzip", "could not be read"),
        ("a.jsonl.xz", lzma.compress(LINES.encode())[:-8], "could not be read"),
        ("a.txt", bytes(range(256)) * 3, "no encoding"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        texts(path)


def test_strangers_are_refused(tmp_path: Path):
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(FileFormatError, match=r"\.jsonl"):
        Source.of(tmp_path / "picture.png")
    with pytest.raises(NotFoundError, match="no text"):
        Source.of(tmp_path)
    with pytest.raises(NotFoundError, match="no file"):
        Source.of(tmp_path / "none")


def test_a_record_without_text_names_its_fields():
    record = Record({"classical": "子曰", "modern": "孔子说"}, "a.jsonl:1")
    with pytest.raises(InvalidRequestError, match="classical, modern"):
        text_of(record, ())
    assert text_of(record, ("classical", "modern")) == "子曰\n孔子说"
