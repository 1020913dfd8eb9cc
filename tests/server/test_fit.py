"""/api/fit tells of models that have a name here, and of no path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quinze.service.rooms import Rooms


def test_fit_is_told_over_http(
    serving_with: Callable[..., Any], tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    stories = shared("data/models/stories260K.bin")
    running = serving_with(tmp_path / "its", Rooms())
    running.service.models.add(stories)
    told = running.http.get("/api/fit?name=stories260K&speed=0&context=100").json()
    assert (told["verdict"], told["context"], told["parameters"]["total"]) == ("fits", 100, 260_032)
    assert running.http.get(f"/api/fit?name={stories}&speed=0").status_code == 404
    for wrong in ("0", "-1", "513", "x", "1" * 30):
        refused = running.http.get(f"/api/fit?name=stories260K&speed=0&context={wrong}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "context")
