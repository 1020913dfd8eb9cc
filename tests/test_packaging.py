"""What is installed is what was meant: a light core, lazy names, the page inside."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

import quinze


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    program = (
        f"import sys; before = set(sys.modules); {statement}; "
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_quinze_loads_nothing_heavy() -> None:
    """`import quinze` costs next to nothing because it loads itself alone (its time is in
    docs/benchmarks.md)."""
    roots = {name.partition(".")[0] for name in imported_by("import quinze")}
    assert roots - set(sys.stdlib_module_names) == {"quinze"}


@pytest.mark.parametrize(
    "statement", ["import quinze.api", "import quinze.server.app", "import quinze.cli.main"]
)
def test_serving_never_meets_torch(statement: str) -> None:
    assert "torch" not in {name.partition(".")[0] for name in imported_by(statement)}


def test_every_public_name_is_there() -> None:
    for name in quinze.__all__:
        assert getattr(quinze, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quinze.nothing  # type: ignore[attr-defined]


def test_the_core_requires_no_torch_and_the_version_has_one_home() -> None:
    try:
        distribution = metadata.distribution("quinze")
    except metadata.PackageNotFoundError:
        pytest.skip("quinze is on the path but not installed, so it has no metadata")
    core = [name for name in distribution.requires or [] if "extra ==" not in name]
    assert core
    assert not [name for name in core if name.startswith(("torch", "transformers"))]
    assert distribution.version == quinze.__version__
