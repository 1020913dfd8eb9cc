"""Letters as the standard library's own email package writes them."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from quinze.knowledge.document import Document
from quinze.knowledge.readers.workers import Readers

ENGLISH = "The pump of line 3 was replaced on Monday.\n\nIt runs at 1,450 rpm; please check it on Friday."
CHINESE = "三号线的水泵已于周一更换。"


def letter(**headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Zoë Lozano <zoe@example.org>"
    message["To"] = "张伟 <wei@example.org>"
    message["Date"] = "Fri, 14 Mar 2025 08:30:00 +0100"
    message["Subject"] = "Pump 水泵, line 3"
    for name, value in headers.items():
        message[name] = value
    return message


def read(readers: Readers, folder: Path, message: EmailMessage) -> Document:
    path = folder / "letter.eml"
    path.write_bytes(message.as_bytes())
    return readers.read(path)


def texts(document: Document) -> list[str]:
    return [block.text for block in document.blocks]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("transfer", ["base64", "quoted-printable"])
def test_headers_come_first_and_the_text_follows(
    readers: Readers, tmp_path: Path, encoding: str, transfer: str
) -> None:
    message = letter()
    message.set_content(f"{ENGLISH}\n\n{CHINESE}\n", charset=encoding, cte=transfer)
    document = read(readers, tmp_path, message)
    assert document.format == "email"
    assert document.title == "Pump 水泵, line 3"
    assert texts(document) == [
        "Pump 水泵, line 3",
        "From: Zoë Lozano <zoe@example.org>\nTo: 张伟 <wei@example.org>\n"
        "Date: Fri, 14 Mar 2025 08:30:00 +0100\nSubject: Pump 水泵, line 3",
        *ENGLISH.split("\n\n"),
        CHINESE,
    ]
    assert {block.place.label() for block in document.blocks} == {"Pump 水泵, line 3"}


def test_the_plain_text_is_read_once_and_attachments_are_named(readers: Readers, tmp_path: Path) -> None:
    message = letter()
    message.set_content(ENGLISH)
    message.add_alternative(f"<p>{ENGLISH}</p>", subtype="html")
    message.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="plan 图纸.pdf")
    message.add_attachment(letter())
    document = read(readers, tmp_path, message)
    assert texts(document)[2:] == ENGLISH.split("\n\n")
    assert document.warnings == (
        "Attachments were not read: plan 图纸.pdf, a letter. Save them, and add them by themselves.",
    )


def test_a_letter_of_html_alone_is_read_like_a_page(readers: Readers, tmp_path: Path) -> None:
    message = letter()
    message.set_content(
        "<style>p{}</style><h1>Order</h1><p>Two <b>pumps</b>.</p>"
        "<table><tr><th>Part<th>Price</tr><tr><td>Pump<td>€90</tr></table>",
        subtype="html",
    )
    document = read(readers, tmp_path, message)
    assert texts(document)[2:] == ["Order", "Two pumps.", "Part | Price", "Pump | €90"]
    assert document.blocks[3].place.heading == ("Pump 水泵, line 3", "Order")


def test_broken_headers_cost_only_themselves(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(
        b"From: =?utf-8?B?!!!?= <a@b>\nSubject: =?no-such?Q?x?=\n"
        b"Content-Type: text/plain; charset=no-such\n\nThe pump runs.\n"
    )
    assert readers.read(path).blocks[-1].text == "The pump runs."
