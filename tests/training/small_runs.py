"""A preset that trains in a fraction of a second a step, and data for it. As a script: `sparsedrive` with that preset.

    python small_runs.py train small --data PREPARED --out RUN

With DIE_IN_CHECKPOINT=<step>:<place> in the environment the process kills itself while it writes that step's checkpoint: after its
"first file", before it gets its "name", or half-way through the "removal" of an old one.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from sparsedrive import preset
from sparsedrive.cli import main
from sparsedrive.config.presets import PRESETS
from sparsedrive.data.prepared import PreparedData
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.training import checkpoint, recipes
from sparsedrive.training.config import OptimiserConfig

CAMERAS = ("CAM_FRONT", "CAM_BACK")
DIE = "DIE_IN_CHECKPOINT"
TEST_DATA = str(Path(__file__).parents[1] / "data")


def small() -> SparseDriveConfig:
    """Two cameras of 64 x 32 pixels, 8 boxes, 6 lines, two layers of 16 channels."""
    tiny = preset("tiny")
    tiny = replace(tiny, detection=replace(tiny.detection, denoising=None))  # whose noise every process draws for itself
    layer = replace(tiny.detection.layer, dim=16, num_heads=2, ffn_dim=16, num_groups=2)
    assert tiny.planner is not None
    return replace(
        tiny,
        name="small",
        image_wh_px=(64, 32),
        camera_names=CAMERAS,
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=18, width=4), neck=FPNConfig(out_channels=16)),
        objects=replace(tiny.objects, num_proposals=2),
        detection=replace(tiny.detection, num_anchors=8, num_memory=5, num_layers=2, layer=layer),
        map=replace(tiny.map, num_anchors=6, num_memory=3, num_layers=2, layer=replace(layer, decoupled_attention=False)),
        planner=replace(tiny.planner, dim=16, num_heads=2, ffn_dim=16, num_layers=1, num_agents=4, num_elements=3),
    )


def without_chance(config: SparseDriveConfig) -> SparseDriveConfig:
    """Nothing random in training: what a row of a batch gives does not depend on the others, but for batch norms."""
    assert config.planner is not None
    layers = [replace(head.layer, dropout=0.0, sampling_dropout=0.0) for head in (config.detection, config.map)]
    return replace(
        config,
        encoder=replace(config.encoder, grid_mask=None),
        detection=replace(config.detection, layer=layers[0]),
        map=replace(config.map, layer=layers[1]),
        planner=replace(config.planner, dropout=0.0),
    )


def still() -> SparseDriveConfig:
    """`small` without chance."""
    return replace(without_chance(small()), name="still")


def recipe() -> recipes.Recipe:
    """Twelve steps over the twelve frames of `prepared_samples.write_prepared`, two streams."""
    optimiser = OptimiserConfig(rate=1e-3, warmup_steps=2)
    return recipes.Recipe(epochs=2, batch_size=2, optimiser=optimiser, parts=1)


def write_data(folder: Path) -> PreparedData:
    """Twelve prepared frames in three scenes, seen by the preset's cameras."""
    if TEST_DATA not in sys.path:
        sys.path.append(TEST_DATA)
    from prepared_samples import write_prepared

    return write_prepared(folder, cameras=CAMERAS)


def register() -> None:
    """Make the preset known to this process."""
    PRESETS["small"], PRESETS["still"] = small, still
    recipes.RECIPES["small"] = recipes.RECIPES["still"] = recipe


def command(data: Path, out: Path, *options: str, name: str = "small") -> list[str]:
    """`sparsedrive train small` as a process of its own."""
    fixed = ["--data", str(data), "--out", str(out), "--cpu", "--workers", "0", "--log-every", "1", "--save-every", "2"]
    return [sys.executable, __file__, "train", name, *fixed, *options]


def environment(**more: str) -> dict[str, str]:
    """Of a process: one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | more


def run_to_the_end(data: Path, out: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Starts a process and waits."""
    return subprocess.run(command(data, out, *options), env=environment(**more), capture_output=True, text=True, timeout=120, check=False)


def same_tensors(one: Path, other: Path) -> bool:
    """Two safetensors files hold the same bits."""
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def die_in_checkpoint(step: int, place: str) -> None:
    """Make this process kill itself there."""
    here = f"{checkpoint.PREFIX}{step:08d}"
    write_process, publish, remove = checkpoint.write_process, checkpoint.publish, checkpoint.shutil.rmtree

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after_the_first_file(partial: Path, *rest) -> None:
        write_process(partial, *rest)
        if here in partial.name:
            die()

    def before_the_name(partial: Path, keep: int) -> Path:
        if here in partial.name:
            die()
        return publish(partial, keep)

    def within_removal(path: Path, **options) -> None:
        if (path.parent / here).is_dir() and (path / checkpoint.MODEL).is_file():
            (path / checkpoint.MODEL).unlink()
            die()
        remove(path, **options)

    if place == "first file":
        checkpoint.write_process = after_the_first_file
    elif place == "name":
        checkpoint.publish = before_the_name
    else:
        assert place == "removal"
        checkpoint.shutil.rmtree = within_removal


if __name__ == "__main__":
    register()
    if DIE in os.environ:
        at, _, where = os.environ[DIE].partition(":")
        die_in_checkpoint(int(at), where)
    sys.exit(main())
