"""Cameras of another make, streamed through a model made for them, and the picture that shows whether their calibration is right.

python examples/04_own_rig.py [SCENE CHECK.png]

SCENE is a scene in Toyota's DGP format (the format of DDAD), read by `sparsedrive.data.dgp`: any number of cameras of 1936 x 1216 and a
lidar. Without it: three cameras of the generated drive. Both become the same thing: calibrations -> `OwnRig` -> pictures -> `Frame`.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import sparsedrive
from sparsedrive.data import ImagePreprocess, NuScenesLog, read_pictures
from sparsedrive.data.calibration import CameraCalibration
from sparsedrive.data.dgp import read_dgp
from sparsedrive.data.own_rig import OwnRig
from sparsedrive.viz.calibration import render_calibration
from sparsedrive.viz.files import write_picture
from sparsedrive.world import WorldConfig, write_world


def stream(rig: OwnRig, frames) -> None:
    """Frames of (pictures by camera, pose, poses when the pictures were taken, time) through an untrained model for these cameras."""
    config = replace(sparsedrive.preset("tiny"), camera_names=rig.names)
    session = sparsedrive.StreamingSession(sparsedrive.load(config))
    preprocess = ImagePreprocess(final_wh_px=config.image_wh_px)
    for rgb, global_T_ego, then, time_s in frames:
        pictures = rig.pictures(rgb, global_T_ego=global_T_ego, global_T_ego_then=then)
        scene = session.step(rig.frame(pictures, preprocess, global_T_ego=global_T_ego, time_s=time_s))
        print(f"{len(rig.names)} cameras, {scene.detections.box.shape[1]} boxes, plan ends at {scene.plan.trajectory_m[0, -1].tolist()} m")


if len(sys.argv) == 3:
    rig, recorded = read_dgp(sys.argv[1])
    stream(rig, [(frame.read_pictures(), frame.global_T_ego, frame.global_T_ego_then, frame.time_s) for frame in recorded])
    frame = recorded[0]
    pictures = rig.pictures(frame.read_pictures(), global_T_ego=frame.global_T_ego, global_T_ego_then=frame.global_T_ego_then)
    check = render_calibration(
        pictures.rgb, pictures.image_T_ego.numpy(), rig.names, points_m=frame.read_lidar(), boxes=frame.box, labels=frame.box_label
    )
    write_picture(Path(sys.argv[2]), check)
else:
    names = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT")
    with tempfile.TemporaryDirectory() as folder:
        records = NuScenesLog(write_world(folder, 1, WorldConfig(seconds=1.0, wh_px=(352, 198), lidar=False))).scene("scene-0001")
        taken = [dict(zip(names, read_pictures(record, names).rgb, strict=True)) for record in records]
    cameras = [records[0].camera(name) for name in names]
    poses = [np.linalg.inv(camera.camera_T_ego) for camera in cameras]
    rig = OwnRig(
        [CameraCalibration(name=c.name, intrinsic=c.intrinsic, ego_T_camera=p, wh_px=c.wh_px) for c, p in zip(cameras, poses, strict=True)]
    )
    stream(rig, [(rgb, record.global_T_ego, None, record.time_s) for rgb, record in zip(taken, records, strict=True)])
