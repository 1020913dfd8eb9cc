"""llama.cpp, called as its own benchmark calls it: one llama_decode per measurement, no server in between.

Uses the C functions that the `xllamacpp` wheel carries. Its parameter structs are passed as llama.cpp itself
filled them; only the first number of one (the context length) is changed, so that no layout is copied here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import xllamacpp


class _Params(ctypes.Structure):
    """Any parameter struct, with room to spare: the callee reads only its own part."""

    _fields_ = (("n_ctx", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 1020))


class _Batch(ctypes.Structure):
    """llama_batch: seven words, passed on as they were returned."""

    _fields_ = (("words", ctypes.c_uint64 * 7),)


def version() -> str:
    return f"xllamacpp {metadata.version('xllamacpp')}"


def _library() -> ctypes.CDLL:
    folder = Path(str(xllamacpp.__file__)).parent
    library = ctypes.CDLL(str(next(folder.glob("xllamacpp*.so"))))
    for name, result, arguments in (
        ("llama_model_default_params", _Params, []),
        ("llama_context_default_params", _Params, []),
        ("llama_model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, _Params]),
        ("llama_init_from_model", ctypes.c_void_p, [ctypes.c_void_p, _Params]),
        ("llama_set_n_threads", None, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
        ("llama_batch_get_one", _Batch, [ctypes.POINTER(ctypes.c_int32), ctypes.c_int32]),
        ("llama_decode", ctypes.c_int32, [ctypes.c_void_p, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
        ("llama_get_memory", ctypes.c_void_p, [ctypes.c_void_p]),
        ("llama_memory_clear", None, [ctypes.c_void_p, ctypes.c_bool]),
        ("llama_model_get_vocab", ctypes.c_void_p, [ctypes.c_void_p]),
        ("llama_vocab_n_tokens", ctypes.c_int32, [ctypes.c_void_p]),
        ("llama_free", None, [ctypes.c_void_p]),
        ("llama_model_free", None, [ctypes.c_void_p]),
        ("llama_log_set", None, [ctypes.c_void_p, ctypes.c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class LlamaCpp:
    """A GGUF file in llama.cpp. `threads` for prefill and decode alike; all else as llama.cpp has it."""

    def __init__(self, path: Path, *, context_length: int, threads: int) -> None:
        self._c = _library()
        callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._silence = callback(lambda *_: None)
        self._c.llama_log_set(ctypes.cast(self._silence, ctypes.c_void_p), None)
        self._model = self._c.llama_model_load_from_file(
            str(path).encode(), self._c.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = self._c.llama_context_default_params()
        params.n_ctx = context_length
        self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context")
        self._c.llama_set_n_threads(self._context, threads, threads)
        self.vocab_size = int(self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(self._model)))

    def clear(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def forward(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids; the logits after the last of them (V,), which are valid until the next call."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        status = self._c.llama_decode(self._context, self._c.llama_batch_get_one(array, len(ids)))
        if status:
            raise RuntimeError(f"llama_decode failed: {status}")
        logits = self._c.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self.vocab_size,))

    def close(self) -> None:
        self._c.llama_free(self._context)
        self._c.llama_model_free(self._model)
