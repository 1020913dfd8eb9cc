"""Names: both languages welcome, nothing that could be a path or an option."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quinze.errors import InvalidRequestError
from quinze.service.names import file_name_on_disk, valid_name, valid_upload_name


@pytest.mark.parametrize("name", ["notes", "笔记 2026", "Été", "a.b_c-d", "日本語", "x" * 80, "한국어"])
def test_a_good_name_stays_as_it_is(name: str) -> None:
    assert valid_name(name, of="knowledge base") == name


def test_twins_in_unicode_are_one_name() -> None:
    decomposed = unicodedata.normalize("NFD", "Été")
    assert decomposed != "Été"
    assert valid_name(decomposed, of="model") == "Été"


@given(st.text(max_size=120))
def test_whatever_is_accepted_is_one_plain_part_of_a_path(name: str) -> None:
    try:
        accepted = valid_name(name, of="knowledge base")
    except InvalidRequestError:
        return
    assert accepted == accepted.strip()
    assert accepted not in {"", ".", ".."}
    assert not set(accepted) & set('/\\\0:*?"<>|\n\r')
    assert not accepted.startswith((".", "-"))
    assert len(accepted.encode()) <= 255


@given(st.text(max_size=120))
def test_an_uploads_name_never_leads_out(name: str) -> None:
    try:
        accepted = valid_upload_name(name)
    except InvalidRequestError:
        return
    assert all(part not in {"", ".", ".."} for part in accepted.split("/"))
    assert "\\" not in accepted


@given(st.text(max_size=300))
def test_a_name_on_disk_is_harmless(name: str) -> None:
    on_disk = file_name_on_disk("a" * 64, name)
    assert "/" not in on_disk
    assert "\0" not in on_disk
    assert on_disk.startswith("a" * 64)
    assert len(on_disk.encode("utf-8", "surrogatepass")) <= 255


def test_the_suffix_survives_on_disk_for_it_says_what_a_file_is() -> None:
    assert file_name_on_disk("ab", "报告/年报 2026.PDF") == "ab-年报_2026.PDF"
    assert file_name_on_disk("ab", "noext") == "ab-noext"
