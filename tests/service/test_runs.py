"""Training runs as the service knows them: made-up folders for every state, and a real tiny run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from quinze.errors import (
    BusyError,
    ConflictError,
    InvalidRequestError,
    MissingPackageError,
    QuinzeError,
    RunNotFoundError,
)
from quinze.service import run_process
from quinze.service.run_info import RunInfo
from quinze.service.runs import Runs
from quinze.training.control import holding, wanted
from quinze.training.doctor.words import finding
from quinze.training.events import EvaluationReport, RunEnd, StepReport, TrainingEvent

TOML = 'method = "pretrain"\n[data]\nfolder = "/data"\n[schedule]\nsteps = 10\n'


def step(number: int, loss: float = 4.0) -> StepReport:
    return StepReport(
        step=number, tokens=100 * number, epoch=0.1, seconds=float(number), loss=loss, learning_rate=1.0,
        grad_norm=1.0, tokens_per_second=100.0, progress=number / 10, eta_seconds=10.0 - number,
    )  # fmt: skip


def ending(reason: str, model: Path | None = None, message: str = "") -> RunEnd:
    return RunEnd(
        reason=reason, step=10, seconds=10.0, best_step=10, best_loss=2.0,  # type: ignore[arg-type]
        model=str(model) if model else None, message=message,
    )  # fmt: skip


def write(folder: Path, *events: TrainingEvent) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(TOML)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.writelines(msgspec.json.encode(event) + b"\n" for event in events)
    return folder


@pytest.fixture
def runs(home: Path) -> Runs:
    return Runs(home)


@pytest.mark.parametrize(
    ("events", "state", "progress"),
    [
        ([step(1), step(2)], "interrupted", 0.2),
        ([step(2), ending("interrupted")], "interrupted", 0.2),
        ([step(10), ending("finished")], "finished", 1.0),
        ([step(4), ending("stopped")], "finished", 0.4),
        ([step(4), ending("failed", message="The loss is not a number.")], "failed", 0.4),
    ],
)
def test_the_state_of_a_run_is_read_from_its_folder(
    runs: Runs, home: Path, events: list[TrainingEvent], state: str, progress: float
) -> None:
    write(home / "runs" / "one", *events)
    (found,) = runs.list()
    assert (found.name, found.state, found.progress) == ("one", state, progress)
    assert found.message == ("The loss is not a number." if state == "failed" else "")


def test_a_run_whose_process_lives_is_running_or_paused(runs: Runs, home: Path) -> None:
    folder = write(home / "runs" / "one", step(3))
    with holding(folder):
        assert runs.look("one").state == "running"
        assert runs.pause("one").state == "paused"
        assert runs.resume("one").state == "running"
        runs.stop("one")
        assert wanted(folder) == "stop"
        with pytest.raises(ConflictError, match="under way"):
            runs.forget("one")
        with pytest.raises(ConflictError, match="Another process trains"), holding(folder):
            pass
    assert runs.look("one").state == "interrupted"
    with pytest.raises(ConflictError, match="nothing to pause"):
        runs.pause("one")


def test_the_model_of_a_run_begun_with_a_relative_path_is_found(runs: Runs, home: Path) -> None:
    folder = write(home / "runs" / "one", step(10), ending("finished", Path("elsewhere/one/final")))
    assert runs.look("one").model is None
    (folder / "final").mkdir()
    assert runs.look("one").model == str(folder / "final")


def test_numbers_are_those_of_the_log(runs: Runs, home: Path) -> None:
    best = EvaluationReport(
        step=2, seconds=2.0, split="val", loss=2.5, bits_per_byte=1.1, best=True, train_loss=4.0
    )
    worse = msgspec.structs.replace(best, step=3, loss=2.7, bits_per_byte=1.2)
    warned = finding("B5.short", "warning", steps=12, batch=80)
    folder = write(home / "runs" / "one", warned, step(1), step(2), best, step(3), worse)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"type":"step","st')
    found = runs.get("one", "zh")
    assert (found.step, found.tokens, found.lines, found.warnings) == (3, 300, 6, 1)
    assert (found.best_loss, found.best_step, found.bits_per_byte) == (2.5, 2, 1.1)
    assert found.loss == pytest.approx(4.0)
    assert found.config is not None
    assert found.config.schedule.steps == 10
    assert "优化" in found.findings[0].verdict
    assert runs.get("one").findings == [warned]


def test_a_log_of_nonsense_is_passed_over(runs: Runs, home: Path) -> None:
    folder = write(home / "runs" / "one", step(1))
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n" + b"[" * 100_000 + b'\n{"type":"step"}\n{"type":"finding","id":1}\n')
    (folder / "floors.json").write_text("[1]")
    (folder / "run.toml").write_bytes(b"\x00")
    found = runs.get("one")
    assert (found.step, found.lines, found.floors, found.config) == (1, 5, None, None)


def test_events_go_on_after_a_number_and_begin_anew_when_the_log_does(runs: Runs, home: Path) -> None:
    folder = write(home / "runs" / "one", step(1), step(2), step(3))
    events = runs.events("one", after=1)
    assert events.more() == (False, [(2, step(2)), (3, step(3))])
    write(folder, step(4))
    assert events.more() == (False, [(4, step(4))])
    # A run that goes on writes its log anew, under another inode.
    again = write(home / "again", step(1), step(2, 3.0))
    (again / "metrics.jsonl").replace(folder / "metrics.jsonl")
    assert events.more() == (True, [(1, step(1)), (2, step(2, 3.0))])
    assert runs.events("one", after=4).more()[0], "numbers of the old log are void"
    assert runs.look("one").step == 2


def test_of_many_steps_some_are_sent_and_the_last_of_them(runs: Runs, home: Path) -> None:
    write(home / "runs" / "one", *(step(i) for i in range(1, 1001)), ending("finished"))
    _, found = runs.events("one", steps=100).more()
    numbers = [number for number, _ in found]
    assert len(numbers) == 102
    assert numbers[-2:] == [1000, 1001]
    assert len(runs.events("one").more()[1]) == 1001


def test_a_run_elsewhere_is_added_by_its_folder_and_forgotten(runs: Runs, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "far" / "mine", step(1))
    assert runs.add(folder).name == "mine"
    assert runs.add(folder).name == "mine", "it is known already"
    other = write(tmp_path / "near" / "mine", step(2))
    assert runs.add(other).name == "mine-2"
    assert [run.path for run in Runs(home).list() if run.name == "mine-2"] == [str(other)]
    runs.forget("mine")
    assert [run.name for run in runs.list()] == ["mine-2"]
    assert (folder / "metrics.jsonl").is_file()
    ours = write(home / "runs" / "ours", ending("finished"))
    runs.forget("ours")
    assert "ours" not in [run.name for run in runs.list()]
    assert ours.is_dir()
    assert runs.add(ours).name == "ours"


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "-x", ".x", "a\x00b", "x" * 300, "\ud800"])
def test_a_name_that_is_a_path_is_refused(runs: Runs, home: Path, name: str) -> None:
    with pytest.raises(RunNotFoundError):
        runs.look(name)
    with pytest.raises(InvalidRequestError):
        runs.start("pretrain", {"data": {"folder": "/data"}}, name)
    assert not (home / "runs").exists()


def test_a_folder_without_a_run_is_refused(runs: Runs, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing", Path("/x\x00y"), Path("/" + "x" * 5000)):
        with pytest.raises(RunNotFoundError):
            runs.add(folder)


def test_settings_are_refused_as_the_trainer_refuses_them(runs: Runs) -> None:
    with pytest.raises(InvalidRequestError, match=r"optimizer.lrr.*Did you mean optimizer.lr"):
        runs.start("pretrain", {"data": {"folder": "/data"}, "optimizer": {"lrr": 1}})
    with pytest.raises(InvalidRequestError, match="one length"):
        runs.start("pretrain", {"data": {"folder": "/data"}, "schedule": {"steps": 1, "minutes": 1}})


def test_one_run_at_a_time(runs: Runs, home: Path) -> None:
    with holding(write(home / "runs" / "one", step(1))), pytest.raises(BusyError, match="'one' is under way"):
        runs.start("pretrain", {"data": {"folder": "/data"}})
    assert [run.name for run in runs.list()] == ["one"]


def test_without_torch_nothing_is_started(runs: Runs, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_process.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="PyTorch"):
        runs.start("pretrain", {"data": {"folder": "/data"}})
    assert not (home / "runs").exists()


def test_the_service_never_loads_torch(home: Path) -> None:
    write(home / "runs" / "one", finding("B5.short", "warning", steps=12, batch=80), step(1))
    program = (
        "import sys; from pathlib import Path; from quinze.service.service import Service\n"
        "from quinze.service.settings import Settings; from quinze.server.app import create_app\n"
        "service = Service(Path(sys.argv[1]), Settings()); create_app(service)\n"
        "service.runs.get('one', 'zh'); list(service.runs.follow('one')); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# --- a real one


def until(look: Callable[[], RunInfo], state: str) -> RunInfo:
    end = time.monotonic() + 120
    while (found := look()).state != state:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quinze.tokenizer.training import TokenizerSettings, train_tokenizer
    from quinze.training.data.manifest import PrepareSettings
    from quinze.training.data.prepare import prepare
    from quinze.training.data.sources import Source

    folder = tmp_path_factory.mktemp("data")
    texts = [f"the cat {i} sat on the mat number {i * 7 % 90} and slept" for i in range(300)]
    train_tokenizer({"cats": texts}, folder / "tokenizer", TokenizerSettings(vocab_size=300))
    source = Source.of_documents("cats", lambda: texts)
    prepare([source], folder / "tokenizer", folder / "data", PrepareSettings(sequence_length=32, workers=1))
    return folder


def tiny(data: Path, **tables: object) -> dict[str, object]:
    return {
        "data": {"folder": str(data / "data"), "tokenizer": str(data / "tokenizer")},
        "model": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        "batch": {"rows": 4},
        "schedule": {"steps": 8},
        "evaluation": {"times": 1},
        "runtime": {"threads": 1, "compile": "off", "device": "cpu"},
        **tables,
    }  # fmt: skip


def steps_of(runs: Runs, more_than: int) -> int:
    """Waits until the tiny run has taken more steps."""
    end = time.monotonic() + 120
    while (found := runs.look("tiny")).step <= more_than:
        assert found.state == "running", found
        assert time.monotonic() < end
        time.sleep(0.1)
    return found.step


def test_a_run_survives_its_server_goes_on_after_an_interruption_and_ends_with_a_model(
    home: Path, data: Path
) -> None:
    runs = Runs(home)
    config = tiny(data, schedule={"steps": 1_000_000})
    assert runs.start("pretrain", config, "tiny").state == "running"
    with pytest.raises(BusyError):
        runs.start("pretrain", config, "second")
    steps_of(runs, 3)
    after = Runs(home)  # the server was started again
    assert after.look("tiny").state == "running"
    runs._children[home / "runs" / "tiny"].terminate()
    before = until(lambda: after.look("tiny"), "interrupted").step
    assert after.resume("tiny").state == "running"
    steps_of(after, before)
    assert after.stop("tiny").state == "running"
    found = until(lambda: after.look("tiny"), "finished")
    assert found.model is not None
    assert (Path(found.model) / "model.safetensors").is_file()
    assert after.get("tiny").floors is not None
    told = [type(event).__name__ for event in after.follow("tiny")]
    assert told[-1] == "RunEnd"
    assert "StepReport" in told
    with pytest.raises(ConflictError, match="finished"):
        after.resume("tiny")


def test_a_run_that_cannot_begin_says_why(home: Path, tmp_path: Path) -> None:
    runs = Runs(home)
    (tmp_path / "empty").mkdir()
    runs.start("pretrain", {"data": {"folder": str(tmp_path / "empty")}}, "lost")
    found = until(lambda: runs.look("lost"), "failed")
    assert "empty" in found.message
    with pytest.raises(QuinzeError):
        runs.stop("lost")
