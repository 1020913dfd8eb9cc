"""Logprobs in OpenAI's two shapes: one for chat, an older one for completions.

Bytes stand beside each token of a chat, because one Chinese character may span several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quinze.llm.messages import Likely, TokenLogprobs


def of_chat(told: Sequence[TokenLogprobs], _offset: int) -> dict[str, Any]:
    content = [
        {**_token(one.chosen), "top_logprobs": [_token(likely) for likely in one.most_likely]} for one in told
    ]
    return {"content": content, "refusal": None}


def of_completion(told: Sequence[TokenLogprobs], offset: int) -> dict[str, Any]:
    """`offset`: characters of the reply before the first of these tokens."""
    offsets, spelled = [], b""
    for one in told:
        offsets.append(offset + len(spelled.decode(errors="ignore")))
        spelled += one.chosen.bytes
    return {
        "tokens": [one.chosen.token for one in told],
        "token_logprobs": [one.chosen.logprob for one in told],
        # The chosen one is always among them, as OpenAI has it.
        "top_logprobs": [
            {likely.token: likely.logprob for likely in reversed((*one.most_likely, one.chosen))}
            for one in told
        ],
        "text_offset": offsets,
    }


def _token(likely: Likely) -> dict[str, Any]:
    return {"token": likely.token, "logprob": likely.logprob, "bytes": list(likely.bytes)}
