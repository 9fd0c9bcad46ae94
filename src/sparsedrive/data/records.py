"""Frame records of a prepared scene: what `NuScenesLog` gives, without reading the tables."""

import numpy as np
import torch

from sparsedrive.data.nuscenes.annotations import Annotations
from sparsedrive.data.nuscenes.log import CameraRecord, FrameRecord
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.structures import Command


def to_record(data: PreparedData, scene: PreparedScene, frame: int) -> FrameRecord:
    """Key frame `frame` of a prepared scene, with its annotations. `IndexError` for a frame the scene has not."""
    if not 0 <= frame < scene.num_frames:
        raise IndexError(f"{scene.name}: expected a frame of 0..{scene.num_frames - 1}, got {frame}")
    rows = scene.boxes_of(frame)
    cameras = tuple(
        CameraRecord(
            name=name,
            path=data.root / scene.image_paths[frame][index],
            timestamp_us=int(scene.image_time_us[frame, index]),
            wh_px=(int(scene.image_wh_px[frame, index, 0]), int(scene.image_wh_px[frame, index, 1])),
            intrinsic=torch.from_numpy(scene.intrinsic[frame, index].astype(np.float64)),
            camera_T_ego=torch.from_numpy(scene.camera_T_ego[frame, index].astype(np.float64)),
        )
        for index, name in enumerate(scene.camera_names)
    )
    return FrameRecord(
        scene=scene.name,
        location=scene.location,
        sample_token=scene.sample_tokens[frame],
        timestamp_us=int(scene.timestamp_us[frame]),
        cameras=cameras,
        car_T_ego=torch.from_numpy(scene.car_T_ego[frame].astype(np.float64)),
        global_T_car=torch.from_numpy(scene.global_T_car[frame].astype(np.float64)),
        ego_status=torch.from_numpy(scene.ego_status[frame].astype(np.float64)),
        ego_status_known=torch.from_numpy(scene.ego_status_known[frame].astype(bool)),
        command=Command(int(scene.command[frame])),
        annotations=Annotations(
            box=torch.from_numpy(scene.box[rows].astype(np.float64)),
            label=torch.from_numpy(scene.box_label[rows].astype(np.int64)),
            lidar_returns=torch.from_numpy(scene.lidar_returns[rows].astype(np.int64)),
            radar_returns=torch.from_numpy(scene.radar_returns[rows].astype(np.int64)),
            instance_tokens=tuple(scene.instance_tokens[index] for index in scene.box_instance[rows]),
        ),
    )
