"""Training runs as the faces start them: the trainer with the doctor beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quinze.errors import MissingPackageError

if TYPE_CHECKING:
    from quinze.training.run_config import RunConfig
    from quinze.training.trainer import Trainer


def trainer_of(
    config: RunConfig, folder: Path, *, watched: bool = True, accept_drift: bool = False, language: str = "en"
) -> Trainer:
    """A run that waits to be iterated. MissingPackageError where PyTorch is not installed."""
    need_torch()
    from quinze.training.doctor import Doctor
    from quinze.training.doctor.settings import DoctorSettings
    from quinze.training.trainer import Trainer

    doctor = Doctor(DoctorSettings(language="zh" if language == "zh" else "en")) if watched else None
    return Trainer(config, folder, watcher=doctor, accept_drift=accept_drift)


def need_torch() -> None:
    """Training needs PyTorch, which a plain installation leaves out."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "Training needs PyTorch, which is not installed here.", hint="pip install 'quinze[train]'"
        ) from error
