"""What `bessemer run` does under torchrun: the first process leads, the others serve.

torchrun_child.py FOLDER speak|hang|refuse|misconfigured|pretrain
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from test_launch import hang, refuse, speak
from test_training_stages import PRETRAIN

from bessemer.errors import BessemerError, ConfigError
from bessemer.runner.manifest import Artifact, read_manifest
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.told_once import told_once
from bessemer.training.parallel.torchrun import dismiss, serve
from bessemer.training.pretrain import pretrain
from stage_helpers import stage_context

TWO = ParallelConfig(data=2, timeout_s=120)
IMPATIENT = ParallelConfig(data=2, timeout_s=10)
MANY_STEPS = PRETRAIN.model_copy(update={"parallel": ParallelConfig(data=2), "tokens": 128 * 40})


def lead(folder: Path, kind: str) -> None:
    if kind == "pretrain":
        inputs = [folder / "inputs" / name for name in ("tokens", "tokenizer")]
        context = stage_context(folder, *(Artifact(path, read_manifest(path)) for path in inputs))
        pretrain(MANY_STEPS, context)
        return
    work = {"speak": speak, "hang": hang, "refuse": refuse}[kind]
    for name in ("first", "second"):
        config = TrainingConfig(parallel=IMPATIENT if kind == "hang" else TWO)
        print(name, on_ranks(work, config, stage_context(folder / name)), flush=True)


def die_once(folder: Path) -> None:
    """Kill this process when the first checkpoint is there, unless torchrun has restarted it."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0" or not (folder / "die").exists():
        return

    def wait_and_die() -> None:
        while not list((folder / "scratch" / "checkpoints").glob("step*")):
            time.sleep(0.001)
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, daemon=True).start()


def main() -> None:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    if kind == "misconfigured":
        raise ConfigError("give it a name")
    if os.environ["RANK"] != "0":
        die_once(folder)
        serve()
        return
    lead(folder, kind)
    dismiss()


if __name__ == "__main__":
    try:
        with told_once():
            main()
    except BessemerError as error:
        sys.exit(f"bessemer: {error}")
