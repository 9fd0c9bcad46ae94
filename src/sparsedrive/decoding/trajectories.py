"""Forecasts of the agents behind the detections."""

from sparsedrive.geometry import box_state
from sparsedrive.structures import Detections, Forecasts, MotionPredictions, take_rows


def decode_forecasts(motion: MotionPredictions, detections: Detections) -> Forecasts:
    """Futures and past of every detection, row by row, ego frame (metres).

    A trajectory is the box centre plus the running sum of the predicted offsets. History entries before the last `period`
    are made of zero states: yaw 0, sizes 1 m.
    """
    query = detections.query_index
    centre = detections.box[:, :, None, None, :2]
    return Forecasts(
        trajectory_m=centre + take_rows(motion.step_offsets_m, query).cumsum(dim=-2),
        mode_score=take_rows(motion.mode_logits, query).sigmoid(),
        history_box=box_state.decode(take_rows(motion.history_state, query)),
        period=motion.period.gather(1, query),
    )
