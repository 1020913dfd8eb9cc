"""/api/classify: labels in, probabilities out, by names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_texts_are_classified_over_http(running: Any) -> None:
    asked = {
        "texts": ["The match ended two to one."],
        "labels": ["sports", "cooking=bread"],
    }
    told = running.http.post("/api/classify", json=asked).json()
    assert told["data"][0]["label"] == "sports"
    assert sum(told["data"][0]["probabilities"].values()) == pytest.approx(1)
    unsure = running.http.post("/api/classify", json={**asked, "abstain": 1.0}).json()["data"][0]
    assert unsure["label"] is None
    assert unsure["reason"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": ["one"]},
        {"texts": []},
        {"abstain": 2},
        {"temperature": 0},
        {"template": "none"},
        {"texts": ["x"] * 2000},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(running: Any, wrong: dict[str, Any]) -> None:
    asked = {"texts": ["bread"], "labels": ["sports", "cooking"], **wrong}
    assert running.http.post("/api/classify", json=asked).status_code == 400


def test_a_path_is_no_name_of_a_model(running: Any, tmp_path: Path) -> None:
    (tmp_path / "vectors.npy").write_bytes(b"x")
    asked = {"texts": ["bread"], "labels": ["a", "b"], "model": str(tmp_path)}
    assert running.http.post("/api/classify", json=asked).status_code == 404
