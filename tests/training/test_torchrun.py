import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.errors import BessemerError
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.schedules import ScheduleConfig
from bessemer.training.sft import SftConfig, tune
from stage_helpers import stage_context

HERE = Path(__file__).parent


@pytest.mark.slow
def test_stages_are_led_by_the_first_process_that_torchrun_starts(tmp_path):
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(HERE / "torchrun_child.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["first {'sum': 3.0}", "second {'sum': 3.0}"]
    assert (tmp_path / "second" / "output" / "written").read_text() == "0"


def test_a_layout_of_another_size_than_torchrun_started_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torchrun, "_joined", lambda: (None, 0, 4))
    config = TrainingConfig(parallel=ParallelConfig(data=2))
    with pytest.raises(
        BessemerError, match=r"asks for 2 processes, and torchrun has started 4: make the product"
    ):
        torchrun.lead(None, config, stage_context(tmp_path))


def test_a_stage_is_handed_on_as_json(tmp_path):
    config = SftConfig(epochs=1.5, parallel=ParallelConfig(data=2), schedule=ScheduleConfig(decay=0.6))
    context = replace(stage_context(tmp_path), seed=2**60 + 1, run={"name": "x"})
    message = torchrun._message(tune, config, context)
    json.loads(message)
    work, read_config, read_context = torchrun._read(message)
    assert work is tune
    assert read_config == config
    assert replace(read_context, reporter=context.reporter) == context
