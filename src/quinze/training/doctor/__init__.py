"""The doctor of training runs: what is wrong, in a sentence with numbers, and what mends it.

Doctor(settings)     watches a run of ours (a Watcher, watch.py): before, during, after
diagnose(path)       reads the log of a run that is over, ours or Hugging Face's
floors               what tables and a compressor reach on the same text
translate            a finding in the other language

Loaded when they are first used: who only reads findings (a page, a list of runs) needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quinze.training.doctor.doctor import Doctor
    from quinze.training.doctor.floors import Floors
    from quinze.training.doctor.offline import Diagnosis, diagnose
    from quinze.training.doctor.settings import DoctorSettings
    from quinze.training.doctor.words import translate

__all__ = ["Diagnosis", "Doctor", "DoctorSettings", "Floors", "diagnose", "translate"]

_HOMES = {
    "Diagnosis": "offline",
    "Doctor": "doctor",
    "DoctorSettings": "settings",
    "Floors": "floors",
    "diagnose": "offline",
    "translate": "words",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
