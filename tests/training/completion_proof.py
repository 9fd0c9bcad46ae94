"""Does the completion of failed cameras help? Trains and compares on a prepared world, and says by how much, with intervals.

    python tests/training/completion_proof.py --data WORLD --out proof --steps 1000 --rows 1 2 3 4 5 6 7a 7b 7c 8 9 10 11

Rows: 1 plain model, blank pictures; 2 mask-aware aggregation, not trained; 3 trained with failing cameras; 4 the same, mask-aware; 5 row 4
with each failed camera's last features held; 6 row 4 with level 1 of the cascade as it starts, so only the warp; 7a, 7b, 7c trained with
levels 1, 1+2, 1+2+3; 8, 9, 10, 11 rows 4, 6, 7a, 1 with coasting, where boxes stand still. All start from the same weights; the image
encoder is frozen, so its features are computed once and kept on disk.
Detection is what learns and is judged: map and planner are left out, but for 7c, where they stay as they are and say where the car goes.
Trained rows see the same frames and failures. Judged are held-out scenes: clean, and with each camera by itself dying after `--history`
frames; AP counts where only the dead camera would see, after the failure: all of it ("dead"), and its first 4 s ("early"). Differences are
taken against row 4 with the same seed; each row appends to OUT/rows.json as it is done, so rows can be run one by one. It needs no GPU.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import tyro
from completion_proof_data import CachedEncoder, FeatureCache
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import sparsedrive
from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.data.failures import FailureSchedule, MarkovFailures
from sparsedrive.data.prepared import PreparedData
from sparsedrive.data.sampler import FrameRun, SequenceSampler
from sparsedrive.decoding import decode
from sparsedrive.evaluation.predictions import FramePredictions, PredictionSet, box_records, joined, kept
from sparsedrive.evaluation.robustness import Judge
from sparsedrive.evaluation.robustness_metrics import Sector, blind_ap_difference, box_sectors
from sparsedrive.evaluation.sections import detection_section
from sparsedrive.losses.completion import CompletionLossConfig, CompletionTeacher, unexplained_share
from sparsedrive.losses.criterion import compute_losses
from sparsedrive.metrics.records import BoxRecords
from sparsedrive.models.coasting import CoastingConfig
from sparsedrive.models.completion.cameras import take_cameras
from sparsedrive.models.completion.cascade import CompletionCascade
from sparsedrive.models.completion.config import GuidedConfig, ReconstructionConfig
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.structures import CompletionPredictions, with_available
from sparsedrive.training.config import OptimiserConfig
from sparsedrive.training.optimiser import rate_share
from sparsedrive.training.recipes import recipe

Row = Literal["1", "2", "3", "4", "5", "6", "7a", "7b", "7c", "8", "9", "10", "11"]
COMPARED = ("4", "5", "6", "7a", "7b", "7c", "8", "9", "10", "11")
UNTRAINED = {"1": None, "2": None, "5": "4", "6": "4", "8": "4", "9": "4", "10": "7a", "11": None}
"""Rows without training, and whose weights they use; None: those that all start from."""
EARLY_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which rows, and how long."""

    data: Path
    """Prepared world with splits train and val."""
    out: Path
    weights: Path | None = None
    """Weights of tiny to start from; without it those that come with the library."""
    rows: tuple[Row, ...] = get_args(Row)
    steps: int = 1000
    batch: int = 4
    seed: int = 0
    rate: float = 1e-4
    """Of the trained heads."""
    rate_share: float = 10.0
    """Of the cascade, which starts from nothing, times the rate of the heads."""
    train_scenes: int = 48
    val_scenes: int = 24
    val_from: int = 0
    """How many of the held-out scenes to skip."""
    history: int = 5
    """Frames in which all cameras work before one dies."""
    rounds: int = 1000
    """Of the bootstrap."""
    losses: CompletionLossConfig = field(default_factory=CompletionLossConfig)
    """Weights of the completion's losses."""


def config_of(row: str, base: SparseDriveConfig) -> SparseDriveConfig:
    """The model of a row: the weights' own configuration with what the row adds, without what it has no use for."""
    if row != "7c":
        base = replace(base, map=None, planner=None)
    levels = sparsedrive.preset("tiny_completion").completion
    assert levels is not None
    base = replace(base, detection=replace(base.detection, coasting=CoastingConfig(speed=0.0) if row in ("8", "9", "10", "11") else None))
    kept = {"5": (), "6": (), "7a": (), "7b": ("reconstruction",), "7c": ("reconstruction", "guided"), "9": (), "10": ()}
    if row not in kept:
        return replace(base, mask_aware=row in ("2", "4", "8"))
    reconstruction = ReconstructionConfig(hidden_dim=32) if "reconstruction" in kept[row] else None
    guided = GuidedConfig() if "guided" in kept[row] else None
    return replace(base, mask_aware=True, completion=replace(levels, reconstruction=reconstruction, guided=guided))


class Hold(CompletionCascade):
    """Row 5: the features each camera gave last, as they were, fully believed."""

    def _complete(self, images, rig, memory, cameras, true_way_m) -> CompletionPredictions:
        valid = take_cameras(memory.valid[:, -1], cameras)
        features = take_cameras(memory.packed[-1], cameras) * valid[..., None, None]
        return CompletionPredictions(
            cameras=cameras, level_hw=images.level_hw, confidence=valid[..., None].to(features.dtype).expand(features.shape[:3]),
            temporal=features, source=None, reconstructed=None, mean=None, log_variance=None, guided=None, importance=None,
        )  # fmt: skip


def build(row: str, start: dict[str, Tensor], base: SparseDriveConfig, seed: int) -> SparseDrive:
    """The model of a row with the weights to start from; its cascade is fresh."""
    torch.manual_seed(seed)
    model = config_of(row, base).build()
    if row == "5":
        assert model.config.completion is not None
        model.completion = Hold(model.config.completion, base.encoder.neck.out_channels, 4, base.camera_names)
    left_out = tuple(f"{name}." for name in ("map", "planner") if getattr(model, name) is None)
    state = {name: value.float() for name, value in start.items() if not name.startswith(left_out or "-")}
    lacking, strange = model.load_state_dict(state, strict=False)
    assert not strange and all(name.startswith("completion.") for name in lacking), (lacking[:3], strange[:3])
    return model


def train(model: SparseDrive, cache: FeatureCache, arguments: Arguments) -> dict[str, float]:
    """Heads and cascade on the cached features, with cameras that fail and come back; returns means over the last tenth."""
    runs = [FrameRun(scene=name, start=0, stop=count) for name, count in cache.frames_of.items()]
    sampler = SequenceSampler(runs, arguments.batch, seed=arguments.seed)
    failures = MarkovFailures(down_share=0.25, mean_down_s=4.0, seed=arguments.seed, fill="intact")
    model.image_encoder = CachedEncoder(cache)
    model.train()
    for fixed in (model.map, model.planner):
        if fixed is not None:
            fixed.eval().requires_grad_(requires_grad=False)
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = [p for name, p in learning.items() if name.startswith("completion.")]
    heads = [p for name, p in learning.items() if not name.startswith("completion.")]
    groups = [{"params": group, "share": share} for group, share in ((heads, 1.0), (own, arguments.rate_share)) if group]
    optimiser = torch.optim.AdamW(groups, lr=arguments.rate, weight_decay=1e-3)
    schedule = OptimiserConfig(rate=arguments.rate, warmup_steps=min(100, arguments.steps // 10))
    criterion = replace(recipe("tiny_completion").criterion, completion=arguments.losses)
    state, last, begun = None, [], time.perf_counter()
    for step in range(arguments.steps):
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * group["share"] * rate_share(step, arguments.steps, schedule)
        requests = sampler.requests(step)
        frame, targets = cache.batch(requests)
        failed = torch.from_numpy(np.stack([[fault is not None for fault in failures.faults(r, cache.camera_names)] for r in requests]))
        depth_m = tuple(level * ~failed[..., None, None] for level in targets.depth_m)
        failing = with_available(frame, frame.rig.available & ~failed)
        said, state = model(failing, state)
        teacher = CompletionTeacher(packed=cache.features(frame.images).packed, known=failed) if said.completion is not None else None
        judged = replace(said, map=None, motion=None, plan=None)
        losses = compute_losses(judged, failing, replace(targets, depth_m=depth_m), criterion, teacher=teacher)
        optimiser.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(learning.values(), 25.0)
        optimiser.step()
        state = state.detach()
        if step + 1 > 0.9 * arguments.steps:
            last.append(
                {"loss": float(losses.total.detach())}
                | ({} if teacher is None else {"unexplained": _unexplained(said.completion, teacher)})
            )
        if step % 100 == 0:
            print(
                f"  step {step}: loss {float(losses.total.detach()):.2f}, {(time.perf_counter() - begun) / (step + 1):.2f} s a step",
                flush=True,
            )
    return {name: float(np.nanmean([row[name] for row in last])) for name in last[0]} if last else {}


def _unexplained(said: CompletionPredictions, teacher: CompletionTeacher) -> float:
    """1 - R^2 of what the heads saw, mean over levels; NaN if nothing failed."""
    weight = said.cameras.failed.to(said.confidence.dtype)
    if not bool(weight.any()):
        return math.nan
    truth = take_cameras(teacher.packed, said.cameras)
    return float(unexplained_share(said.last.detach(), truth, weight, said.level_hw).mean())


@torch.inference_mode()
def answers(model: SparseDrive, cache: FeatureCache, judge: Judge, scripts: Sequence[FailureSchedule]) -> list[PredictionSet]:
    """All held-out scenes through the model, once for every script, side by side as streams of one batch."""
    model.image_encoder = CachedEncoder(cache)
    model.eval()
    found: list[list[FramePredictions]] = [[] for _ in scripts]
    for number, (name, count) in enumerate(cache.frames_of.items()):
        state = None
        for index in range(count):
            request = cache.request(name, index, sequence_id=number)
            frame, _ = cache.batch([request] * len(scripts))
            failed = torch.tensor([[fault is not None for fault in script.faults(request, cache.camera_names)] for script in scripts])
            said, state = model(with_available(frame, frame.rig.available & ~failed), state)
            scene = decode(said, frame.command, no_duplicates=model.config.no_duplicates)
            for stream, frames in enumerate(found):
                frames.append(kept(scene, stream))
    return [_prediction_set(model, judge, frames) for frames in found]


def _prediction_set(model: SparseDrive, judge: Judge, frames: Sequence[FramePredictions]) -> PredictionSet:
    boxes, lines, forecasts, plan_m = joined(frames)
    return PredictionSet(
        version=judge.truth.data.version, split=judge.truth.split, preset=model.config.name, weights="", parity=(), library="",
        frames=judge.truth.frames, boxes=boxes, lines=lines, forecasts=forecasts, plan_m=plan_m,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Clean mAP, and for each camera the sector it alone sees, `whole` and with its failure (`broken`): as long as it is dead, and in the
    first `EARLY_FRAMES` of that."""

    clean_map: float
    whole: dict[str, list[Sector]]
    broken: dict[str, list[Sector]]


def failing_scripts(judge: Judge, history: int) -> list[FailureScript]:
    """Nothing fails; then each camera by itself, dying after `history` frames of every scene."""
    scripts = [FailureScript(spans=())]
    for camera in judge.camera_names:
        spans = [
            FaultSpan(scene=scene.name, camera=camera, start=history, stop=scene.num_frames, kind="intact") for scene in judge.truth.scenes
        ]
        scripts.append(FailureScript(spans=tuple(spans)))
    return scripts


def evaluate(model: SparseDrive, cache: FeatureCache, judge: Judge, history: int) -> Judged:
    """The held-out scenes without a failure, and with every camera by itself dying after `history` frames."""
    poses = judge.truth.global_T_ego
    scripts = failing_scripts(judge, history)
    clean, *said = (box_records(found, poses) for found in answers(model, cache, judge, scripts))
    lost = [judge.lost(script) for script in scripts[1:]]
    early = judge.truth.frames.number < history + EARLY_FRAMES
    spells = {"dead": lost, "early": [one & early[:, None] for one in lost]}

    def sectors(found: Sequence[BoxRecords], spell: str) -> list[Sector]:
        return [box_sectors(judge.truth, judge.boxes, *pair, judge.camera_names)[0] for pair in zip(found, spells[spell], strict=True)]

    section = detection_section(judge.boxes, clean, "")
    there = section.hits.num_truth.sum(0) > 0
    return Judged(
        clean_map=float(section.ap[there].mean()),
        whole={spell: sectors([clean] * len(lost), spell) for spell in spells},
        broken={spell: sectors(said, spell) for spell in spells},
    )


def report(row: str, seed: int, found: Judged, reference: Judged | None, frames, rounds: int) -> dict[str, object]:
    """One row of the table; against `reference`, row 4's, where there is one."""
    entry: dict[str, object] = {"row": row, "seed": seed, "clean_map": found.clean_map}
    if reference is not None:
        entry["clean_against_row_4"] = found.clean_map - reference.clean_map
    for spell, broken in found.broken.items():
        said: dict[str, object] = {
            "blind_ap": _mean(broken), "blind_ap_clean": _mean(found.whole[spell]),
            "blind_ap_by_camera": [sector.mean_ap for sector in broken], "boxes": [sector.num_truth for sector in broken],
        }  # fmt: skip
        if reference is not None:
            said["against_row_4"] = asdict(blind_ap_difference(reference.broken[spell], broken, frames, rounds=rounds))
            lost = _mean(reference.whole[spell]) - _mean(reference.broken[spell])
            said["gain"] = (_mean(broken) - _mean(reference.broken[spell])) / lost if lost else math.nan
        entry[spell] = said
    return entry


def settings_of(arguments: Arguments) -> str:
    """What trained weights depend on besides row, seed and steps, which are in their name."""
    everything = asdict(arguments)
    return json.dumps(
        {name: everything[name] for name in ("weights", "batch", "rate", "rate_share", "train_scenes", "losses")}, default=str
    )


def trained_before(weights: Path | None, settings: str) -> dict[str, Tensor]:
    """The weights of a row trained earlier, if there are any. `ValueError` if that was with other settings."""
    if weights is None or not weights.is_file():
        return {}
    with safe_open(weights, framework="pt") as file:
        earlier = (file.metadata() or {}).get("settings")
    if earlier != settings:
        raise ValueError(f"{weights}: expected weights trained with {settings}, got {earlier}; give another --out")
    return load_file(weights)


def first_scenes(data: PreparedData, split: str, scenes: int, skip: int = 0) -> PreparedData:
    """The first scenes of one split, after those to skip."""
    return replace(data, splits={split: data.split(split)[skip : skip + scenes]})


def _mean(sectors: Sequence[Sector]) -> float:
    return float(np.nanmean([sector.mean_ap for sector in sectors]))


def main(arguments: Arguments) -> int:
    """Rows one after the other; row 4 first where others are compared with it."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = PreparedData.open(arguments.data)
    base = sparsedrive.load("tiny", arguments.weights or "packaged")
    start = {name: value.clone() for name, value in base.state_dict().items()}
    held_out = first_scenes(data, "val", arguments.val_scenes, arguments.val_from)
    judge = Judge.of(held_out, "val", base.config.camera_names)
    caches = {
        split: FeatureCache.make(some, split, base, arguments.out / f"features-{split}.npy")
        for split, some in (("train", first_scenes(data, "train", arguments.train_scenes)), ("val", held_out))
    }
    path, settings = arguments.out / "rows.json", settings_of(arguments)
    needed = set(arguments.rows) & set(COMPARED)
    order = sorted({*arguments.rows, *(("4",) if needed else ())}, key=lambda row: (row != "4", get_args(Row).index(row)))
    reference = None
    for row in order:
        print(f"row {row}", flush=True)
        begun, trained = time.perf_counter(), {}
        source = UNTRAINED.get(row, row)
        weights = None if source is None else arguments.out / f"row-{source}-seed-{arguments.seed}-steps-{arguments.steps}.safetensors"
        known = trained_before(weights, settings)
        if row in UNTRAINED and weights is not None and not known:
            raise ValueError(f"row {row}: expected the weights of row {source}, there is no {weights}; run row {source} first")
        model = build(row, start | known, base.config, arguments.seed)
        if row not in UNTRAINED and not known and weights is not None:
            trained = train(model, caches["train"], arguments)
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights, metadata={"settings": settings})
        found = evaluate(model, caches["val"], judge, arguments.history)
        reference = found if row == "4" else reference
        entry = report(row, arguments.seed, found, reference if row in COMPARED else None, judge.truth.frames, arguments.rounds)
        entry |= {"steps": arguments.steps, "seconds": time.perf_counter() - begun}
        table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []  # now: another process may have added rows
        before = [old for old in table if (old["row"], old["seed"], old["steps"]) == (row, arguments.seed, arguments.steps)]
        entry["trained"] = trained or next((old["trained"] for old in before), {})
        table = [old for old in table if old not in before] + [entry]
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(entry), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
