"""What `bessemer run` does under torchrun, for two stages: the first process leads, the others serve."""

import os
import sys
from pathlib import Path

from test_launch import speak

from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.torchrun import dismiss, serve
from stage_helpers import stage_context

if os.environ["RANK"] != "0":
    serve()
else:
    for name in ("first", "second"):
        config = TrainingConfig(parallel=ParallelConfig(data=2))
        print(name, on_ranks(speak, config, stage_context(Path(sys.argv[1]) / name)))
    dismiss()
