"""Ops with more than one implementation. Each folder: the public function with its checks, the readable reference, the fast kernels."""

from sparsedrive.ops.backends import BackendRow, backend_report, use_backend
from sparsedrive.ops.deformable_aggregation import deformable_aggregation
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = ["BackendRow", "backend_report", "deformable_aggregation", "sigmoid_focal_loss", "use_backend"]
