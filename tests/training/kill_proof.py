"""Kills a training again and again at random moments, and compares its weights with those of a run that was left alone.

    python tests/training/kill_proof.py --kills 10

Prints every kill and whether the last weights are the same to the last bit; exit code 1 where they are not.
"""

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from small_runs import command, environment, run_to_the_end, same_tensors, write_data

from sparsedrive.training.checkpoint import MODEL, checkpoints
from sparsedrive.training.logs import read_log
from sparsedrive.training.trainer import CHECKPOINTS


@dataclass(frozen=True, kw_only=True)
class Options:
    """How often, for how long a run, and which moments."""

    kills: int = 10
    epochs: int = 24
    """Six steps each, with a checkpoint every two steps."""
    seed: int = 0


def killed_at(words: list[str], out: Path, steps: int, share: float) -> str:
    """Lets a run go on for `steps` more steps than it has logged and the share of another, kills it, and says where that was."""
    logged = len(read_log(out))
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.perf_counter()
    while process.poll() is None and len(read_log(out)) < logged + steps:
        time.sleep(0.001)
    step_s = (time.perf_counter() - began) / (steps + 1)
    time.sleep(share * step_s)
    ended = process.poll() is not None
    process.kill()
    process.wait()
    saved = [path.name for path in (out / CHECKPOINTS).glob("*")]
    if ended:
        return "none: the run had ended before; give more --epochs"
    writing = " while it wrote a checkpoint" if any(name.endswith(".part") for name in saved) else ""
    whole = checkpoints(out / CHECKPOINTS)
    return f"after step {len(read_log(out))}{writing}; last checkpoint {whole[-1].name if whole else 'none'}"


def main(options: Options) -> int:
    """Runs both and compares."""
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, whole, out = Path(folder) / "data", Path(folder) / "whole", Path(folder) / "killed"
        write_data(data)
        epochs = ("--epochs", str(options.epochs))
        run_to_the_end(data, whole, *epochs).check_returncode()
        for number in range(options.kills):
            place = killed_at(command(data, out, *epochs, "--resume"), out, draw.randint(1, 5), draw.random())
            print(f"kill {number + 1:2d}  {place}", flush=True)
        run_to_the_end(data, out, *epochs, "--resume").check_returncode()
        same = same_tensors(whole / MODEL, out / MODEL)
        print(f"{len(read_log(out))} steps; weights {'the same, bit for bit' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
