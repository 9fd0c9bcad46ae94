"""Activations on the features of a SparseTensor."""

from torch import nn

from sparsedrive.sparse.tensor import SparseTensor


class ReLU(nn.ReLU):
    """max(0, value). `inplace` saves memory where the layer before does not need its output."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        return x.with_feats(super().forward(x.feats))


class LeakyReLU(nn.LeakyReLU):
    """value where positive, `negative_slope` * value elsewhere."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        return x.with_feats(super().forward(x.feats))


class SiLU(nn.SiLU):
    """value * sigmoid(value)."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Same cells, other features."""
        return x.with_feats(super().forward(x.feats))
