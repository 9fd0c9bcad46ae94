"""Network output -> results in metric units. Pure functions of fixed shape: batched, compilable, and
without a device hop (`drop_duplicates` apart)."""

from sparsedrive.decoding.boxes import decode_boxes
from sparsedrive.decoding.duplicates import drop_duplicates
from sparsedrive.decoding.plan_selection import select_plan
from sparsedrive.decoding.polylines import decode_polylines
from sparsedrive.decoding.rectangles import corners_inside, rectangles_overlap
from sparsedrive.decoding.scene import decode
from sparsedrive.decoding.trajectories import decode_forecasts

__all__ = [
    "corners_inside",
    "decode",
    "decode_boxes",
    "decode_forecasts",
    "decode_polylines",
    "drop_duplicates",
    "rectangles_overlap",
    "select_plan",
]
