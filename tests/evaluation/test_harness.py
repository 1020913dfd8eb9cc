"""The contract of lm-evaluation-harness, as its docs/model_guide.md and api/model.py state it.

loglikelihood          Instance.args (context, continuation) -> (float, bool); an empty context is a begin
                       token; spaces at the context's end belong to the continuation (api/model.py)
loglikelihood_rolling  Instance.args (text,) -> float; every token scored once, the first after a begin token
generate_until         Instance.args (prompt, {"until": [...], ...}) -> str without the stop string
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quinze.errors import MissingPackageError
from quinze.evaluation.harness import HarnessModel, harness_model
from quinze.evaluation.likelihood import scored_by

V, BOS = 128, 1
TABLE = np.random.default_rng(0).normal(size=(V, V)) * 2


def encode(text: str) -> list[int]:
    return list(text.encode("ascii"))


def greedy(context: Sequence[int], continuation: Sequence[int]) -> bool:
    ids = [*context, *continuation]
    return all(int(TABLE[ids[i - 1]].argmax()) == ids[i] for i in range(len(context), len(ids)))


@pytest.fixture
def model() -> HarnessModel:
    def generate(prompt: str, stops: Sequence[str], most: int, temperature: float) -> str:
        return f"{prompt}|{most}|{temperature}\n\nQ: more"

    return HarnessModel(scored_by(lambda x: TABLE[x]), greedy, encode, generate, BOS, window=16)


def asked(*args: object) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def torch_sum(ids: Sequence[int], start: int) -> float:
    log_p = torch.log_softmax(torch.from_numpy(TABLE), -1)
    return float(sum(log_p[ids[i - 1], ids[i]] for i in range(start, len(ids))))


def test_a_continuation_is_scored_after_its_context(model: HarnessModel) -> None:
    ((found, is_greedy), (moved, _), (alone, _)) = model.loglikelihood(
        [asked("Q: 2+2", " 4"), asked("Q: 2+2 ", "4"), asked("", "4")]
    )
    assert found == pytest.approx(torch_sum([BOS, *encode("Q: 2+2 4")], 7))
    assert moved == found
    assert alone == pytest.approx(torch_sum([BOS, *encode("4")], 1))
    assert is_greedy is False
    best = chr(int(TABLE[ord("2"), :].argmax()))
    assert model.loglikelihood([asked("2", best)])[0][1] is True


def test_a_rolling_text_is_scored_once_from_its_begin_token_on(model: HarnessModel) -> None:
    text = "a text that is longer than the window of sixteen ids"
    found = model.loglikelihood_rolling([asked(text)])
    assert found == [pytest.approx(torch_sum([BOS, *encode(text)], 1))]


def test_generation_takes_the_harness_settings_and_ends_before_a_stop_string(model: HarnessModel) -> None:
    found = model.generate_until(
        [
            asked("A", {"until": ["\n\n", "Q:"], "max_gen_toks": 8}),
            asked("B", {"until": "Q:", "do_sample": True, "temperature": 0.7}),
        ]
    )
    assert found == ["A|8|0.0", "B|256|0.7\n\n"]


def test_the_real_harness_accepts_it_or_its_absence_is_said(model: HarnessModel) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        with pytest.raises(MissingPackageError, match="not installed"):
            harness_model(model)
        return
    from lm_eval.api.model import LM

    assert isinstance(harness_model(model), LM)
