"""From rows of tokens (examples/prepare_data.py) to a model of your own in so many minutes; then it speaks.

python examples/train.py OUT MINUTES PROMPT
"""

from __future__ import annotations

import sys
from pathlib import Path

import quinze
from quinze.training.doctor.doctor import Doctor
from quinze.training.events import EvaluationReport, Finding, RunEnd, SampleReport
from quinze.training.run_config import run_config
from quinze.training.trainer import Trainer


def main(out: str, minutes: float, prompt: str, hidden_size: int = 128) -> None:
    folder = Path(out)
    config = run_config(
        {
            "data": {"folder": str(folder / "data"), "tokenizer": str(folder / "tokenizer")},
            "model": {
                "hidden_size": hidden_size,
                "intermediate_size": 3 * hidden_size,
                "num_hidden_layers": 4,
            },
            "schedule": {"minutes": minutes},
            "evaluation": {"times": 10, "prompts": [prompt]},
        }
    )
    # Started again after an interruption, it goes on where it was.
    for event in Trainer(config, folder / "run", watcher=Doctor()).run():
        match event:
            case EvaluationReport():
                print(f"step {event.step}: {event.loss:.3f} nats a token, {event.bits_per_byte} bits a byte")
            case SampleReport():
                print(f"    {event.prompt}{event.text}")
            case Finding():
                print(f"{event.severity}: {event.verdict}")
            case RunEnd():
                print(f"{event.reason} after {event.seconds:.0f} s: {event.model}")
    with quinze.LLM(folder / "run" / "final") as llm:
        print(prompt + llm.complete(prompt, max_tokens=40).text)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
