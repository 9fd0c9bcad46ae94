"""Trains `tiny` on the two real frames of scene-0103 alone, and says how well it then finds their boxes and map lines.

    python tests/training/overfit_proof.py --root ../shared/data/nuscenes_real

A model, losses and calibration that fit together can learn two frames by heart; a wrong projection, a mirrored axis or a box turned the
wrong way cannot be learned away. Exit code 1 where a box is farther than a metre from its detection in more than one case out of twenty,
or a map line on average farther than half a metre from the predicted one.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import sparsedrive
from sparsedrive.cli import main as sparsedrive_verb
from sparsedrive.cli.train import Train
from sparsedrive.data.loader import make_loader
from sparsedrive.data.prepared import PreparedData
from sparsedrive.structures import FrameTargets, Scene

SCENE, SPLIT = "scene-0103", "real"
RECALL, BOX_M, LINE_M = 0.95, 1.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long to train."""

    root: Path
    """Folder of real nuScenes tables with the pictures of some frames of scene-0103."""
    epochs: int = 500
    """Two steps each."""
    rate: float = 5e-4
    score: float = 0.3
    """Answers below count as not given."""
    out: Path | None = None
    """Keep the run here; without it in a temporary folder that is removed."""


def recall(scene: Scene, targets: FrameTargets, least_score: float) -> tuple[int, int]:
    """Boxes with a detection of their class within `BOX_M` of the centre in the ground plane, one to one, and all boxes."""
    said, boxes = scene.detections, targets.boxes
    given, real = said.valid[0] & (said.score[0] > least_score), boxes.valid[0]
    distance_m = cdist(boxes.box[0, real, :2], said.box[0, given, :2])
    near = (distance_m < BOX_M) & (boxes.label[0, real].numpy()[:, None] == said.label[0, given].numpy())
    row, column = linear_sum_assignment(~near)
    return int(near[row, column].sum()), len(near)


def line_distances_m(scene: Scene, targets: FrameTargets, least_score: float) -> list[float]:
    """Chamfer distance of every real map line to the nearest predicted one of its class; infinite where there is none."""
    assert scene.map is not None
    said, lines = scene.map, targets.map
    given = said.valid[0] & (said.score[0] > least_score)
    found = []
    for points_m, label in zip(lines.points_m[0, lines.valid[0], 0], lines.label[0, lines.valid[0]], strict=True):
        distances_m = [cdist(points_m, line_m) for line_m in said.points_m[0, given & (said.label[0] == label)]]
        found.append(min(((d.min(0).mean() + d.min(1).mean()) / 2 for d in distances_m), default=np.inf))
    return found


def train(options: Options, folder: Path) -> Train:
    """Prepares the scene, makes anchors of it, trains."""
    splits, data, anchors = folder / "splits.json", folder / "prepared", folder / "anchors.safetensors"
    splits.write_text(json.dumps({SPLIT: [SCENE]}))
    sparsedrive_verb(["prepare", "nuscenes", "--root", str(options.root), "--splits", str(splits), "--out", str(data)])
    sparsedrive_verb(["anchors", "--data", str(data), "--split", SPLIT, "--preset", "tiny", "--out", str(anchors)])
    verb = Train(
        preset="tiny", data=data, split=SPLIT, out=folder / "run", anchors=anchors, missing_images="skip", no_augment=True, batch=1,
        parts=1, epochs=options.epochs, rate=options.rate, save_every=200, workers=1, cpu=True,
    )  # fmt: skip
    verb.run()
    return verb


def main(options: Options) -> int:
    """Trains and measures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        verb = train(options, folder)
        session = sparsedrive.StreamingSession(sparsedrive.load("tiny", verb.out / "model.safetensors"))
        frames = make_loader(PreparedData.open(verb.data), SPLIT, verb.load_config(), training=False, batch_size=1, workers=0)
        found, boxes, lines_m = 0, 0, []
        for frame, targets in frames:
            with torch.no_grad():
                scene = session.step(frame)
            hits, count = recall(scene, targets, options.score)
            distances_m = line_distances_m(scene, targets, options.score)
            print(f"frame at {frame.time_s.item():.3f} s: {hits} of {count} boxes within {BOX_M} m, map lines within "
                  f"{', '.join(f'{d:.2f}' for d in sorted(distances_m))} m")  # fmt: skip
            found, boxes, lines_m = found + hits, boxes + count, lines_m + distances_m
    share, worst_m = found / max(boxes, 1), max(lines_m, default=0.0)
    print(f"recall {share:.3f} of {boxes} boxes (wanted: more than {RECALL}), worst of {len(lines_m)} lines {worst_m:.2f} m "
          f"(wanted: at most {LINE_M}), answers with a score above {options.score}")  # fmt: skip
    return 0 if boxes and share > RECALL and worst_m <= LINE_M else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
