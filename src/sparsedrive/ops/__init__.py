"""Ops with more than one implementation. Each folder: the public function with its checks, the readable reference, the fast kernels."""

from sparsedrive.ops.backends import BackendRow, backend_report, use_backend
from sparsedrive.ops.deformable_aggregation import deformable_aggregation
from sparsedrive.ops.published_names import DAF_AVAILABLE, FOCAL_LOSS_AVAILABLE, deformable_aggregation_function, feature_maps_format
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = [
    "DAF_AVAILABLE",
    "FOCAL_LOSS_AVAILABLE",
    "BackendRow",
    "backend_report",
    "deformable_aggregation",
    "deformable_aggregation_function",
    "feature_maps_format",
    "sigmoid_focal_loss",
    "use_backend",
]
