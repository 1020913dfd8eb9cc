"""The learning rate as a function of progress: how much of the time or of the tokens granted is used.

Never of a step's number alone: a run that has 90 minutes ends decayed after 90 minutes, however fast the
machine turns out to be (a warm-down counted in steps that were never reached is a known way to lose).
"""

from __future__ import annotations

import math

from quinze.training.run_config import ScheduleTable


def share(schedule: ScheduleTable, progress: float) -> float:
    """Of the peak rate, 0 to 1, at `progress` 0 to 1.

    Warm-up rises in a straight line. "wsd" (Hu et al. 2024, MiniCPM) then stays, and falls in a straight line
    over the last `decay`; "cosine" falls all the way (Loshchilov & Hutter 2017). Both end at `final`.
    """
    at = min(max(progress, 0.0), 1.0)
    if at < schedule.warmup:
        return at / schedule.warmup
    if schedule.kind == "cosine":
        behind = (at - schedule.warmup) / max(1 - schedule.warmup, 1e-9)
        falls = (1 + math.cos(math.pi * behind)) / 2
    else:
        falls = min(1.0, (1 - at) / schedule.decay) if schedule.decay else 1.0
    return schedule.final + (1 - schedule.final) * falls
