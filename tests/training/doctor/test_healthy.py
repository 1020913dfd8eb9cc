"""Twelve healthy runs, no false alarm: information is welcome, warnings are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

HEALTHY: dict[str, dict[str, Any]] = {
    "plain": {},
    "another seed": {"seed": 7},
    "wider": {"hidden": 96, "steps": 60},
    "deeper": {"layers": 4, "steps": 60},
    "narrow": {"hidden": 32, "steps": 120, "rate": 8e-3},
    "long rows": {"length": 128, "batch": 4},
    "small batches": {"batch": 4, "steps": 160, "rate": 2e-3},
    "gentle rate": {"rate": 2e-3, "steps": 120},
    "brisk rate": {"rate": 1e-2},
    "untied head": {"tie_word_embeddings": False},
    "layer norm and GELU": {"norm": "layer", "activation": "gelu", "gated": False, "qk_norm": "none"},
    "no decoder of ids": {"tokenizer": None},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_gets_no_warning(name: str, bed: Callable[..., Any], shape: Callable[..., Any]) -> None:
    knobs = dict(HEALTHY[name])
    config = shape(**{k: knobs.pop(k) for k in list(knobs) if k not in KNOBS})
    run = bed(**{"length": 32, "steps": 80, "batch": 16, **knobs}, config=config).run()
    assert run.losses[-1] < run.losses[0] / 2, "this run did not learn; it is no healthy one"
    assert [one.verdict for one in run.findings if one.severity != "info"] == []
    assert {"B2.floors", "A3.noise", "A6.cost"} <= run.ids("info")


KNOBS = {"length", "batch", "steps", "rate", "seed", "tokenizer"}
