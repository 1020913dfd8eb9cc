"""Devices: where a model runs. Told without importing torch, which takes seconds, unless there is a GPU.

cpu        the C++ engine
cuda       PyTorch on an NVIDIA GPU (torch_engine.py)
torch-cpu  PyTorch on the CPU: slower than the C++ engine, and there to be compared with it
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from quinze.errors import InvalidRequestError

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_DEVICE = "auto"
TORCH_CPU = "torch-cpu"
_SIGNS = (Path("/proc/driver/nvidia"), Path("/dev/nvidia0"), Path("/dev/dxg"))
"""What the driver of an NVIDIA GPU leaves; the last under WSL."""


def device_of(name: str) -> str:
    """Raises InvalidRequestError for no device."""
    if name not in (*DEVICES, TORCH_CPU):
        raise InvalidRequestError(
            f"device is {name!r}; it must be auto, cpu or cuda.",
            hint="auto takes a GPU where one is, and the model fits its memory.",
            param="device",
        )
    return name


def torch_is_installed() -> bool:
    """Looked up, not imported."""
    return importlib.util.find_spec("torch") is not None


def gpu_is_present() -> bool:
    """Whether the machine has an NVIDIA GPU and its driver."""
    return any(sign.exists() for sign in _SIGNS)
