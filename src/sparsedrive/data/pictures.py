"""Original pictures with their projection -> the `Frame` a model takes, wherever they come from."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.structures import CameraRig, Command, Frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """The original pictures of C cameras, for drawing and as the source of a `Frame`.

    `image_T_ego` (float64) takes ego metres to (pixel_x * depth, pixel_y * depth, depth, 1) of these pictures. A picture that is not
    `available` is black.
    """

    names: tuple[str, ...]
    rgb: tuple[UInt8[np.ndarray, "H W 3"], ...]
    image_T_ego: Float[Tensor, "C 4 4"]
    available: tuple[bool, ...]


def black_picture(wh_px: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """In place of one that is not there."""
    return np.zeros((wh_px[1], wh_px[0], 3), np.uint8)


def assemble_frame(
    pictures: Pictures,
    focal_px: Float[Tensor, "C"],
    preprocess: ImagePreprocess,
    *,
    global_T_ego: Float[Tensor, "4 4"],
    time_s: float,
    sequence_id: int,
    ego_status: Float[Tensor, "10"],
    command: Command,
) -> Frame:
    """The `Frame` (batch of one, CPU) of pictures. `focal_px`: of the original pictures; `sequence_id` tells streams apart."""
    network_T_image = torch.stack([preprocess.network_T_image((rgb.shape[1], rgb.shape[0])) for rgb in pictures.rgb])
    rig = CameraRig(
        image_T_ego=(network_T_image @ pictures.image_T_ego).float()[None],
        image_wh_px=torch.tensor(preprocess.final_wh_px, dtype=torch.float32).repeat(1, len(pictures.names), 1),
        focal_px=(network_T_image[:, 0, 0] * focal_px).float()[None],
        available=torch.tensor(pictures.available)[None],
        names=pictures.names,
    )
    return Frame(
        images=torch.stack([preprocess(rgb) for rgb in pictures.rgb])[None],
        rig=rig,
        global_T_ego=global_T_ego[None],
        time_s=torch.tensor([time_s], dtype=torch.float64),
        sequence_id=torch.tensor([sequence_id]),
        ego_status=ego_status.float()[None],
        command=torch.tensor([int(command)]),
    )
