"""Build a `Frame` from your own pictures, calibration and poses (here: noise and one made-up camera turned six ways)."""

import torch

import sparsedrive
from sparsedrive.geometry import se3


def main() -> None:
    """One frame by hand."""
    model = sparsedrive.load("tiny")
    names, (width, height) = model.config.camera_names, model.config.image_wh_px
    yaw_rad = torch.deg2rad(torch.tensor([0.0, -55.0, 55.0, 180.0, 110.0, -110.0]))  # counter-clockwise from forward
    ego_T_heading = se3.from_yaw(torch.zeros(6), torch.zeros(6), yaw_rad)
    camera_T_heading = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # camera: x right, y down, z forward
    focal_px = 0.8 * width
    image_T_camera = torch.tensor([[focal_px, 0, width / 2, 0], [0, focal_px, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    rig = sparsedrive.CameraRig(
        image_T_ego=(image_T_camera @ camera_T_heading @ se3.invert(ego_T_heading))[None],
        image_wh_px=torch.tensor([width, height]).float().expand(1, 6, 2),
        focal_px=torch.full((1, 6), focal_px),
        available=torch.tensor([[True, True, True, True, True, False]]),  # the last camera failed
        names=names,
    )
    frame = sparsedrive.Frame(
        images=torch.randn(1, 6, 3, height, width),  # your pictures: resized, RGB, minus mean, over standard deviation
        rig=rig,
        global_T_ego=torch.eye(4, dtype=torch.float64)[None],
        time_s=torch.tensor([1.7e9], dtype=torch.float64),
        sequence_id=torch.tensor([0]),
        ego_status=torch.zeros(1, 10),
        command=torch.tensor([sparsedrive.Command.STRAIGHT]),
    )
    scene = sparsedrive.StreamingSession(model).step(frame)
    print({name: tuple(getattr(scene.detections, name).shape) for name in ("box", "score", "label", "track_id")})


if __name__ == "__main__":
    main()
