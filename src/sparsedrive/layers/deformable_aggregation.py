"""Image features gathered at an instance's key points."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.geometry import camera
from sparsedrive.layers.mlp import linear_relu_norm
from sparsedrive.ops import deformable_aggregation
from sparsedrive.ops.published_order import in_published_order
from sparsedrive.structures import CameraRig, ImageFeatures

MIN_BELIEVED = 0.1
"""However little is believed, what there is counts at most ten times: behind it may be a single pixel at a picture's border."""


class DeformableAggregation(nn.Module):
    """Samples every camera and level at the key points and sums them with predicted weights.

    The weights are one softmax over cameras x levels x points for each group of channels, from feature, anchor embedding and an
    embedding of each camera's projection; with `num_cameras` each of so many cameras has weights of its own instead.
    A point outside a picture gives nothing and keeps its share of the softmax. Where a camera failed and `ImageFeatures.confidence` says
    so, the share of what is not to be believed goes to all the rest.
    Source: Sparse4D v2 (arXiv:2305.14018, section 3.1), camera embedding as in SparseDrive.
    """

    def __init__(
        self, key_points: nn.Module, num_points: int, dim: int, num_groups: int, num_levels: int, weight_dropout: float = 0.0, *,
        num_cameras: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.num_cameras = num_cameras
        self.key_points = key_points
        self.weight_shape = (num_levels, num_points, num_groups)
        self.weight_dropout = weight_dropout
        if num_cameras is None:
            self.camera_encoder = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=2, input_dim=12))
        self.weights = nn.Linear(dim, (num_cameras or 1) * num_levels * num_points * num_groups)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        feature: Float[Tensor, "B N D"],
        state: Float[Tensor, "B N S"],
        embed: Float[Tensor, "B N D"],
        images: ImageFeatures,
        rig: CameraRig,
    ) -> Float[Tensor, "B N 2D"]:
        """[gathered, feature] side by side (the published "cat" residual)."""
        points = camera.project(self.key_points(state, feature), rig.image_T_ego, rig.image_wh_px)
        if images.confidence is None:
            points = points.where(rig.available[:, None, None, :, None], -1.0)  # outside every picture
        weights = self._sampling_weights(feature + embed, rig)
        gathered = deformable_aggregation(images.packed, images.level_hw, points, weights)
        if images.confidence is not None:
            believed = believed_share(images.confidence, images.level_hw, points, weights)
            gathered = (gathered.unflatten(-1, (weights.shape[-1], -1)) / believed[..., None].to(gathered.dtype)).flatten(-2)
        return torch.cat([self.output(gathered), feature], dim=-1)

    def _sampling_logits(self, query: Tensor, rig: CameraRig) -> Float[Tensor, "B N C K"]:
        camera_embed = self.camera_encoder(rig.image_T_ego[:, :, :3].flatten(2))
        if in_published_order():
            return self.weights(query[:, :, None] + camera_embed[:, None])
        # Linear(query + camera) = Linear(query) + W camera: N + C rows through the matrix instead of N * C.
        return self.weights(query)[:, :, None] + (camera_embed @ self.weights.weight.T)[:, None]

    def _sampling_weights(self, query: Tensor, rig: CameraRig | None) -> Float[Tensor, "B N P C L G"]:
        if self.num_cameras is not None:
            logits = self.weights(query).unflatten(-1, (self.num_cameras, -1))
        else:
            assert rig is not None, "weights from an embedding of the cameras need the cameras"
            logits = self._sampling_logits(query, rig)
        shape = (logits.shape[2], *self.weight_shape)
        weights = logits.unflatten(-1, self.weight_shape).flatten(2, 4).softmax(dim=2).unflatten(2, shape[:3])
        if self.training and self.weight_dropout > 0:
            kept = torch.rand_like(weights[..., :1, :, :1]) > self.weight_dropout
            weights = weights * kept / (1 - self.weight_dropout)
        return weights.permute(0, 1, 4, 2, 3, 5)


def believed_share(
    confidence: Float[Tensor, "B C S"],
    level_hw: tuple[int, ...],
    points: Float[Tensor, "B N P C 2"],
    weights: Float[Tensor, "B N P C L G"],
) -> Float[Tensor, "B N G"]:
    """Share of the sampling weights that does not fall on pixels nobody believes, at least `MIN_BELIEVED`.

    Features are already multiplied with their confidence; divided by this share, their sum is that of a softmax in which every weight
    is scaled by the confidence of what it falls on. What falls outside all pictures stays as it is.
    """
    doubt = (1 - confidence)[..., None].to(weights.dtype).expand(-1, -1, -1, weights.shape[-1]).contiguous()
    lost = deformable_aggregation(doubt, level_hw, points.to(weights.dtype), weights)
    total = weights.sum(dim=(2, 3, 4)).clamp(min=MIN_BELIEVED)  # 1, but for weights dropped in training
    return (1 - lost / total).clamp(min=MIN_BELIEVED)
