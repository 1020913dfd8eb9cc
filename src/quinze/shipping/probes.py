"""Fixed probes: what every certificate asks, so that two certificates can be compared.

Texts and conversations in English and Chinese, with what tokenizers and templates stumble over; two hundred
openings to be continued. Ours, and plain; a text of the user's own domain can be given instead.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

Conversation = list[dict[str, str]]

TEXTS = (
    "The bakery on the corner opens at six. By half past the first loaves are gone, and whoever comes at "
    "seven is told, with a smile, that there will be more tomorrow.",
    "Water boils at 100 °C at sea level, but at 4,500 m it boils at about 85 °C, which is why beans take "
    "longer to cook in the mountains.",
    "def area(width: float, height: float) -> float:\n    \"\"\"Of a rectangle.\"\"\"\n"
    "    return width * height\n\n\nprint(area(3, 4.5))\n",
    "She said: \"It's not far — ten minutes, perhaps—and then we'll see.\" Nobody answered. 1. One; 2. Two.",
    "街角的面包店六点开门。到六点半，第一炉面包已经卖完了；七点才来的人，店员会笑着说，明天还有。",
    "水在海平面上一百摄氏度沸腾，而在海拔四千五百米的地方约八十五摄氏度就沸腾了，所以山里煮豆子要更久。",
    "他说：“不远，十分钟吧。”没有人回答。（注：见第3.2节，2024年修订。）",
    "Mixed: 今天是 Monday, 25 °C, café ☕️ costs €2 — tabs\there, two  spaces,\r\na new line, and 🎉👩‍👩‍👧.",
)  # fmt: skip
ENCODED = (
    *TEXTS,
    "", " ", "  leading", "trailing  ", "\n\n\n", "<|im_end|>", "</s><s>", "[INST] x [/INST]",
    "<|endoftext|>",
    "3.14159 1234567890", "ÀÉÎõü ß", "ﬁne ligature", "\u200bzero width", "a\u0301 combining",
    "한국어 日本語 العربية",
)  # fmt: skip
"""What each tokenizer has to split alike: control tokens typed by a person, too."""
CONVERSATIONS: tuple[Conversation, ...] = (
    [{"role": "user", "content": "Hello!"}],
    [{"role": "user", "content": "你好，你是谁？"}],
    [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "What is bread made of?"},
    ],
    [
        {"role": "user", "content": "Name a color."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "  Another one, please.\n"},
    ],
    [{"role": "user", "content": "What does <|im_end|> mean? And </s>?"}],
)
_STARTS = (
    "Once upon a time there was", "The best way to", "In the year 1850", "My friend told me that",
    "A recipe for", "The difference between", "When the rain stopped,", "Nobody knew why",
    "To begin with,", "The old man and", "从前有一个", "最好的办法是", "一八五零年，", "我的朋友告诉我，",
    "雨停了以后，", "没有人知道为什么", "首先，", "老人和", "今天的天气", "春天来了，",
)  # fmt: skip
_ENDS = (
    "", " a small", " the", " two", " it", " she", " of", " bread", " many people", " I",
)  # fmt: skip
_ZH_ENDS = ("", "小", "大", "人", "她", "我们", "一天", "水", "很多人", "不")


@dataclass(frozen=True, slots=True)
class Probes:
    """What is asked. `id` goes into the certificate."""

    texts: tuple[str, ...] = TEXTS
    encoded: tuple[str, ...] = ENCODED
    conversations: tuple[Conversation, ...] = CONVERSATIONS
    prompts: tuple[str, ...] = ()
    """Continued greedily; (): the 200 fixed ones."""
    new_tokens: int = 16
    """Of each continuation."""

    @property
    def continued(self) -> tuple[str, ...]:
        return self.prompts or PROMPTS

    @property
    def id(self) -> str:
        """The beginning of the sha256 of everything that is asked."""
        asked: list[Any] = [self.texts, self.encoded, self.conversations, self.continued, self.new_tokens]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()[:16]


PROMPTS = tuple(
    start + end for start in _STARTS for end in itertools.islice(_ENDS if start.isascii() else _ZH_ENDS, 10)
)
"""Two hundred."""
