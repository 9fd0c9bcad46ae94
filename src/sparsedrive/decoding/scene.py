"""Everything a SparseDrive step predicts, decoded."""

from jaxtyping import Int
from torch import Tensor

from sparsedrive.decoding.boxes import decode_boxes
from sparsedrive.decoding.duplicates import drop_duplicates
from sparsedrive.decoding.plan_selection import select_plan
from sparsedrive.decoding.polylines import decode_polylines
from sparsedrive.decoding.trajectories import decode_forecasts
from sparsedrive.structures import ParityOptions, Predictions, Scene


def decode(
    predictions: Predictions,
    command: Int[Tensor, "B"],
    *,
    score_threshold: float | None = None,
    with_track_ids: bool = True,
    no_duplicates: bool = False,
    parity: ParityOptions = ParityOptions(),  # noqa: B008 - frozen
) -> Scene:
    """Predictions -> results in metric units, ego frame of the frame they were made from.

    `command` is the `Command` the plan is selected for. `with_track_ids`: see `decode_boxes`. `score_threshold` clears `valid` of
    detections and map elements below, `no_duplicates` of second boxes on one object (`duplicates.drop_duplicates`).
    Map, forecasts and plan are `None` where the model has no such stage.
    """
    detection, motion, plan = predictions.detection, predictions.motion, predictions.plan
    detections = decode_boxes(
        detection.last, detection.track_id, score_threshold=score_threshold, with_track_ids=with_track_ids, parity=parity
    )
    detections = drop_duplicates(detections) if no_duplicates else detections
    selected = None
    if plan is not None:
        assert motion is not None, "the plan is selected against the forecasts"
        selected = select_plan(plan, command, detection.last, motion, parity=parity)
    return Scene(
        detections=detections,
        map=None if predictions.map is None else decode_polylines(predictions.map.last, score_threshold=score_threshold),
        forecasts=None if motion is None else decode_forecasts(motion, detections),
        plan=selected,
    )
