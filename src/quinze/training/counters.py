"""Where a run is, in numbers: all of it goes into every checkpoint, and a resumed run goes on from it."""

from __future__ import annotations

from dataclasses import dataclass, field

MEAN_OF = 50
"""Steps in the moving mean of the training loss."""
HEALTHY_AFTER = 50
"""Steps without a skipped one after which a checkpoint counts as healthy."""


@dataclass(slots=True)
class Counters:
    """Of one run."""

    step: int = 0
    tokens: int = 0
    epoch: float = 0.0
    progress: float = 0.0
    seconds: float = 0.0
    """Of training."""
    used: float = 0.0
    """Of the time granted: evaluations and checkpoints too, pauses not."""
    stride: float = 0.0
    """Progress of the last step."""
    reserve: float = 0.0
    """Seconds that the end will need, for its evaluation and the model."""
    best_loss: float | None = None
    best_step: int | None = None
    smooth_loss: float | None = None
    evaluations: int = 0
    evaluated_step: int = -1
    evaluation_rows: int | None = None
    """Read at each evaluation, where a deadline allows fewer than were asked for."""
    last_skip: int | None = None
    saved_at: float = 0.0
    """`used` at the last checkpoint."""
    drift: list[str] = field(default_factory=list)
    """Changes of settings that were accepted."""

    def see(self, loss: float) -> None:
        """Into the moving mean; of the first steps it is the plain one."""
        before = loss if self.smooth_loss is None else self.smooth_loss
        self.smooth_loss = before + (loss - before) / min(self.step, MEAN_OF)

    @property
    def healthy(self) -> bool:
        return self.last_skip is None or self.step - self.last_skip > HEALTHY_AFTER
