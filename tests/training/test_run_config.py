"""One file for a run: read, refused, filled in and written back."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import InvalidRequestError, NotFoundError
from quinze.training.run_config import ScheduleTable, differences, load_run_config, run_config, to_toml
from quinze.training.schedule import share

DATA = {"data": {"folder": "x"}}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = run_config(DATA | {"method": "sft", "lora": {"rank": 8}, "model": {"base": "b"}}).resolved()
    (tmp_path / "run.toml").write_text(to_toml(config))
    again = load_run_config(tmp_path / "run.toml")
    # Paths begin where the file lies.
    assert again.data.folder == str((tmp_path / "x").resolve())
    assert again.optimizer == config.optimizer
    assert again.lora == {"rank": 8}
    assert tomllib.loads(to_toml(config))["runtime"]["device"] == "auto"


@pytest.mark.parametrize(
    ("table", "said", "hint"),
    [
        (DATA | {"optimiser": {}}, "optimiser, which is no setting", "Did you mean optimizer?"),
        (DATA | {"optimizer": {"learning_rate": 1}}, "optimizer.learning_rate", ""),
        (DATA | {"batch": {"rwos": 1}}, "batch.rwos", "Did you mean batch.rows?"),
        (DATA | {"batch": {"rows": 0}}, ">= 1", ""),
        (DATA | {"batch": {"rows": "many"}}, "$.batch.rows", ""),
        ({"method": "pretrain"}, "lacks the field `data`", ""),
        (DATA | {"schedule": {"minutes": -1}}, "$.schedule.minutes", ""),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run_config(table, "run.toml")
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "table",
    [
        {"schedule": {"minutes": 3, "steps": 4}},
        {"schedule": {"warmup": 0.6, "decay": 0.6}},
        {"method": "dpo"},
        {"lora": {}},
        {"model": {"hidden_size": 30, "num_attention_heads": 4}},
        {"model": {"head_dim": 7}},
    ],
)
def test_settings_that_cannot_be_together_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        run_config(DATA | table).resolved()


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_run_config(tmp_path / "run.toml")
    (tmp_path / "run.toml").write_text("[data\n")
    with pytest.raises(InvalidRequestError, match="TOML"):
        load_run_config(tmp_path / "run.toml")


def test_defaults_follow_the_method() -> None:
    assert run_config(DATA).resolved().optimizer.kind == "muon"
    tuned = run_config(DATA | {"method": "sft", "model": {"base": "b"}})
    adapter = run_config(DATA | {"method": "sft", "model": {"base": "b"}, "lora": {}})
    assert tuned.resolved().optimizer.kind == "adamw"
    # "LoRA Without Regret": ten times the rate of full fine-tuning.
    assert adapter.resolved().optimizer.lr == pytest.approx(10 * (tuned.resolved().optimizer.lr or 0))
    assert run_config(DATA).resolved().schedule.minutes == 60


def test_differences_name_what_changed() -> None:
    old, new = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}, "e": 4}
    assert differences(old, new) == ["b.c: 2 -> 5", "e: None -> 4"]


@pytest.mark.parametrize(("at", "wanted"), [(0, 0), (0.05, 0.5), (0.1, 1), (0.5, 1), (0.75, 0.6), (1, 0.2)])
def test_wsd_warms_up_stays_and_falls(at: float, wanted: float) -> None:
    table = ScheduleTable(kind="wsd", warmup=0.1, decay=0.5, final=0.2)
    assert share(table, at) == pytest.approx(wanted)


@pytest.mark.parametrize("at", [0.0, 0.05, 0.1, 0.3, 0.55, 0.9, 1.0])
def test_cosine_is_that_of_transformers(at: float) -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = get_cosine_schedule_with_warmup(optimizer, 100, 1000)
    wanted = peer.lr_lambdas[0](round(at * 1000))
    assert share(ScheduleTable(kind="cosine", warmup=0.1), at) == pytest.approx(wanted, abs=1e-9)
    assert math.isclose(share(ScheduleTable(kind="cosine", warmup=0.0), 0.5), 0.5)


def test_every_setting_stands_in_the_guide() -> None:
    import msgspec

    guide = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "training.md").read_text("utf-8")
    settings = guide.partition("## All settings")[2]
    tables = msgspec.to_builtins(run_config(DATA))
    assert len(tables) > 8
    for name, table in tables.items():
        assert f"[{name}]" in settings or f"{name} = " in settings, name
        for key in table if isinstance(table, dict) else ():
            assert re.search(rf"\b{key}\b", settings), f"{name}.{key}"
