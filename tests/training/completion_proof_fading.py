"""How what is known of the blind sector fades after a camera dies, and how far perfect remembering would get. After `completion_proof.py`:

    python tests/training/completion_proof_fading.py --data WORLD --out proof --val-scenes 12

Blind AP and gain by the time since the failure, for the rows that need no training beyond row 4's. Besides, from the truth: every blind
object that a working camera saw before has the box that was last found there (within 2 m), once standing still and once moving as the
object really moves, and there are no other boxes in the blind sector. So nothing is invented and nothing that was found is forgotten; what
is left of the clean score is lost to motion, what is above it to the invented boxes of the clean pictures.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from completion_proof import answers, build, failing_scripts, first_scenes
from completion_proof_data import FeatureCache
from jaxtyping import Bool
from safetensors.torch import load_file

import sparsedrive
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.predictions import box_records
from sparsedrive.evaluation.robustness import Judge
from sparsedrive.evaluation.robustness_metrics import blind_rows, box_sectors, seen_by
from sparsedrive.metrics.records import BoxRecords, cat_boxes

ROWS = ("4", "6", "8", "9")
SPELLS_S = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 20.0), (0.0, 20.0))
FRAME_S = 0.5
NEAR_M = 2.0
KEEPS = 0.95
"""Share of their confidence that remembered boxes keep from frame to frame, as in `CoastingConfig`."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where row 4 was trained."""

    data: Path
    out: Path
    steps: int = 400
    seed: int = 0
    val_scenes: int = 24
    history: int = 5


def fading(judge: Judge, said: Sequence[BoxRecords], lost: Sequence[np.ndarray], since_s: np.ndarray) -> list[float]:
    """Blind AP in each of `SPELLS_S`, mean over the cameras that died."""
    found = []
    for start_s, stop_s in SPELLS_S:
        spell = ((since_s >= start_s) & (since_s < stop_s))[:, None]
        sectors = [
            box_sectors(judge.truth, judge.boxes, *pair, judge.camera_names)[0]
            for pair in zip(said, [one & spell for one in lost], strict=True)
        ]
        found.append(float(np.nanmean([sector.mean_ap for sector in sectors])))
    return found


def perfectly_remembered(judge: Judge, failing: BoxRecords, lost: Bool[np.ndarray, "F C"], *, moves: bool) -> BoxRecords:
    """`failing`, but in the blind sector: there the boxes that stood at each object when a working camera last saw it, if any did."""
    there = judge.boxes.boxes
    seen = seen_by(judge.truth, judge.camera_names, there.frame, there.center_m)
    blind, visible = blind_rows(seen, lost[there.frame]), (seen & ~lost[there.frame]).any(1)
    rows_of: dict[tuple[int, str], list[int]] = {}
    for row in np.argsort(there.frame, kind="stable"):
        rows_of.setdefault((int(judge.truth.frames.scene[there.frame[row]]), str(there.track_id[row])), []).append(int(row))
    in_frame = {int(frame): np.flatnonzero(failing.frame == frame) for frame in np.unique(failing.frame)}
    taken, frames, centres, scores = [], [], [], []
    for rows in rows_of.values():
        last = None
        for row in rows:
            if visible[row]:
                last = _answer(failing, there, row, in_frame.get(int(there.frame[row]), np.zeros(0, int))) or last
            if blind[row] and last is not None:
                answer, at = last
                taken.append(answer)
                frames.append(there.frame[row])
                centres.append(failing.center_m[answer] + moves * (there.center_m[row] - there.center_m[at]))
                scores.append(failing.score[answer] * KEEPS ** (there.frame[row] - there.frame[at]))
    rest = failing[~blind_rows(seen_by(judge.truth, judge.camera_names, failing.frame, failing.center_m), lost[failing.frame])]
    if not taken:
        return rest
    more = replace(failing[np.array(taken)], frame=np.array(frames), center_m=np.array(centres), score=np.array(scores))
    return cat_boxes((rest, more))


def _answer(said: BoxRecords, there: BoxRecords, row: int, candidates: np.ndarray) -> tuple[int, int] | None:
    """The most confident box of the object's class near it, with the object's row."""
    away_m = np.linalg.norm(said.center_m[candidates, :2] - there.center_m[row, :2], axis=1)
    near = candidates[(said.label[candidates] == there.label[row]) & (away_m < NEAR_M)]
    return (int(near[said.score[near].argmax()]), row) if len(near) else None


def main(arguments: Arguments) -> int:
    """Prints and writes OUT/fading.json."""
    data = PreparedData.open(arguments.data)
    base = sparsedrive.load("tiny", "packaged")
    start = {name: value.clone() for name, value in base.state_dict().items()}
    start |= load_file(arguments.out / f"row-4-seed-{arguments.seed}-steps-{arguments.steps}.safetensors")
    held_out = first_scenes(data, "val", arguments.val_scenes)
    judge = Judge.of(held_out, "val", base.config.camera_names)
    cache = FeatureCache.make(held_out, "val", base, arguments.out / "features-val.npy")
    scripts = failing_scripts(judge, arguments.history)
    lost = [judge.lost(script) for script in scripts[1:]]
    since_s = (judge.truth.frames.number - arguments.history) * FRAME_S
    table: dict[str, list[float]] = {}
    for row in ROWS:
        model = build(row, start, base.config, arguments.seed)
        clean, *failing = (box_records(found, judge.truth.global_T_ego) for found in answers(model, cache, judge, scripts))
        table[row] = fading(judge, failing, lost, since_s)
        print(row, np.round(table[row], 3), flush=True)
        if row == "4":
            table["clean"] = fading(judge, [clean] * len(lost), lost, since_s)
            for name, moves in (("remembered, still", False), ("remembered, moved", True)):
                known = [perfectly_remembered(judge, *pair, moves=moves) for pair in zip(failing, lost, strict=True)]
                table[name] = fading(judge, known, lost, since_s)
    lowest, highest = np.array(table["4"]), np.array(table["clean"])
    gains = {name: ((np.array(values) - lowest) / (highest - lowest)).tolist() for name, values in table.items()}
    for name, values in table.items():
        print(name, np.round(values, 3), "G", np.round(gains[name], 2))
    found = {"spells_s": SPELLS_S, "blind_ap": table, "gain": gains, "steps": arguments.steps, "seed": arguments.seed}
    (arguments.out / "fading.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
