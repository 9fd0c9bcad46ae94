"""Frames, boxes, polylines and cameras as pure functions on tensors."""

from sparsedrive.geometry import box_state, camera, polyline, se3

__all__ = ["box_state", "camera", "polyline", "se3"]
