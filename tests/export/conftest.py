from pathlib import Path

import pytest
from export_world import run_small


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Tests read it; those that change something copy it first."""
    root = tmp_path_factory.mktemp("export")
    run_small(root)
    return root / "runs/small"
