"""Where in space an instance looks at the images: key points from its anchor, partly fixed, partly learned."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.geometry import box_state, polyline, se3

BOX_FIXED_POINTS = (
    (0.0, 0.0, 0.0),
    (0.45, 0.0, 0.0),
    (-0.45, 0.0, 0.0),
    (0.0, 0.45, 0.0),
    (0.0, -0.45, 0.0),
    (0.0, 0.0, 0.45),
    (0.0, 0.0, -0.45),
)
"""In units of the box size, box axes: the centre and the middle of each face, a little inside."""


class BoxKeyPoints(nn.Module):
    """The centre, six face centres and `num_learned` learned points of each box. Source: Sparse4D (arXiv:2211.10581, section 3.3)."""

    fixed_points: Tensor

    def __init__(self, dim: int, num_learned: int = 6):
        super().__init__()
        self.register_buffer("fixed_points", torch.tensor(BOX_FIXED_POINTS))
        self.learned_points = nn.Linear(dim, 3 * num_learned)
        self.num_points = len(BOX_FIXED_POINTS) + num_learned
        nn.init.xavier_uniform_(self.learned_points.weight)
        nn.init.zeros_(self.learned_points.bias)

    def forward(self, state: Float[Tensor, "B N 11"], feature: Float[Tensor, "B N D"]) -> Float[Tensor, "B N P 3"]:
        """Key points in ego metres."""
        learned = self.learned_points(feature).unflatten(-1, (-1, 3)).sigmoid() - 0.5
        relative = torch.cat([self.fixed_points.expand(*state.shape[:2], -1, -1), learned], dim=-2)
        scaled = relative * state[..., None, box_state.LOG_LENGTH : box_state.SIN_YAW].exp()
        rotation = box_state.rotation_about_z(state[..., box_state.SIN_YAW], state[..., box_state.COS_YAW])
        return se3.rotate(rotation[..., None, :, :], scaled) + state[..., None, :3]


class PolylineKeyPoints(nn.Module):
    """For each polyline point `num_learned` learned offsets at each of several heights about the ground.

    `ground_height_m` is the ground in the ego frame (nuScenes LIDAR_TOP sits 1.84 m above it).
    """

    point_heights_m: Tensor

    def __init__(self, dim: int, num_line_points: int, heights_m: tuple[float, ...], ground_height_m: float, num_learned: int = 3):
        super().__init__()
        self.heights_m, self.num_learned = len(heights_m), num_learned
        self.num_points = num_line_points * len(heights_m) * num_learned
        self.register_buffer("point_heights_m", ground_height_m + torch.tensor(heights_m), persistent=False)
        self.learned_offsets = nn.Linear(dim, 2 * self.num_points)
        nn.init.xavier_uniform_(self.learned_offsets.weight)
        nn.init.zeros_(self.learned_offsets.bias)

    def forward(self, state: Float[Tensor, "B N S"], feature: Float[Tensor, "B N D"]) -> Float[Tensor, "B N P 3"]:
        """Key points in ego metres, ordered by line point, height, learned offset."""
        line = polyline.points(state)
        offsets_m = self.learned_offsets(feature).unflatten(-1, (line.shape[-2], self.heights_m, self.num_learned, 2))
        ground = offsets_m + line[..., None, None, :]
        height = self.point_heights_m[:, None, None].expand(*ground.shape[:-1], 1)
        return torch.cat([ground, height], dim=-1).flatten(2, 4)
