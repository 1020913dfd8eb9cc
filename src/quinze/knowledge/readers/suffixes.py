"""Which suffix promises which format, and which formats are refused, with what a person can do instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_FORMATS: Mapping[str, str] = {
    "pdf": ".pdf",
    "docx": ".docx .docm .dotx .dotm",
    "pptx": ".pptx .pptm .ppsx .ppsm .potx .potm",
    "xlsx": ".xlsx .xlsm .xltx .xltm",
    "xlsb": ".xlsb",
    "xls": ".xls .xlt",
    "ods": ".ods .ots",
    "csv": ".csv",
    "tsv": ".tsv .tab",
    "html": ".html .htm .xhtml .xht",
    "markdown": ".md .markdown .mdown .mkd .mdx .qmd .rmd",
    "epub": ".epub",
    "email": ".eml",
    "zip": ".zip",
    "image": ".png .jpg .jpeg .jpe .gif .bmp .tif .tiff .webp",
    "notebook": ".ipynb",
    "bash": ".sh .bash .zsh .ksh",
    "c": ".c .h",
    "cpp": ".cc .cpp .cxx .c++ .hh .hpp .hxx .h++ .ipp .inl .cu .cuh",
    "csharp": ".cs",
    "go": ".go",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "php": ".php .phtml",
    "python": ".py .pyi .pyw",
    "ruby": ".rb .rake .gemspec",
    "rust": ".rs",
    "typescript": ".ts .tsx .mts .cts",
    "text": (
        ".txt .text .log .rst .adoc .asciidoc .org .tex .bib .srt .vtt .ass .lrc .json .jsonl .ndjson "
        ".xml .rss .atom .xsd .xsl .svg .yaml .yml .toml .ini .cfg .conf .properties .env .sql .css "
        ".scss .less .vue .svelte .kt .kts .swift .scala .lua .pl .pm .r .jl .hs .ml .clj .ex .exs .erl "
        ".dart .groovy .gradle .m .mm .ps1 .bat .cmd .cmake .mk .dockerfile .proto .graphql .tf .diff "
        ".patch .asm .s .f90 .pas .vb .ics .vcf .po .pot .strings "
    ),
}

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {suffix: format for format, suffixes in _FORMATS.items() for suffix in suffixes.split()}  # noqa: A001
)
"""Suffix, with its dot and in small letters -> format."""

CODE = frozenset(
    ("bash", "c", "cpp", "csharp", "go", "java", "javascript", "php", "python", "ruby", "rust", "typescript")
)
"""Formats that are source code with a grammar."""

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "docx": "Word", "pptx": "PowerPoint", "xlsx": "Excel", "xlsb": "Excel", "xls": "Excel",
        "ods": "OpenDocument", "epub": "EPUB", "html": "HTML", "pdf": "PDF", "csv": "CSV", "tsv": "TSV",
        "markdown": "Markdown", "notebook": "Jupyter", "bash": "shell", "csharp": "C#", "cpp": "C++",
        "c": "C", "email": "e-mail", "feed": "RSS or Atom",
    }
)  # fmt: skip
"""What a person calls a format, where that is not its own name."""

REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "doc": ("a Word file of the old kind (.doc)", "Open it in Word or LibreOffice and save it as .docx."),
        "ppt": (
            "a PowerPoint file of the old kind (.ppt)",
            "Open it in PowerPoint or LibreOffice and save it as .pptx.",
        ),
        "msg": (
            "an Outlook message (.msg)",
            "Save it from Outlook as text or HTML, its attachments beside it.",
        ),
        "rtf": ("a Rich Text file", "Open it in Word or LibreOffice and save it as .docx."),
        "odt": ("an OpenDocument text (.odt)", "Open it in LibreOffice or Word and save it as .docx."),
        "odp": (
            "an OpenDocument presentation (.odp)",
            "Open it in LibreOffice or PowerPoint and save it as .pptx.",
        ),
        "pages": (
            "an Apple iWork document",
            "Export it from Pages, Keynote or Numbers as PDF or as an Office file.",
        ),
        "zip": ("a zip archive", "Unpack it, and add the files or the folder."),
        "archive": ("a packed archive", "Unpack it, and add the files or the folder."),
        "audio": ("a sound or video file", "Add a transcript or subtitles of it, as text."),
        "program": ("a program or library, not a document", "Add its documentation or its source instead."),
        "database": ("a database file", "Export its tables as CSV, and add those."),
        "weights": ("a model's weights, not a document", "Add it as a model instead."),
        "chm": ("a compiled help file (.chm)", "Unpack it to HTML, and add that."),
        "djvu": ("a DjVu file", "Convert it to PDF, and add that."),
        "heic": ("an image of a kind that is not read (HEIC, AVIF)", "Save it as PNG or JPEG."),
        "ps": ("a PostScript file", "Convert it to PDF, and add that."),
        "mobi": ("a Kindle book", "Convert it to EPUB, and add that."),
    }
)
"""What is known but not read: what to call it, and what to do."""
