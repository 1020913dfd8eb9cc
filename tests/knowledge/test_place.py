"""Where a passage stands, as a person reads it. The page keeps to the same list (web/tests/place.test.js)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quinze.knowledge.document import Place

PLACES = json.loads(Path(__file__).with_name("places.json").read_text("utf-8"))


@pytest.mark.parametrize(("place", "label"), [(place, label) for place, label, _ in PLACES], ids=str)
def test_a_place_reads_well(place: dict[str, Any], label: str) -> None:
    assert msgspec.convert(place, Place).label() == label
