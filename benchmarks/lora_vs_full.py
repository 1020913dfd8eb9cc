"""Does LoRA reach the loss of full fine-tuning, and is what is served what was tuned?

    python benchmarks/lora_vs_full.py --base stories260K.bin --text tinyshakespeare.txt [--steps 300]

A small trained base is tuned on a text of another kind, the first 90 % to learn from and the rest to measure:
all weights, and LoRA beside all linear layers, on the same rows in the same order, each at the better of two
learning rates (LoRA's are higher: Schulman et al. 2025). Then the adapter is exported, merged, quantized and
served, and the ship certificate compares them with what was trained: 200 prompts, 16 tokens each.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from quinze.models.adapters import write_adapter
from quinze.models.base_mark import mark_of
from quinze.models.transformer import Transformer
from quinze.models.weights import load_model
from quinze.shipping.certificate import certify
from quinze.shipping.export import export
from quinze.shipping.verdicts import LEVEL_BOUNDS
from quinze.shipping.views import EngineView, TrainerView
from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.training.lora import LoraConfig, adapter_state, apply_lora, to_low_rank

LENGTH, ROWS = 128, 8
FULL_RATES = (1e-3, 3e-3)
LORA_RATES = (3e-3, 1e-2)


@dataclass
class Tuned:
    name: str
    rate: float
    parameters: int
    loss: float
    seconds: float
    model: Transformer


def batches(ids: torch.Tensor, steps: int, seed: int = 15) -> list[torch.Tensor]:
    """The same rows for everybody, (ROWS, LENGTH + 1) each."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, len(ids) - LENGTH - 1, (steps, ROWS), generator=generator)
    return [torch.stack([ids[p : p + LENGTH + 1] for p in row.tolist()]) for row in places]


def loss_of(model: Transformer, rows: torch.Tensor) -> torch.Tensor:
    logits = model(rows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def validation(model: Transformer, ids: torch.Tensor) -> float:
    """Nats a token of the whole validation text, in windows of LENGTH."""
    rows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    losses = [float(loss_of(model, part)) * len(part) for part in rows.split(64)]
    return sum(losses) / len(rows)


def tune(
    name: str,
    base: Transformer,
    lora: LoraConfig | None,
    rate: float,
    steps: int,
    data: tuple[torch.Tensor, ...],
) -> Tuned:
    """AdamW, 5 % warm-up, a straight line down to 0; no weight decay, gradients clipped at 1."""
    torch.manual_seed(15)
    model = copy.deepcopy(base)
    if lora is not None:
        apply_lora(model, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    began = time.process_time()
    for step, rows in enumerate(batches(data[0], steps)):
        warm, left = (step + 1) / max(1, steps // 20), (steps - step) / steps
        optimizer.param_groups[0]["lr"] = rate * min(warm, left)
        loss = loss_of(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    seconds = time.process_time() - began
    count = sum(p.numel() for p in trained)
    return Tuned(name, rate, count, validation(model, data[1]), seconds, model)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--ranks", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("lora_vs_full"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    opened = load_model(asked.base)
    base = Transformer.of(opened)
    words = asked.text.read_text(encoding="utf-8")
    ids = torch.tensor(load_tokenizer(asked.base).encode(words, bos=False))
    cut = len(ids) * 9 // 10
    data = (ids[:cut], ids[cut:])
    print(
        f"torch {torch.__version__}, {asked.threads} thread(s), {platform.processor() or platform.machine()}"
    )
    print(f"base {asked.base.name}: {validation(base, data[1]):.4f} nats a token of {asked.text.name}")
    best = search(base, asked.ranks, asked.steps, data)
    full = best["full"]
    print("\n| tuned | trained | rate | loss | beside full | CPU seconds |\n|---|---|---|---|---|---|")
    for one in best.values():
        beside = f"{one.loss / full.loss - 1:+.2%}"
        told = (f"{one.parameters:,}", f"{one.rate:g}", f"{one.loss:.4f}", beside, f"{one.seconds:.0f}")
        print(f"| {one.name} | {' | '.join(told)} |")
    keep(asked, best[f"LoRA, rank {asked.ranks[0]}"])
    compare(asked)


def search(
    base: Transformer, ranks: list[int], steps: int, data: tuple[torch.Tensor, ...]
) -> dict[str, Tuned]:
    """The best rate of each."""
    kinds: dict[str, tuple[LoraConfig | None, tuple[float, ...]]] = {"full": (None, FULL_RATES)}
    kinds |= {f"LoRA, rank {rank}": (LoraConfig(rank=rank), LORA_RATES) for rank in ranks}
    best: dict[str, Tuned] = {}
    for name, (lora, rates) in kinds.items():
        for rate in rates:
            one = tune(name, base, lora, rate, steps, data)
            print(f"  {name} at {rate:g}: {one.loss:.4f}", flush=True)
            if name not in best or one.loss < best[name].loss:
                best[name] = one
    return best


def keep(asked: argparse.Namespace, tuned: Tuned) -> None:
    """The adapter, in PEFT's layout."""
    assert adapter_state(tuned.model)
    write_adapter(
        asked.out / "adapter", to_low_rank(tuned.model), rslora=True, base=str(asked.base.absolute()),
        mark=mark_of(load_model(asked.base)),
    )  # fmt: skip


def compare(asked: argparse.Namespace) -> None:
    """Adapter, merged and quantized, each served and compared with what was trained."""
    out = asked.out
    reference = TrainerView("trainer (PyTorch, base and adapter)", asked.base, adapter=out / "adapter")
    views = [EngineView("adapter, served beside its base", asked.base, adapter=out / "adapter", threads=1)]
    for level in ("f32", "q8_0", "q4_k_m", "q4_0"):
        file = out / f"merged-{level}.gguf"
        file.unlink(missing_ok=True)
        for note in export(out / "adapter", file, to="gguf", level_name=level).notes:
            print(f"{level}: {note}")
        views.append(EngineView("merged, f32" if level == "f32" else level, file, threads=1))
    base = EngineView("base", asked.base, threads=1)
    certificate = certify(reference, views, bounds=dict(LEVEL_BOUNDS), base=base)
    certificate.write(out)
    print("\n| served | verdict | same of 200 | divergence | bits a byte | tune kept |")
    print("|---|---|---|---|---|---|")
    for one in certificate.comparisons:
        found = {check.name: check.numbers for check in one.checks}
        kept = found.get("tune", {}).get("kept")
        print(
            f"| {one.name} | {one.verdict.split(':')[0]} | {found['greedy']['same'] * 200:.0f} | "
            f"{found['divergence']['mean']:.2g} | {found['bits per byte']['candidate']:.4f} | "
            f"{'all' if kept is None else f'{kept:.1%}'} |"
        )


if __name__ == "__main__":
    main()
