"""Engine: token ids in, token ids out.

Given a Model, whose weights run from the mapped file, and SamplingParams; yields ids. Knows nothing of text.

    engine = Engine(load_model(path))
    with engine.generate(ids, SamplingParams(temperature=0)) as generation:
        for id in generation: ...

T tokens, V vocabulary.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import abc
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from quinze import native
from quinze.engine.adapters import Adapters, Loaded, number_of
from quinze.engine.constraints import Constraint
from quinze.engine.generation import Generation
from quinze.engine.options import DEFAULT_KV_TYPE, DEFAULT_PREFIX_BYTES, kv_type_of
from quinze.engine.pace import STEP_TOKENS
from quinze.engine.packed import Packed
from quinze.engine.sampling import SamplingParams, speculation_of
from quinze.engine.scheduler import Scheduler
from quinze.engine.sequence import Sequence
from quinze.engine.speculation import PromptLookup
from quinze.errors import ContextLengthError, InvalidRequestError, UnsupportedModelError
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode
from quinze.models.adapters import Adapter
from quinze.models.config import ModelConfig
from quinze.models.weights import Model

PENALTY_WINDOW = 256
"""Tokens that the repetition penalty looks back on (csrc/sampling.h)."""
PREFILL_STEP = STEP_TOKENS
"""Tokens of a prompt that are computed at once."""


class Engine:
    """One loaded model. Generations of many threads run side by side: a pass over the weights serves all."""

    def __init__(
        self,
        model: Model,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        kernels: str = "auto",
        kv_type: str = DEFAULT_KV_TYPE,
        kv_bytes: int | None = None,
        prefix_bytes: int = DEFAULT_PREFIX_BYTES,
        speculation: str = "auto",
        packed: Packed | None = None,
        decoder: native.Decoder | None = None,
    ) -> None:
        """threads None: every core that this process may use.

        kv_type       of keys and values: "f16", "q8_0" (half of that) or "f32"
        kv_bytes      most memory for them, of all generations; None: as much as there is
        prefix_bytes  of that, for generations that ended and whose beginning others may share
        speculation   "auto": guess what is repeated, where that pays; "off"
        packed        matrices that take the place of the file's own (packed.py)
        decoder       what computes; None: the native code, on the CPU (torch_engine.py has another)
        """
        self.config: ModelConfig = model.config
        usual, most = model.config.max_position_embeddings, model.config.longest_context
        self.context_length = usual if context_length is None else min(context_length, most)
        if self.context_length < 1:
            raise InvalidRequestError(
                f"The context length is {context_length}; it must be at least 1.", param="context_length"
            )
        self.threads = threads if threads is not None else len(os.sched_getaffinity(0))
        self._kv_type = kv_type_of(kv_type)
        self._guesses = speculation_of(speculation) == "auto"
        self._model: Model | None = model  # its mapped file must outlive the decoder
        self._decoder: native.Decoder | None = decoder or _decoder(
            model, self.context_length, self.threads, kernels, packed or {}
        )
        self._adapters: Adapters | None = Adapters(self._decoder, model)
        self._scheduler = Scheduler(
            self._decoder,
            name=model.config.name,
            kv_type=kv_type,
            kv_bytes=kv_bytes,
            prefix_bytes=prefix_bytes if kv_bytes is None else min(prefix_bytes, kv_bytes // 2),
        )

    def generate(
        self,
        ids: abc.Sequence[int],
        params: SamplingParams,
        *,
        stop_ids: Collection[int] = (),
        cancel: threading.Event | None = None,
        constraint: Constraint | None = None,
        adapter: Loaded | None = None,
    ) -> Generation:
        """The ids that follow `ids`, each computed when it is asked for.

        constraint  what may be said; a fresh one for each generation
        adapter     from `load_adapter`: what the ids pass through besides; others have theirs meanwhile

        Raises ContextLengthError if the prompt does not fit, TooLargeError if there could never be memory for
        it, InvalidRequestError for ids the model has not.
        """
        prompt: list[int] = self._checked(ids).tolist()
        self._check_bias(params)
        self._running()
        self._scheduler.check_fits(len(prompt))
        room = self.context_length - len(prompt)
        guesses = self._guesses and params.speculation == "auto" and constraint is None
        sequence = Sequence(
            ids=prompt,
            prompt=len(prompt),
            left=room if params.max_tokens is None else min(room, params.max_tokens),
            sampler=_sampler(params, prompt),
            stop_ids=frozenset(stop_ids),
            cancel=cancel,
            constrained=constraint is not None,
            wants_logprobs=params.logprobs is not None,
            lookup=PromptLookup(prompt) if guesses else None,
            adapter=number_of(adapter),
        )
        return Generation(self._scheduler, sequence, constraint)

    def load_adapter(self, adapter: Adapter) -> Loaded:
        """Put an adapter beside the model, for as long as that is open. A second time it is the same.

        UnsupportedModelError if it was made for another model.
        """
        self._running()
        assert self._adapters is not None
        return self._adapters.load(adapter)

    def logits(self, ids: abc.Sequence[int], adapter: Loaded | None = None) -> native.Floats:
        """The logits after each of `ids` (T, V), as one fresh sequence."""
        prompt = self._checked(ids)
        decoder = self._running()
        return decoder.forward_all(decoder.cache(self._kv_type), prompt, number_of(adapter))

    def continuations(
        self,
        prompt: abc.Sequence[int],
        given: abc.Sequence[abc.Sequence[int]],
        adapter: Loaded | None = None,
    ) -> list[native.Floats]:
        """The logits that foretell each id of each continuation, (T, V) of one of T ids.

        The prompt is computed once. It has an id at least, and so has each continuation.
        """
        before = self._checked(prompt)
        decoder, number = self._running(), number_of(adapter)
        cache = decoder.cache(self._kv_type)
        if len(before) > 1:
            decoder.forward(cache, before[:-1], adapter=number)
        found = []
        for ids in given:
            whole = self._checked([*prompt, *ids])
            found.append(decoder.forward_all(cache, whole[len(before) - 1 : -1], number))
            decoder.truncate(cache, len(before) - 1)
        return found

    def observe(self) -> None:
        """Sum up from now on the squares of what each weight is multiplied with."""
        self._running().observe()

    def observed(self) -> dict[str, tuple[npt.NDArray[np.float64], int]]:
        """Hugging Face's name of a weight -> (sums of squares (cols,), tokens), since `observe`."""
        return self._running().observed()

    def hidden_states(self, ids: abc.Sequence[int]) -> native.Floats:
        """What the head would read after each of `ids` (T, C), as one fresh sequence."""
        prompt = self._checked(ids)
        decoder = self._running()
        return decoder.forward_hidden(decoder.cache(self._kv_type), prompt)

    def close(self) -> None:
        """Give the memory back. A generation under way ends with InvalidRequestError at its next token."""
        self._scheduler.close()
        self._decoder = None
        self._adapters = None
        self._model = None

    def _running(self) -> native.Decoder:
        if self._decoder is None:
            raise InvalidRequestError("This model has been closed.", hint="Load it again.")
        return self._decoder

    def _check_bias(self, params: SamplingParams) -> None:
        wrong = next((id_ for id_ in params.logit_bias or () if not 0 <= id_ < self.config.vocab_size), None)
        if wrong is not None:
            raise InvalidRequestError(
                f"logit_bias names token {wrong}; {self.config.name} has {self.config.vocab_size:,}, "
                "counted from 0.",
                hint="The keys are token ids of this model's own tokenizer.",
                param="logit_bias",
            )

    def _checked(self, ids: abc.Sequence[int]) -> native.Ids:
        if len(ids) == 0:
            raise InvalidRequestError(
                "The prompt is empty.", hint="Give at least one token, such as the model's BOS."
            )
        if len(ids) > self.context_length:
            raise ContextLengthError(
                f"The prompt has {len(ids):,} tokens; "
                f"{self.config.name} reads at most {self.context_length:,} here.",
                hint="Shorten the prompt, or load the model with a larger context length.",
            )
        wrong = next((i for i in ids if not 0 <= i < self.config.vocab_size), None)
        if wrong is not None:
            raise InvalidRequestError(
                f"Token id {wrong} is outside the model's vocabulary of {self.config.vocab_size:,}.",
                hint="The tokenizer does not belong to this model.",
            )
        return np.asarray(ids, dtype=np.int32)


def _sampler(params: SamplingParams, prompt: list[int]) -> native.Sampler:
    sampler = native.sampler(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        typical_p=params.typical_p,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=list((params.logit_bias or {}).items()),
        logprobs=-1 if params.logprobs is None else params.logprobs,
        seed=(secrets.randbits(64) if params.seed is None else params.seed) % 2**64,
    )
    for token in prompt[-PENALTY_WINDOW:]:
        sampler.read(token)
    return sampler


def _decoder(model: Model, context_length: int, threads: int, kernels: str, packed: Packed) -> native.Decoder:
    if not 1 <= threads <= 1024:
        raise InvalidRequestError(f"threads is {threads}; it must lie between 1 and 1,024.", param="threads")
    try:
        native.kernels(kernels)
    except ValueError as error:
        raise InvalidRequestError(
            f"{error}.", hint='"scalar" runs everywhere; "auto" takes the fastest.', param="kernels"
        ) from error
    config = model.config
    numbers = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "layer_norm": config.norm == "layer",
        "norm_offset": config.norm_offset,
        "gelu": config.activation == "gelu",
        "frequencies": config.frequencies(context_length),
        "local_frequencies": config.local_frequencies(),
        "rope_scale": config.rope_scale,
        "rope_interleaved": config.rope_interleaved,
        "windows": list(config.windows),
        "attention_scale": config.head_dim**-0.5
        if config.attention_scale is None
        else config.attention_scale,
        "attention_softcap": config.attention_softcap,
        "logit_softcap": config.logit_softcap,
        "embedding_scale": config.embedding_scale,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.moe_intermediate_size,
        "shared_expert_intermediate_size": config.shared_expert_intermediate_size,
        "norm_topk_prob": config.norm_topk_prob,
    }
    tensors = {name: _weight(t) for name, t in model.tensors.items()} | dict(packed)
    try:
        return native.decoder(numbers, tensors, kernels=kernels, threads=threads)
    except ValueError as error:
        raise UnsupportedModelError(
            f"{config.name} cannot be run: {error}.", hint="Only whole models of a known family can be."
        ) from error


def _weight(tensor: Tensor) -> native.Weight:
    """As the native code takes it: where it lies in the file, or as float32 where the file has float64."""
    kind, data = tensor.type, tensor.data
    if kind is TensorType.F64:
        kind, data = TensorType.F32, decode(tensor).reshape(-1).view(np.uint8)
    return int(kind), tensor.shape[0] if len(tensor.shape) == 2 else 1, tensor.shape[-1], data
