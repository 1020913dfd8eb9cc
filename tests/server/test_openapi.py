"""The description of the interface describes what is there, and every reference in it leads somewhere."""

from __future__ import annotations

import json
import re
from typing import Any

from quinze.server.openapi import OPERATIONS, description
from quinze.server.routes import routes


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(child) for child in node.values()))
    return set().union(*(references(child) for child in node)) if isinstance(node, list) else set()


def test_every_route_is_described_and_nothing_else() -> None:
    there = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in routes()
        for method in (route.methods or set()) - {"HEAD"}
        if route.path != "/{path:path}"
    }
    assert there == set(OPERATIONS)


def test_every_reference_leads_somewhere() -> None:
    found = description()
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= names
    assert names


def test_it_keeps_to_the_structure_of_openapi() -> None:
    found = description()
    assert re.fullmatch(r"3\.1\.\d+", found["openapi"])
    assert {"title", "version"} <= set(found["info"])
    ids = []
    for path, operations in found["paths"].items():
        assert path.startswith("/")
        for operation in operations.values():
            ids.append(operation["operationId"])
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert all("description" in response for response in operation["responses"].values())
            for content in (operation.get("requestBody", {}), *operation["responses"].values()):
                assert all("schema" in kind for kind in content.get("content", {}).values())
    assert len(ids) == len(set(ids))


def test_the_server_hands_it_out(running: Any) -> None:
    assert running.http.get("/openapi.json").json() == json.loads(json.dumps(description()))
