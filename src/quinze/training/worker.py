"""One process of a run, by itself or under torchrun:

    python -m quinze.training.worker run.toml folder
    torchrun --nproc-per-node 2 -m quinze.training.worker run.toml folder

The doctor looks on (--no-doctor: nobody does); --accept-drift goes on with other settings than before.
Says nothing: everything is in folder/metrics.jsonl. Exit codes: 0 finished or stopped, 75 interrupted (start
it again, it goes on), 10 the run failed, those of errors.py for settings that do not fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from quinze.errors import QuinzeError, TrainingError
from quinze.training.control import INTERRUPTED
from quinze.training.distributed import World
from quinze.training.doctor.doctor import Doctor
from quinze.training.events import RunEnd, TrainingEvent
from quinze.training.run_config import load_run_config
from quinze.training.trainer import Trainer


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    config, folder = (Path(argument) for argument in arguments[:2])
    last: TrainingEvent | None = None
    world: World | None = None
    try:
        read = load_run_config(config)
        world = World.join(read.runtime.device)
        drift, watcher = "--accept-drift" in arguments, None if "--no-doctor" in arguments else Doctor()
        for event in Trainer(read, folder, world=world, accept_drift=drift, watcher=watcher).run():
            last = event
    except QuinzeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    finally:
        if world is not None:
            world.leave()
    reason = last.reason if isinstance(last, RunEnd) else "failed"
    return {"interrupted": INTERRUPTED, "failed": TrainingError.exit_code}.get(reason, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
