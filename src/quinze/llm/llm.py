"""LLM: a model that completes a text and chats. Template, tokenizer, engine, stop strings, context ledger.

    llm = LLM("model.gguf")
    llm.complete("Once upon a time", max_tokens=64).text
    for delta in llm.chat([Message("user", "Hello!")], stream=True): print(delta.text, end="")

Knows nothing of HTTP or documents. One LLM serves many threads: the engine gives them turns.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, overload

from quinze.engine.adapters import Loaded
from quinze.engine.constraints import Grammar, Grammars
from quinze.engine.devices import DEFAULT_DEVICE
from quinze.engine.engine import Engine
from quinze.engine.options import DEFAULT_KV_TYPE, DEFAULT_PREFIX_BYTES
from quinze.engine.packed import packed_weights
from quinze.engine.packing import DEFAULT_PACKING, packing_of
from quinze.engine.sampling import SamplingParams
from quinze.engine.torch_engine import device_for, open_engine
from quinze.errors import FileFormatError, InvalidRequestError, UnsupportedModelError
from quinze.evaluation.choice import split
from quinze.evaluation.likelihood import Floats, gathered
from quinze.llm.adapted import Adapted
from quinze.llm.context import DEFAULT_OVERFLOW
from quinze.llm.messages import Completion, Delta, Message, Role
from quinze.llm.model import Messages
from quinze.llm.overflow import Admitted, Window, admit_chat, admit_text, overflow_of
from quinze.llm.reply import reply, whole
from quinze.llm.stops import Stops
from quinze.llm.tools import calls_apart, checked, required_call, turn_of
from quinze.models.config import ModelConfig
from quinze.models.weights import load_model
from quinze.tokenizer.chat_template import ChatTemplate
from quinze.tokenizer.tokenizer import Decoder, load_tokenizer


class LLM:
    """A loaded model. Close it, or use it in a with-statement, to give its memory back."""

    def __init__(
        self,
        path: Path | str,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        context_overflow: str = DEFAULT_OVERFLOW,
        pack_weights: str = DEFAULT_PACKING,
        kv_cache_type: str = DEFAULT_KV_TYPE,
        kv_cache_bytes: int | None = None,
        prefix_cache_bytes: int = DEFAULT_PREFIX_BYTES,
        speculation: str = "auto",
        device: str = DEFAULT_DEVICE,
    ) -> None:
        """path: a GGUF, a Hugging Face folder, or a llama2.c file with its tokenizer beside it.

        context_length  None: as long as the model was made for
        threads         None: as many as the machine has cores
        context_overflow  what is done with a prompt that does not fit, where a request does not say:
                        "error", "drop_oldest" or "keep_ends" (overflow.py)
        pack_weights    "auto": the first load leaves a rearranged copy of a quantized model's weights beside
                        it, from which it runs faster; "off": it runs from the model's own file
        kv_cache_type   of keys and values: "f16", "q8_0" (about half of that) or "f32"
        kv_cache_bytes  most memory for them, of all replies at once; None: as much as there is
        prefix_cache_bytes  of that, for texts that ended, so that others may begin with them
        speculation     "auto": guess what the text repeats, where that pays; "off"
        device          "auto": an NVIDIA GPU where PyTorch finds one and the model fits it, else the CPU;
                        "cpu", "cuda"
        """
        self.context_overflow = overflow_of(context_overflow)
        self.path = Path(path).expanduser()
        model = load_model(self.path)
        self.config: ModelConfig = model.config
        self.name = model.config.name
        self.tokenizer = load_tokenizer(self.path, model.checkpoint)
        # Gemma 3's smallest has one control token fewer than the vocabulary that all its sizes share.
        surplus = range(self.config.vocab_size, self.tokenizer.vocab_size)
        if any(self.tokenizer.token(id_) not in self.tokenizer.control_tokens for id_ in surplus):
            raise FileFormatError(
                f"The tokenizer of {self.name} has {self.tokenizer.vocab_size:,} tokens; "
                f"the model knows {self.config.vocab_size:,}.",
                hint="Use the tokenizer that came with the model.",
            )
        self._grammars = Grammars(self.tokenizer)
        self._template = ChatTemplate.of(self.tokenizer)
        packs = packing_of(pack_weights) == "auto"
        options: dict[str, Any] = {
            "context_length": context_length,
            "threads": threads,
            "kv_type": kv_cache_type,
            "kv_bytes": kv_cache_bytes,
            "prefix_bytes": prefix_cache_bytes,
            "speculation": speculation,
        }
        self.device = device_for(model, device)
        """Where it runs: "cpu" or "cuda"."""
        self._engine = (
            Engine(model, packed=packed_weights(model, threads) if packs else {}, **options)
            if self.device == "cpu"
            else open_engine(model, self.device, **options)
        )
        self.context_length = self._engine.context_length
        self._adapter: Loaded | None = None
        self._lent = False
        self._adapted = Adapted(self)

    def adapted(self, adapter: Path | str, name: str | None = None) -> LLM:
        """This model through an adapter, a LoRA folder: the weights are shared, and nothing is merged.

        Tokenizer and template beside the adapter count, where it brought any. Each is loaded once, and lives
        as long as this model. UnsupportedModelError for an adapter of another model.

        >>> llm.adapted("runs/bread/final").chat([Message("user", "Hello!")]).text
        """
        return self._adapted.get(Path(adapter).expanduser(), name)

    @property
    def remote(self) -> str:
        """ "": it runs in this process (llm/model.py)."""
        return ""

    @property
    def can_chat(self) -> bool:
        """Whether it has a chat template."""
        return self._template is not None

    # fmt: off
    @overload
    def complete(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: Literal[False] = False, stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Completion: ...
    @overload
    def complete(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: Literal[True], stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Iterator[Delta]: ...
    @overload
    def complete(
        self, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: bool, stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Completion | Iterator[Delta]: ...
    # fmt: on
    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stream: bool = False,
        stop: Sequence[str] = (),
        params: SamplingParams | None = None,
        cancel: threading.Event | None = None,
        context_overflow: str | None = None,
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Completion | Iterator[Delta]:
        """The text that follows a text.

        stop      the reply ends before any of these
        params    the whole of the sampling parameters; the loose keywords override its fields
        context_overflow  for a prompt that does not fit: "error", "keep_ends"; None: as the LLM was told
        grammar   what the reply may be: Grammar.json_schema(...), .json_object(), .regex(...), .choice(...)
        sampling  any other field of SamplingParams: top_k, seed, presence_penalty, logprobs, ...

        >>> llm.complete("Once upon a time", max_tokens=8, temperature=0).text
        ', there was a little girl named'
        """
        chosen = chosen_params(params, max_tokens=max_tokens, temperature=temperature, **sampling)
        window = self._window(chosen, context_overflow)
        admitted = admit_text(prompt, window, self.tokenizer.encode)
        decoder = self.tokenizer.stream(continues=bool(prompt) or grammar is not None)
        deltas = self._reply(admitted, decoder, chosen, stop, cancel, grammar)
        return deltas if stream else whole(deltas)

    # fmt: off
    @overload
    def chat(
        self, messages: Messages, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: Literal[False] = False, stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self, messages: Messages, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: Literal[True], stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Iterator[Delta]: ...
    @overload
    def chat(
        self, messages: Messages, *, max_tokens: int | None = None, temperature: float | None = None,
        stream: bool, stop: Sequence[str] = (), params: SamplingParams | None = None,
        cancel: threading.Event | None = None, **sampling: Any,
    ) -> Completion | Iterator[Delta]: ...
    # fmt: on
    def chat(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stream: bool = False,
        stop: Sequence[str] = (),
        params: SamplingParams | None = None,
        cancel: threading.Event | None = None,
        context_overflow: str | None = None,
        grammar: Grammar | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str = "auto",
        **sampling: Any,
    ) -> Completion | Iterator[Delta]:
        """The assistant's next message; keywords as in `complete`. For a conversation that does not fit,
        context_overflow may be "drop_oldest" too.

        tools        functions in OpenAI's form, shown to the model by its template
        tool_choice  "auto", "none", "required", or the name of one

        >>> llm.chat([{"role": "user", "content": "Hello!"}]).text
        """
        chosen = chosen_params(params, max_tokens=max_tokens, temperature=temperature, **sampling)
        window = self._window(chosen, context_overflow)
        offered = [] if tool_choice == "none" else checked(tools)
        required = bool(offered) and tool_choice != "auto"
        if required:
            if grammar is not None:
                raise InvalidRequestError("A call is required, and a form asked for.", param="tool_choice")
            grammar = required_call(offered, None if tool_choice == "required" else tool_choice)
        admitted = admit_chat(listed_messages(messages), window, lambda kept: self._chat_ids(kept, offered))
        decoder = self.tokenizer.stream(continues=grammar is not None)
        deltas = self._reply(admitted, decoder, chosen, stop, cancel, grammar)
        if offered and (grammar is None or required):
            deltas = calls_apart(deltas, required=required)
        return deltas if stream else whole(deltas)

    @property
    def can_call_tools(self) -> bool:
        """Whether its template shows tools to it."""
        return self._template is not None and "tools" in self._template.source

    def log_probabilities(self, prompt: str, continuations: Sequence[str]) -> list[Floats]:
        """log p of each token of each continuation behind the prompt, natural logarithm, (T,) of T tokens.

        The prompt is computed once. ContextLengthError where both do not fit.

        >>> [round(float(p.sum()), 1) for p in llm.log_probabilities("Once upon a", [" time", " table"])]
        [-0.0, -8.6]
        """
        if not continuations:
            return []
        pairs = [split(self.tokenizer.encode, prompt, text) for text in continuations]
        if not all(before and after for before, after in pairs):
            raise InvalidRequestError("A prompt or a continuation has no tokens.", param="labels")
        logits = self._engine.continuations(pairs[0][0], [after for _, after in pairs], self._adapter)
        return [gathered(rows, after) for rows, (_, after) in zip(logits, pairs, strict=True)]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self.tokenizer.encode(text, bos=False))

    def count_chat_tokens(self, messages: Messages) -> int:
        """Tokens of a conversation as the model reads it, with its template and the opening of the reply."""
        return len(self._chat_ids(listed_messages(messages)))

    def close(self) -> None:
        """Give the memory back."""
        if self._lent:
            return  # the model that it belongs to closes it
        self._adapted.close()
        if self._template is not None:
            self._template.close()
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _window(self, params: SamplingParams, overflow: str | None) -> Window:
        policy = self.context_overflow if overflow is None else overflow_of(overflow)
        return Window(self.name, self.context_length, params.max_tokens, policy, self.count_tokens)

    def _chat_ids(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        if self._template is None:
            raise UnsupportedModelError(
                f"{self.name} has no chat template, so it cannot chat.",
                hint="It can complete a text. An instruction-tuned model has a template.",
            )
        knows_calls = "tool_calls" in self._template.source
        turns = [turn_of(message, knows_calls=knows_calls) for message in messages]
        return self.tokenizer.encode_segments(self._template.render(turns, tools=tools))

    def _reply(
        self,
        admitted: Admitted,
        decoder: Decoder,
        params: SamplingParams,
        stop: Sequence[str],
        cancel: threading.Event | None,
        grammar: Grammar | None,
    ) -> Iterator[Delta]:
        stops = Stops(stop)
        granted = dataclasses.replace(params, max_tokens=admitted.ledger.reply_reserve)
        stop_ids = self.tokenizer.stop_ids
        constraint = None if grammar is None else self._grammars.compile(grammar)
        generation = self._engine.generate(
            admitted.ids,
            granted,
            stop_ids=stop_ids,
            cancel=cancel,
            constraint=constraint,
            adapter=self._adapter,
        )
        return reply(generation, decoder, stops, admitted.ledger, self.tokenizer.piece)


def chosen_params(params: SamplingParams | None, **loose: Any) -> SamplingParams:
    """The parameters with the loose keywords that were given put over them."""
    given = {name: value for name, value in loose.items() if value is not None}
    known: Collection[str] = {field.name for field in dataclasses.fields(SamplingParams)}
    unknown = next((name for name in given if name not in known), None)
    if unknown:
        raise InvalidRequestError(
            f"There is no sampling parameter {unknown!r}.", hint=f"Known: {', '.join(known)}.", param=unknown
        )
    return dataclasses.replace(params or SamplingParams(), **given)


def listed_messages(messages: Messages) -> list[Message]:
    """As Messages; InvalidRequestError where one is none, or there are none."""
    if not messages:
        raise InvalidRequestError("There are no messages.", param="messages")
    return [message if isinstance(message, Message) else _message(message) for message in messages]


def _message(given: Mapping[str, str]) -> Message:
    role, content = given.get("role"), given.get("content")
    if role not in get_args(Role) or not isinstance(content, str):
        raise InvalidRequestError(
            f"A message needs a role ({', '.join(get_args(Role))}) and a content that is a text.",
            param="messages",
        )
    return Message(role, content)  # type: ignore[arg-type]  # checked just above
