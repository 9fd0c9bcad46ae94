"""Sparse convolution for LiDAR: features at the active cells of a grid, layers that compute there only, and models made of them."""

from sparsedrive.sparse.activation import LeakyReLU, ReLU, SiLU
from sparsedrive.sparse.bev import ToBEVHeightCompression, ToBEVReduction, ToDenseBEVConvolution
from sparsedrive.sparse.config import ConvConfig, current_config, set_global_config, use_config
from sparsedrive.sparse.conv import Conv3d
from sparsedrive.sparse.layer_table import LAYERS
from sparsedrive.sparse.minkunet import MinkUNet, UNetConfig
from sparsedrive.sparse.norm import BatchNorm, GroupNorm, InstanceNorm, SyncBatchNorm
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.pool import AvgPool3d, GlobalAvgPool, GlobalMaxPool, MaxPool3d
from sparsedrive.sparse.quantize import sparse_collate, sparse_quantize
from sparsedrive.sparse.sparse_encoder import SparseEncoder
from sparsedrive.sparse.spvcnn import SPVCNN
from sparsedrive.sparse.spvnas import SPVNAS
from sparsedrive.sparse.tensor import SparseTensor, cat, generative_add
from sparsedrive.sparse.tuning import apply_configs, tune

__all__ = [
    "LAYERS",
    "SPVCNN",
    "SPVNAS",
    "AvgPool3d",
    "BatchNorm",
    "Conv3d",
    "ConvConfig",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "LeakyReLU",
    "MaxPool3d",
    "MinkUNet",
    "PointTensor",
    "ReLU",
    "SiLU",
    "SparseEncoder",
    "SparseTensor",
    "SyncBatchNorm",
    "ToBEVHeightCompression",
    "ToBEVReduction",
    "ToDenseBEVConvolution",
    "UNetConfig",
    "apply_configs",
    "cat",
    "current_config",
    "generative_add",
    "set_global_config",
    "sparse_collate",
    "sparse_quantize",
    "tune",
    "use_config",
]
