"""What stands on a PDF page beside its text: comments, and the values filled into its forms.

Given an open pypdfium2 document and page; returns (text, part, box) of each that holds text.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as pdfium

from quinze.knowledge.document import Box
from quinze.knowledge.readers.pdf_glyphs import Frame, page_transform

MOST = 2_000
"""Annotations read from one page."""

_BUTTONS = (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON)
_FILLED = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    part: str
    """"comment" or "form field"."""
    box: Box | None


def read_notes(document: Any, page: Any) -> list[Note]:
    """Comments and filled form fields, in the file's order."""
    notes: list[Note] = []
    seen: set[str] = set()
    form = document.formenv.raw if document.formenv else None
    frame, transform = Frame(*page.get_size()), page_transform(page)
    for index in range(min(MOST, pdfium.FPDFPage_GetAnnotCount(page))):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            if kind == pdfium.FPDF_ANNOT_WIDGET:
                text, part = _field(form, annotation), "form field"
            elif kind in (pdfium.FPDF_ANNOT_POPUP, pdfium.FPDF_ANNOT_LINK):
                continue
            else:
                text, part = _string(annotation, b"Contents"), "comment"
            if text and text not in seen:
                seen.add(text)
                notes.append(Note(text, part, _box(annotation, frame, transform)))
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
    return notes


def _field(form: Any, annotation: Any) -> str:
    """ "Name: value" of a form field that is filled in."""
    if form is None:
        return ""
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    name = _text(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    name = name or _text(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
    if kind in _BUTTONS:
        if not pdfium.FPDFAnnot_IsChecked(form, annotation):
            return ""
        value = _text(pdfium.FPDFAnnot_GetFormFieldExportValue, form, annotation)
        value = "checked" if value.lower() in ("", "yes", "on", "1") else value
    elif kind in _FILLED:
        value = _text(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
    else:
        return ""
    return f"{name}: {value}" if name and value else value


def _text(function: Any, *arguments: Any) -> str:
    size = function(*arguments, None, 0)
    if size <= 2 or size > 1 << 20:
        return ""
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    function(*arguments, buffer, size)
    return bytes(buffer)[: size - 2].decode("utf-16-le", "replace").strip()


def _string(annotation: Any, key: bytes) -> str:
    return _text(pdfium.FPDFAnnot_GetStringValue, annotation, key)


def _box(annotation: Any, frame: Frame, transform: tuple[float, ...]) -> Box | None:
    rect = pdfium.FS_RECTF()
    if not pdfium.FPDFAnnot_GetRect(annotation, rect):
        return None
    a, b, c, d, e, f = transform
    corners = [(x, y) for x in (rect.left, rect.right) for y in (rect.bottom, rect.top)]
    xs, ys = [a * x + c * y + e for x, y in corners], [b * x + d * y + f for x, y in corners]
    return frame.box(min(xs), min(ys), max(xs), max(ys))
