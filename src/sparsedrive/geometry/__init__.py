"""Frames, boxes, polylines and cameras as pure functions on tensors (rectangles: on arrays)."""

from sparsedrive.geometry import box_state, camera, polyline, rectangles, se3

__all__ = ["box_state", "camera", "polyline", "rectangles", "se3"]
