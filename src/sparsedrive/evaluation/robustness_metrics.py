"""What is known where a camera is lost: scores restricted to the blind sector, and how sure a difference between two models is.

The *blind sector* of a frame is what only lost cameras would see. A truth belongs to it if its centre falls into the picture of at least
one lost camera and of no working one; everything else is the *rest*. A prediction goes where the truth goes that it matches in the whole
scene (boxes within 4 m, lines within the widest chamfer threshold); one that matches none goes where its own centre lies. So a box that is
placed half a metre too far does not turn from a hit of one sector into a false alarm of the other, and every prediction counts once.
Each sector is then judged by the usual rules, as if it were all there is; means are over the classes that are annotated in it.

"Lost" are the cameras a scenario does anything to, whether or not the model is told. The clean model is judged on the same sectors, so
that what is kept is compared with what there was to keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.evaluation import resampling
from sparsedrive.evaluation.bootstrap import ROUNDS, SEED, Difference, SceneParts, paired_difference
from sparsedrive.evaluation.hits import ScoredHits
from sparsedrive.evaluation.results import FrameIndex
from sparsedrive.evaluation.sections import detection_section
from sparsedrive.evaluation.truth import SplitTruth
from sparsedrive.metrics.detection import DetectionConfig, evaluate_detection
from sparsedrive.metrics.mapping import SPARSEDRIVE, MapLines, MapScores, area_under_curve, evaluate_map
from sparsedrive.metrics.records import BoxRecords, GroundTruth
from sparsedrive.structures import MAP_CLASSES

MIN_DEPTH_M = 0.1
NEAR_M = 2.0
"""Distance at which recall and false alarms are counted, that of the errors of nuScenes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sector:
    """One sector's predictions, judged: C classes, K thresholds.

    Attributes:
        classes: names of the labels of `hits`.
        ap: [C, K] average precision; 0 for a class without truth.
        hits: the predictions of the sector, and its truth.
    """

    classes: tuple[str, ...]
    ap: Float[np.ndarray, "C K"]
    hits: ScoredHits

    @property
    def num_truth(self) -> int:
        """How much there was to find."""
        return int(self.hits.num_truth.sum())

    @property
    def mean_ap(self) -> float:
        """mAP over the classes that are annotated in the sector; NaN if nothing is."""
        there = self.hits.num_truth.sum(0) > 0
        return float(self.ap[there].mean()) if there.any() else float("nan")


def blind_rows(seen: Bool[np.ndarray, "N C"], lost: Bool[np.ndarray, "N C"]) -> Bool[np.ndarray, "N"]:
    """Which points only lost cameras see. `seen`: in whose pictures each point lies; `lost`: the cameras lost at its frame.

    `ValueError` when the two do not belong together.
    """
    if seen.shape != lost.shape or seen.ndim != 2:
        raise ValueError(f"blind_rows: expected two masks [points, cameras], got {list(seen.shape)} and {list(lost.shape)}")
    return np.asarray((seen & lost).any(1) & ~(seen & ~lost).any(1))


def seen_by(
    truth: SplitTruth, camera_names: Sequence[str], frame: Int[np.ndarray, "N"], center_m: Float[np.ndarray, "N 3"]
) -> Bool[np.ndarray, "N C"]:
    """In whose original pictures points lie: in front of the camera and inside the picture. What hides them does not matter.

    Args:
        camera_names: the columns.
        frame: row of `truth.frames` of each point.
        center_m: in the global frame.

    `ValueError`: a scene lacks one of the cameras.
    """
    seen = np.zeros((len(frame), len(camera_names)), bool)
    order = np.argsort(frame, kind="stable")
    starts = np.searchsorted(frame[order], np.arange(len(truth.frames.tokens) + 1))
    for first, scene in zip(truth.first_frame, truth.scenes, strict=False):
        lacking = [name for name in camera_names if name not in scene.camera_names]
        if lacking:
            raise ValueError(f"scene {scene.name}: no camera {lacking}, there is {list(scene.camera_names)}")
        columns = [scene.camera_names.index(name) for name in camera_names]
        for number in range(scene.num_frames):
            rows = order[starts[first + number] : starts[first + number + 1]]
            camera_T_global = scene.camera_T_ego[number, columns] @ np.linalg.inv(truth.global_T_ego[first + number])
            points_m = np.einsum("cij,nj->nci", camera_T_global[:, :3, :3], center_m[rows]) + camera_T_global[:, :3, 3]
            pixels = np.einsum("cij,ncj->nci", scene.intrinsic[number, columns], points_m)
            depth_m = np.maximum(pixels[..., 2:], MIN_DEPTH_M)
            inside = (pixels[..., :2] >= 0) & (pixels[..., :2] < scene.image_wh_px[number, columns] * depth_m)
            seen[rows] = inside.all(-1) & (pixels[..., 2] > MIN_DEPTH_M)
    return seen


def box_sectors(
    truth: SplitTruth, there: GroundTruth, said: BoxRecords, lost: Bool[np.ndarray, "F C"], camera_names: Sequence[str]
) -> tuple[Sector, Sector]:
    """Boxes in the blind sector, and in the rest.

    Args:
        there: ground truth of the frames of `truth`, in their order (`evaluation.truth.box_truth`).
        said: predicted boxes in the global frame (`evaluation.predictions.box_records`, or `metrics.decoded.records_of`).
        lost: which cameras are lost at each frame; columns `camera_names`.

    `ValueError`: `lost` does not have a row a frame and a column a camera.
    """
    _check_lost(truth, lost, camera_names)

    def blind(boxes: BoxRecords) -> np.ndarray:
        return blind_rows(seen_by(truth, camera_names, boxes.frame, boxes.center_m), lost[boxes.frame])

    widest = max(DetectionConfig().distances_m)
    match = evaluate_detection(there, said, DetectionConfig(tp_distance_m=widest)).matched_truth
    blind_truth, blind_said = blind(there.boxes), blind(said)
    blind_said[match >= 0] = blind_truth[match[match >= 0]]
    return (
        _sector_of_boxes(replace(there, boxes=there.boxes[blind_truth]), said[blind_said]),
        _sector_of_boxes(replace(there, boxes=there.boxes[~blind_truth]), said[~blind_said]),
    )


def line_sectors(
    truth: SplitTruth,
    there: MapLines,
    said: MapLines,
    lost: Bool[np.ndarray, "F C"],
    camera_names: Sequence[str],
    *,
    whole: MapScores | None = None,
) -> tuple[Sector, Sector]:
    """Map lines in the blind sector, and in the rest; a line lies where its centre of mass lies, on the ground.

    Arguments as `box_sectors`; lines in the ego frame of their frames (`evaluation.truth.map_truth`, `evaluation.predictions.map_lines`).
    `whole`: what `evaluate_map(said, there)` said, if that is known.
    """
    _check_lost(truth, lost, camera_names)
    ground_z_m = -np.concatenate([scene.car_T_ego[:, 2, 3] for scene in truth.scenes])

    def blind(lines: MapLines) -> np.ndarray:
        ego_m = np.concatenate([_centres_m(lines), ground_z_m[lines.frame, None], np.ones((len(lines), 1))], 1)
        center_m = np.einsum("nij,nj->ni", truth.global_T_ego[lines.frame], ego_m)[:, :3]
        return blind_rows(seen_by(truth, camera_names, lines.frame, center_m), lost[lines.frame])

    whole = evaluate_map(said, there, SPARSEDRIVE) if whole is None else whole
    blind_truth, blind_said = blind(there), blind(said)
    near = np.flatnonzero((whole.nearest >= 0) & (whole.chamfer_m <= max(SPARSEDRIVE.thresholds_m)))
    blind_said[near] = blind_truth[whole.nearest[near]]

    def sector(is_there: np.ndarray, is_said: np.ndarray) -> Sector:
        # A line is hit by predictions of its own sector only, so hits in the whole scene are hits in the sector.
        num_truth = np.zeros((len(truth.frames.tokens), len(MAP_CLASSES)), np.int64)
        np.add.at(num_truth, (there.frame[is_there], there.label[is_there]), 1)
        hits = ScoredHits(
            frame=said.frame[is_said], label=said.label[is_said], score=said.score[is_said], hit=whole.true_positive[is_said],
            num_truth=num_truth,
        )  # fmt: skip
        return Sector(classes=MAP_CLASSES, ap=_line_ap(hits), hits=hits)

    return sector(blind_truth, blind_said), sector(~blind_truth, ~blind_said)


def box_ap_parts(sector: Sector, frames: FrameIndex) -> SceneParts:
    """mAP of boxes over the annotated classes, by scene, to be drawn again. Always NaN where nothing is annotated."""
    return resampling.box_hits_map(_annotated(sector.hits), frames)


def line_ap_parts(sector: Sector, frames: FrameIndex) -> SceneParts:
    """mAP of map lines, as `box_ap_parts`."""
    return resampling.line_hits_map(_annotated(sector.hits), frames)


def averaged(parts: Sequence[SceneParts]) -> SceneParts:
    """The mean of several scores over the same scenes (for example one a scenario), drawn together."""
    edges = np.cumsum([0, *(one.parts.shape[1] for one in parts)])

    def value(sums: np.ndarray) -> np.ndarray:
        scores = [one.value(sums[:, low:high]) for one, low, high in zip(parts, edges, edges[1:], strict=False)]
        return np.asarray(np.mean(scores, axis=0))

    return SceneParts(parts=np.concatenate([one.parts for one in parts], 1), value=value)


def blind_ap_difference(
    a: Sequence[Sector], b: Sequence[Sector], frames: FrameIndex, *, rounds: int = ROUNDS, seed: int = SEED
) -> Difference:
    """Blind-sector mAP of boxes of model b less that of model a, averaged over scenarios (row i of both is one scenario).

    Scenarios in whose sector nothing is annotated are left out. Paired bootstrap over scenes (`evaluation.bootstrap`).
    `ValueError`: other scenarios on either side, or no scenario with anything in its sector.
    """
    if len(a) != len(b) or any(not np.array_equal(one.hits.num_truth, two.hits.num_truth) for one, two in zip(a, b, strict=False)):
        raise ValueError(f"blind_ap_difference: expected the sectors of the same scenarios twice, got {len(a)} and {len(b)} that differ")
    rows = [row for row, one in enumerate(a) if one.num_truth]
    if not rows:
        raise ValueError("blind_ap_difference: nothing is annotated in the sectors; take scenarios that lose a camera, or more scenes")
    sides = [[side[row] for row in rows] for side in (a, b)]
    parts = [averaged([box_ap_parts(sector, frames) for sector in side]) for side in sides]
    first, second = (float(np.mean([sector.mean_ap for sector in side])) for side in sides)
    return paired_difference(parts[0], parts[1], rounds=rounds, seed=seed, stated=(first, second))


def _sector_of_boxes(there: GroundTruth, said: BoxRecords) -> Sector:
    section = detection_section(there, said, "")
    return Sector(classes=section.classes, ap=section.ap, hits=section.hits)


def _line_ap(hits: ScoredHits) -> Float[np.ndarray, "C K"]:
    """As `metrics.mapping`, from hits."""
    rows = np.argsort(-hits.score, kind="stable")
    ap = np.zeros((hits.num_truth.shape[1], hits.hit.shape[1]))
    for label, num_truth in enumerate(hits.num_truth.sum(0)):
        found = np.cumsum(hits.hit[rows[hits.label[rows] == label]], axis=0, dtype=np.float64)
        for column, right in enumerate(found.T):
            ap[label, column] = area_under_curve(right / max(num_truth, 1), right / np.arange(1, len(right) + 1))
    return ap


def _centres_m(lines: MapLines) -> Float[np.ndarray, "L 2"]:
    """Centre of mass of every line: the mean of its pieces' middles, by length."""
    piece = np.repeat(np.arange(len(lines)), np.diff(lines.splits))[:-1]
    start_m, end_m = lines.points_m[:-1], lines.points_m[1:]
    inside = np.ones(max(len(lines.points_m) - 1, 0), bool)
    inside[lines.splits[1:-1] - 1] = False
    weight = np.maximum(np.linalg.norm(end_m - start_m, axis=1), 1e-9) * inside  # a line may be a point
    sums = [np.bincount(piece, weight * column, minlength=len(lines)) for column in ((start_m + end_m) / 2).T]
    return np.stack(sums, 1) / np.bincount(piece, weight, minlength=len(lines))[:, None]


def _annotated(hits: ScoredHits) -> ScoredHits:
    """Only the classes that have truth."""
    there = np.flatnonzero(hits.num_truth.sum(0))
    place = np.full(hits.num_truth.shape[1], -1)
    place[there] = np.arange(len(there))
    rows = place[hits.label] >= 0
    return ScoredHits(
        frame=hits.frame[rows],
        label=place[hits.label[rows]],
        score=hits.score[rows],
        hit=hits.hit[rows],
        num_truth=hits.num_truth[:, there],
    )


def _check_lost(truth: SplitTruth, lost: np.ndarray, camera_names: Sequence[str]) -> None:
    shape = (len(truth.frames.tokens), len(camera_names))
    if lost.shape != shape or lost.dtype != np.bool_:
        raise ValueError(
            f"lost cameras: expected a mask of booleans [frames, cameras] = {list(shape)} for split {truth.split!r} with cameras "
            f"{list(camera_names)}, got {lost.dtype} {list(lost.shape)}"
        )
