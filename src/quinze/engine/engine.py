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
import time
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from quinze import native
from quinze.engine.constraints import Constraint
from quinze.engine.packed import Packed
from quinze.engine.sampling import SamplingParams
from quinze.engine.turns import Turns
from quinze.errors import (
    ContextLengthError,
    FileFormatError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedModelError,
)
from quinze.formats.checkpoint import Tensor, TensorType
from quinze.formats.quants import decode
from quinze.models.config import ModelConfig
from quinze.models.weights import Model

FinishReason = Literal["stop", "length", "cancelled"]

PENALTY_WINDOW = 256
"""Tokens that the repetition penalty looks back on (csrc/sampling.h)."""
PREFILL_STEP = 256
"""Tokens of a prompt that are computed in one turn, so that others get theirs in between."""


class Engine:
    """One loaded model. Generations may run side by side in several threads: they take turns by the token."""

    def __init__(
        self,
        model: Model,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        kernels: str = "auto",
        kv_type: str = "f16",
        packed: Packed | None = None,
    ) -> None:
        """threads None: every core that this process may use. kv_type: "f16" or "f32".

        packed  matrices that take the place of the file's own (packed.py)
        """
        self.config: ModelConfig = model.config
        usual, most = model.config.max_position_embeddings, model.config.longest_context
        self.context_length = usual if context_length is None else min(context_length, most)
        if self.context_length < 1:
            raise InvalidRequestError(
                f"The context length is {context_length}; it must be at least 1.", param="context_length"
            )
        self.threads = threads if threads is not None else len(os.sched_getaffinity(0))
        if kv_type not in ("f16", "f32"):
            raise InvalidRequestError(f"kv_type is {kv_type!r}; it must be f16 or f32.", param="kv_type")
        self._kv_type = kv_type
        self._turns = Turns()
        self._kept = _Kept()
        self._model: Model | None = model  # its mapped file must outlive the decoder
        self._decoder: native.Decoder | None = _decoder(
            model, self.context_length, self.threads, kernels, packed or {}
        )

    def generate(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        *,
        stop_ids: Collection[int] = (),
        cancel: threading.Event | None = None,
        constraint: Constraint | None = None,
    ) -> Generation:
        """The ids that follow `ids`, each computed when it is asked for.

        constraint  what may be said; a fresh one for each generation

        Raises ContextLengthError if the prompt does not fit, InvalidRequestError for ids the model has not.
        """
        prompt = self._checked(ids)
        self._check_bias(params)
        return Generation(self, prompt, params, frozenset(stop_ids), cancel, constraint)

    def logits(self, ids: Sequence[int]) -> native.Floats:
        """The logits after each of `ids` (T, V), as one fresh sequence."""
        prompt = self._checked(ids)
        with self._turns.turn():
            decoder = self._running()
            return decoder.forward_all(decoder.cache(self._kv_type), prompt)

    def observe(self) -> None:
        """Sum up from now on the squares of what each weight is multiplied with."""
        with self._turns.turn():
            self._running().observe()

    def observed(self) -> dict[str, tuple[npt.NDArray[np.float64], int]]:
        """Hugging Face's name of a weight -> (sums of squares (cols,), tokens), since `observe`."""
        with self._turns.turn():
            return self._running().observed()

    def hidden_states(self, ids: Sequence[int], *, cancel: threading.Event | None = None) -> native.Floats:
        """What the head would read after each of `ids` (T, C), as one fresh sequence.

        No rows where `cancel` was set on the way.
        """
        prompt = self._checked(ids)
        with self._turns.turn():
            decoder = self._running()
            asked = None if cancel is None else cancel.is_set
            return decoder.forward_hidden(decoder.cache(self._kv_type), prompt, asked)

    def close(self) -> None:
        """Give the memory back. A generation under way ends with InvalidRequestError at its next token."""
        with self._turns.turn():
            self._kept.drop()
            self._decoder = None
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

    def _checked(self, ids: Sequence[int]) -> native.Ids:
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


class Logprobs(NamedTuple):
    """What the model itself thought of a token, before temperature, penalties and bias."""

    id: int
    logprob: float
    most_likely: list[tuple[int, float]]
    """(id, logprob), the likeliest first."""


class Generation(Iterator[int]):
    """One answer being written. Iterate it in one thread; close it, or set `cancel`, from any."""

    def __init__(
        self,
        engine: Engine,
        prompt: native.Ids,
        params: SamplingParams,
        stop_ids: frozenset[int],
        cancel: threading.Event | None,
        constraint: Constraint | None = None,
    ) -> None:
        self.prompt_tokens = len(prompt)
        self.cached_tokens = 0
        """Tokens of the prompt that an earlier generation had already computed."""
        self.completion_tokens = 0
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self.finish_reason: FinishReason | None = None
        self.logprobs: Logprobs | None = None
        """Of the id yielded last, if they were asked for."""
        self._engine = engine
        self._ids: list[int] = prompt.tolist()
        self._stop_ids = stop_ids
        self._cancel = cancel
        self._constraint = constraint
        self._closed = threading.Event()
        self._cache: native.Cache | None = None
        self._sampler = native.sampler(
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
        for token in self._ids[-PENALTY_WINDOW:]:
            self._sampler.read(token)
        self._tell_logprobs = params.logprobs is not None
        room = engine.context_length - len(self._ids)
        self._left = room if params.max_tokens is None else min(room, params.max_tokens)

    def __next__(self) -> int:
        if self.finish_reason is not None:
            raise StopIteration
        if self._left <= 0:
            self._finish("length")
            raise StopIteration
        try:
            token = self._next_token()
            ended = token is None or token in self._stop_ids or self._completes(token)
        except BaseException:
            self._finish("cancelled", keep=False)
            raise
        if token is None or token in self._stop_ids:
            self._finish("cancelled" if token is None else "stop")
            raise StopIteration
        self._ids.append(token)
        self.completion_tokens += 1
        self._left -= 1
        if ended:
            self._finish("stop")
        elif self._left == 0:
            self._finish("length")
        return token

    def close(self) -> None:
        """Stop, at the next layer if it is computing, and give the cache back. Twice does no harm."""
        self._closed.set()
        with self._engine._turns.turn():
            if self.finish_reason is None:
                self._finish("cancelled")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Without a turn: nobody else can hold this generation any more.
        if getattr(self, "finish_reason", "length") is None:
            self._finish("cancelled")

    def _completes(self, token: int) -> bool:
        """Whether the constraint lets nothing follow this token."""
        if self._constraint is None:
            return False
        self._constraint.accept(token)
        if self._constraint.done:
            return True
        # Now, without a turn: a grammar that takes its time keeps nobody else waiting.
        self._constraint.mask()
        return False

    def _cancelled(self) -> bool:
        return self._closed.is_set() or (self._cancel is not None and self._cancel.is_set())

    def _next_token(self) -> int | None:
        """The next id; None if cancelled."""
        try:
            return self._prefill_and_sample() if self.completion_tokens == 0 else self._decode_and_sample()
        except ArithmeticError as error:
            raise FileFormatError(
                f"{self._engine.config.name} computed no usable probabilities: {error}",
                hint="Its file is damaged, or was converted wrongly; get it again.",
            ) from error
        except MemoryError as error:
            raise TooLargeError(
                f"There is no memory left for {len(self._ids):,} tokens of context.",
                hint="Shorten the prompt, or close other programs.",
            ) from error

    def _prefill_and_sample(self) -> int | None:
        while self._cache is None or self._cache.length < len(self._ids):
            with self._engine._turns.turn(self._cancelled) as granted:
                if not granted:
                    return None
                began = time.perf_counter()
                if self._cache is None:
                    self._take_cache()
                done = self._forward(PREFILL_STEP)
                self.prefill_seconds += time.perf_counter() - began
                if not done:
                    return None
        with self._engine._turns.turn(self._cancelled) as granted:
            return self._sample() if granted else None

    def _decode_and_sample(self) -> int | None:
        with self._engine._turns.turn(self._cancelled) as granted:
            if not granted:
                return None
            began = time.perf_counter()
            token = self._sample() if self._forward(1) else None
            self.decode_seconds += time.perf_counter() - began
            return token

    def _take_cache(self) -> None:
        decoder = self._engine._running()
        self._cache, common = self._engine._kept.take(self._ids)
        if self._cache is None:
            self._cache = decoder.cache(self._engine._kv_type)
        # One id at least must pass through the model: its logits begin the answer.
        self.cached_tokens = min(common, len(self._ids) - 1)
        decoder.truncate(self._cache, self.cached_tokens)

    def _forward(self, most: int) -> bool:
        """Up to `most` of the ids that the cache has not seen; False if cancelled."""
        assert self._cache is not None
        ids = np.asarray(self._ids[self._cache.length : self._cache.length + most], dtype=np.int32)
        return self._engine._running().forward(self._cache, ids, self._cancelled)

    def _sample(self) -> int:
        assert self._cache is not None
        mask = None if self._constraint is None else self._constraint.mask()
        token = self._engine._running().sample(self._cache, self._sampler, mask)
        if self._tell_logprobs:
            self.logprobs = Logprobs(token, *self._sampler.logprobs())
        return token

    def _finish(self, reason: FinishReason, *, keep: bool = True) -> None:
        self.finish_reason = reason
        cache, self._cache = self._cache, None
        if keep and cache is not None and self._engine._decoder is not None:
            self._engine._kept.put(self._ids[: cache.length], cache)


class _Kept:
    """The cache of the sequence that ended last: whoever continues it computes only what is new.

    `take` is called by whoever has the turn; `put` at any moment, even in garbage collection: hence no lock.
    """

    def __init__(self) -> None:
        self._held: tuple[list[int], native.Cache] | None = None

    def put(self, ids: list[int], cache: native.Cache) -> None:
        self._held = (ids, cache)

    def take(self, ids: list[int]) -> tuple[native.Cache | None, int]:
        """The kept cache and how many of its ids begin `ids` too; (None, 0) if there are none."""
        held = self._held
        if held is None:
            return None, 0
        differs = (i for i, (mine, theirs) in enumerate(zip(held[0], ids, strict=False)) if mine != theirs)
        common = next(differs, min(len(held[0]), len(ids)))
        if common == 0:
            return None, 0
        if self._held is held:
            self._held = None
        return held[1], common

    def drop(self) -> None:
        self._held = None


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
