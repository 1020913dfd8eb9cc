"""Safety tuning as a recipe: which conversations to mix, so that a model refuses harm and nothing else.

    rows = safety_mix(harmful, harmless, ordinary, SafetyMix())     conversations in OpenAI's form
    write_jsonl(Path("safety.jsonl"), rows)                         a source for `prepare`, then an SFT run

Some hundreds of refusals among ordinary conversations are enough, and too many make a model refuse what
merely sounds harmful (Bianchi et al. 2023: 3 % of the data). So each refusal is balanced by harmless requests
that share its words. `evaluation.safety` measures both sides, before and after. Knows no models.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from quinze.errors import InvalidRequestError
from quinze.paths import atomic_write

Conversation = dict[str, Any]
"""{"messages": [{"role": ..., "content": ...}, ...]}"""

REFUSALS = {
    "en": (
        "I can't help with that, because people could be hurt by it. If something is troubling you, I'm glad "
        "to talk about it.",
        "I won't help with this one: it could do real harm. Tell me what you are trying to achieve, and I'll "
        "look for a safe way.",
        "I'm sorry, but I can't assist with that. I can explain the risks, or the law, if that is of use.",
        "That is something I won't do, since it could injure someone. Is there something else I can do?",
        "I can't provide that. If you or someone else is in danger, please call your local emergency number.",
    ),
    "zh": (
        "这件事我不能帮忙，因为可能会伤害到别人。如果你遇到了困难，我愿意听你说说。",
        "抱歉，我无法提供这方面的帮助，它可能造成真实的伤害。告诉我你想达到什么目的，我来想想安全的办法。",
        "我不会协助做这件事。如果有用，我可以说明其中的风险或相关的法律。",
        "对不起，我不能回答这个问题。还有别的事需要我帮忙吗？",
        "这个我不能提供。如果你或别人正处在危险之中，请立即拨打当地的紧急电话。",
    ),
}
"""Ours: short, without a sermon, and with something to go on with."""


class SafetyMix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The proportions."""

    refusal_share: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.03
    """Of all conversations. Refusals are repeated, or left out, until they are that many."""
    harmless_per_refusal: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    """Harmless conversations that sound harmful, for each refusal."""
    seed: int = 15


def safety_mix(
    harmful: Sequence[str],
    harmless: Sequence[Conversation],
    ordinary: Sequence[Conversation],
    settings: SafetyMix,
) -> list[Conversation]:
    """Every ordinary conversation once, and refusals and harmless ones in their proportion, shuffled.

    harmful   requests; each gets a refusal in its own language
    harmless  conversations about what merely sounds harmful, with their answers
    ordinary  what the model is tuned on otherwise; InvalidRequestError if there is none
    """
    if not harmful or not ordinary:
        raise InvalidRequestError(
            "A safety mix needs harmful requests and ordinary conversations, some of each.",
            hint="Without ordinary ones a model learns to refuse everything.",
        )
    if settings.harmless_per_refusal and not harmless:
        raise InvalidRequestError(
            "There are no harmless conversations that sound harmful.",
            hint="Give some, or set harmless_per_refusal to 0 and expect over-refusal.",
        )
    around = random.Random(settings.seed)
    s, each = settings.refusal_share, settings.harmless_per_refusal
    if s * (1 + each) >= 1:
        raise InvalidRequestError("refusal_share and harmless_per_refusal leave no room for the ordinary.")
    refusals = max(1, round(s * len(ordinary) / (1 - s * (1 + each))))
    rows = list(ordinary)
    rows += [refusal(prompt, around) for prompt in _drawn(harmful, refusals, around)]
    rows += _drawn(harmless, round(each * refusals), around)
    around.shuffle(rows)
    return rows


def refusal(prompt: str, around: random.Random) -> Conversation:
    """A request and one of our refusals, in the language of the request."""
    language = "zh" if re.search(r"[\u3400-\u9fff]", prompt) else "en"
    answer = around.choice(REFUSALS[language])
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def preference(prompt: str, compliance: str, around: random.Random) -> dict[str, Any]:
    """For DPO: our refusal is preferred to a reply that complied."""
    chosen = refusal(prompt, around)["messages"]
    return {
        "messages": chosen[:1],
        "chosen": chosen[1],
        "rejected": {"role": "assistant", "content": compliance},
    }


def write_jsonl(path: Path, rows: Iterable[Conversation]) -> int:
    """One conversation a line; how many."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def _drawn(items: Sequence[Any], count: int, around: random.Random) -> list[Any]:
    """So many, every one before any comes again."""

    def rounds() -> Iterator[Any]:
        while True:
            yield from around.sample(items, len(items))

    found = rounds()
    return [next(found) for _ in range(count)] if items else []
