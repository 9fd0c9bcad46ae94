"""Trains a narrow MinkUNet from scratch on scans of the generated world, and says how well it names the points of towns it has not seen.

    python tests/training/lidar_segmentation_proof.py --scenes 40 --minutes 38 --out runs/lidar_segmentation

Exit code 1 where the mean intersection over union of the held-out scenes is not above 0.6. Writes `result.json`, `curve.png` and the
weights.
"""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.convert.spconv import write_state
from sparsedrive.models.lidar_segmentation import LidarSegmentation, LidarSegmentationConfig
from sparsedrive.sparse.minkunet import UNetConfig, scaled_widths
from sparsedrive.viz.curves import draw_curves
from sparsedrive.viz.files import write_picture
from sparsedrive.world import LidarScanner, World, nuscenes_rig
from sparsedrive.world.point_labels import POINT_CLASSES, PointLabeller

WANTED = 0.6
FIRST_HELD_OUT = 10_000
"""Seeds of held-out towns begin here; those of training at 0."""
SWEEPS, APART_S = 6, 1.5
CLASSES = len(POINT_CLASSES)

Sweep = tuple[Tensor, Tensor]
"""Points x, y, z [m], intensity; and their classes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to train on, and how long."""

    scenes: int = 40
    """Towns to train on; a fifth as many more (at least two) are held out."""
    minutes: float = 38.0
    """Of training and of measuring; making the scans comes first and takes seconds a scene."""
    seed: int = 0
    out: Path = Path("runs/lidar_segmentation")
    voxel_m: float = 0.2
    width: float = 0.4
    """Of the published widths."""
    batch: int = 2
    rate: float = 4e-3


def scans(seed: int) -> list[Sweep]:
    """The sweeps of one drive of its own."""
    world, mount, found = World.create(seed), nuscenes_rig().lidar, []
    scanner, labeller = LidarScanner(world.town, world.cast, seed=seed), PointLabeller(world.town, world.cast)
    for _ in range(SWEEPS):
        points = scanner.scan(world.state, mount)
        label = labeller.label(points, world.state, mount)
        found.append((torch.from_numpy(points[:, :4].copy()), torch.from_numpy(label)))
        world.step(dt_s=APART_S)
    return found


def varied(sweep: Sweep, generator: torch.Generator) -> Sweep:
    """Turned about the vertical, mirrored half of the time, scaled by up to 5 %."""
    points, label = sweep
    angle, flip, scale = torch.rand(3, generator=generator).tolist()
    sin, cos = math.sin(2 * math.pi * angle), math.cos(2 * math.pi * angle)
    turn = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) * (0.95 + 0.1 * scale)
    turn[:, 0] *= -1 if flip < 0.5 else 1
    return torch.cat([points[:, :3] @ turn, points[:, 3:]], 1), label


def collated(sweeps: list[Sweep]) -> tuple[Tensor, Tensor, Tensor]:
    """Points, sample of each, class of each."""
    batch = torch.repeat_interleave(torch.arange(len(sweeps)), torch.tensor([len(points) for points, _ in sweeps]))
    return torch.cat([points for points, _ in sweeps]), batch, torch.cat([label for _, label in sweeps])


@torch.inference_mode()
def confusion(model: LidarSegmentation, sweeps: list[Sweep]) -> Tensor:
    """Points by true and by said class [classes, classes]."""
    model.eval()
    counts = torch.zeros(CLASSES * CLASSES, dtype=torch.int64)
    for points, label in sweeps:
        counts += torch.bincount(label * CLASSES + model(points).argmax(1), minlength=CLASSES * CLASSES)
    model.train()
    return counts.reshape(CLASSES, CLASSES)


def unions(counts: Tensor) -> Tensor:
    """Intersection over union of every class; NaN for classes that neither are there nor were said."""
    right = counts.diagonal().double()
    return right / (counts.sum(0) + counts.sum(1) - right)


def train(model: LidarSegmentation, sweeps: list[Sweep], watched: list[Sweep], options: Options) -> list[tuple[int, float, float]]:
    """Step, loss (mean since the last row) and mIoU of the watched sweeps, up to 16 times. The rate falls with the time left."""
    shares = torch.bincount(torch.cat([label for _, label in sweeps]), minlength=CLASSES).double()
    weight = (shares.sum() / shares.clamp(min=1)).sqrt().clamp(max=50).float()
    optimiser = torch.optim.AdamW(model.parameters(), options.rate, weight_decay=0.01)
    generator, rows, losses = torch.Generator().manual_seed(options.seed), [], []
    begun, step, parts = time.monotonic(), 0, min(16, math.ceil(options.minutes))
    while (part := (time.monotonic() - begun) / (60 * options.minutes)) < 1:
        chosen = torch.randint(len(sweeps), (options.batch,), generator=generator).tolist()
        points, batch, label = collated([varied(sweeps[number], generator) for number in chosen])
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)
        loss = F.cross_entropy(model(points, batch), label, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        step += 1
        if part * parts > len(rows):
            rows.append((step, float(np.mean(losses)), float(unions(confusion(model, watched)).nanmean())))
            print(f"step {step}, {60 * part * options.minutes:.0f} s: loss {rows[-1][1]:.3f}, watched mIoU {rows[-1][2]:.3f}", flush=True)
            losses = []
    rows.append((step, float(np.mean(losses)) if losses else rows[-1][1], float(unions(confusion(model, watched)).nanmean())))
    return rows


def main(options: Options) -> int:
    """Makes scans, trains, measures, writes."""
    torch.manual_seed(options.seed)
    begun = time.monotonic()
    sweeps = [sweep for number in range(options.scenes) for sweep in scans(options.seed * 1000 + number)]
    held_out = [sweep for number in range(max(2, options.scenes // 5)) for sweep in scans(FIRST_HELD_OUT + number)]
    print(f"{len(sweeps)} sweeps to train on, {len(held_out)} held out, made in {time.monotonic() - begun:.0f} s", flush=True)
    unet = UNetConfig(widths=scaled_widths(options.width), num_classes=CLASSES)
    config = LidarSegmentationConfig(voxel_m=options.voxel_m, feature_scale=(0.02, 0.02, 0.5, 0.02), unet=unet)
    model = config.build()
    rows = train(model, sweeps, held_out[::6][:6], options)
    found = unions(confusion(model, held_out))
    mean = float(found.nanmean())
    for name, value in zip(POINT_CLASSES, found.tolist(), strict=True):
        print(f"{name:16} {value:.3f}")
    print(f"mIoU {mean:.3f} of {len(held_out)} sweeps of {max(2, options.scenes // 5)} held-out scenes (wanted: above {WANTED})")
    steps, losses, watched = (list(column) for column in zip(*rows, strict=True))
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        "widths": unet.widths, "parameters": sum(p.numel() for p in model.parameters()), "steps": steps[-1],
        "sweeps": {"training": len(sweeps), "held_out": len(held_out)}, "threads": torch.get_num_threads(),
        "iou": dict(zip(POINT_CLASSES, found.tolist(), strict=True)), "miou": mean,
        "curve": {"step": steps, "loss": losses, "watched_miou": watched},
    }  # fmt: skip
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    write_picture(options.out / "curve.png", draw_curves(steps, {"loss": losses, "mIoU of six held-out sweeps": watched}))
    write_state(model.state_dict(), options.out / "model.safetensors")
    return 0 if mean > WANTED else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
