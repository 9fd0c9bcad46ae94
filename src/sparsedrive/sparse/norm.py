"""Normalisation of a SparseTensor's features over its active cells."""

from typing import Any

import torch
from torch import Tensor, nn

from sparsedrive.sparse.functional import samples
from sparsedrive.sparse.tensor import SparseTensor


class BatchNorm(nn.BatchNorm1d):
    """Over all active cells of the batch; a batch without any goes through unchanged."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        return x.with_feats(super().forward(x.feats)) if len(x) else x


class SyncBatchNorm(nn.SyncBatchNorm):
    """BatchNorm over the active cells of all processes. `convert_sync_batchnorm` turns a model's BatchNorms into these."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        return x.with_feats(super().forward(x.feats))

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """`module` with every sparse BatchNorm replaced by a SyncBatchNorm of the same weights, and dense ones by PyTorch's."""
        if isinstance(module, BatchNorm):
            sync = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group)
            first = next(module.parameters(), next(module.buffers(), torch.empty(0)))
            sync.to(first.device, first.dtype).load_state_dict(module.state_dict())
            return sync.train(module.training)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class GroupNorm(nn.GroupNorm):
    """Over each sample's active cells and each group of channels."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        feats = _normalised(x, self.num_groups, self.eps)
        return x.with_feats(feats if self.weight is None or self.bias is None else feats * self.weight + self.bias)


class InstanceNorm(nn.Module):
    """Over each sample's active cells, every channel by itself. (TorchSparse's takes the whole batch as one sample.)"""

    def __init__(self, num_features: int, eps: float = 1e-5, *, affine: bool = False) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Same cells, other features."""
        feats = _normalised(x, self.num_features, self.eps)
        return x.with_feats(feats if self.weight is None or self.bias is None else feats * self.weight + self.bias)


def _normalised(x: SparseTensor, groups: int, eps: float) -> Tensor:
    """Features less their mean, over their standard deviation: of each sample and group."""
    batch, num_samples = samples(x)
    values = x.feats.unflatten(1, (groups, -1)).to(torch.promote_types(x.feats.dtype, torch.float32))  # [N, groups, C / groups]
    count = torch.bincount(batch, minlength=num_samples).clamp(min=1)[:, None] * values.shape[2]

    def mean(per_cell: Tensor) -> Tensor:
        return (per_cell.new_zeros(num_samples, groups).index_add(0, batch, per_cell.sum(2)) / count)[batch][:, :, None]

    centred = values - mean(values)
    return (centred * (mean(centred.square()) + eps).rsqrt()).flatten(1).to(x.feats.dtype)
