"""Documents damaged at random: whatever is broken, what comes out is text or a reason in our own words."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree

from quinze.errors import DocumentError
from quinze.knowledge.readers.workers import Readers


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers(workers=1) as readers:
        yield readers


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A file of which some bytes, or some elements and attributes of its parts, are not what they were."""
    if not data.startswith(b"PK"):
        noise = bytearray(data)
        for _ in range(rng.randint(1, 20)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        return bytes(noise)
    memory = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(memory, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith((".xml", ".rels", ".opf")) and rng.random() < 0.3:
                root = etree.fromstring(part)
                elements = [each for each in root.iter() if isinstance(each.tag, str)]
                for _ in range(rng.randint(1, 6)):
                    one, other = rng.choice(elements), rng.choice(elements)
                    if one.attrib and rng.random() < 0.6:
                        value = rng.choice(["", "-1", "9" * 30, "x", "NaN", "²", "٣", "../../x", "rId1"])
                        one.attrib[rng.choice(list(one.attrib))] = value
                    elif rng.random() < 0.5:
                        one.tag = other.tag
                    elif one.getparent() is not None:
                        one.getparent().remove(one)
                part = etree.tostring(root)
            if rng.random() > 0.01:
                target.writestr(name, part)
    return memory.getvalue()


@pytest.mark.parametrize(
    "name", ["known.docx", "known.pptx", "known.xlsx", "known.epub", "known.html", "known_gb18030.csv"]
)
def test_documents_with_random_damage_end_in_text_or_a_reason(
    readers: Readers, shared: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """No damage surprises our own code: what it cannot read it says in its own words."""
    rng = random.Random(15)
    whole = shared(f"data/documents/made/{name}").read_bytes()
    for number in range(60):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(mutated(whole, rng))
        try:
            assert readers.read(path).blocks
        except DocumentError as error:
            words = error.message
        else:
            continue
        assert path.name in words
        assert "could not be understood" not in words
