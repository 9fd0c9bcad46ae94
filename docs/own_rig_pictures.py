"""Makes the two pictures of own_rig.md from a generated drive: python docs/own_rig_pictures.py WORLD, a folder of `sparsedrive world`."""

import sys
from pathlib import Path

import cv2
import numpy as np

from sparsedrive.data import NuScenesLog, read_pictures
from sparsedrive.data.lidar import read_lidar
from sparsedrive.viz.calibration import draw_check, render_calibration, shown_boxes

FRAME, CAMERA = 3, "CAM_BACK"


def turned(axis: int, angle_deg: float) -> np.ndarray:
    """A camera turned about one of its own axes."""
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.radians(angle_deg) * np.eye(3)[axis])[0]
    return matrix


def moved(x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.0) -> np.ndarray:
    """A frame moved along its own axes."""
    matrix = np.eye(4)
    matrix[:3, 3] = x_m, y_m, z_m
    return matrix


def main() -> None:
    """Both pictures, beside this file."""
    log = NuScenesLog(sys.argv[1])
    scene = log.scenes[0]
    record = log.scene(scene)[FRAME]
    lidar = log.root / log.files(log.samples(scene)[FRAME])["LIDAR_TOP"].filename
    points_m, objects = read_lidar(lidar)[:, :3], record.annotations
    boxes, labels = objects.box.numpy(), objects.label.numpy()
    names = [camera.name for camera in record.cameras]
    pictures = read_pictures(record, names)
    shown = {"points_m": points_m, "boxes": boxes, "labels": labels}
    check = render_calibration(pictures.rgb, pictures.image_T_ego.numpy(), names, title=f"{scene}, frame {FRAME}", width_px=1600, **shown)

    rgb, camera = pictures.rgb[names.index(CAMERA)], record.camera(CAMERA)
    camera_T_ego, intrinsic = camera.camera_T_ego.numpy(), np.eye(4)
    intrinsic[:3, :3] = camera.intrinsic.numpy()
    cases = {
        "right": intrinsic @ camera_T_ego,
        "turned 2 deg about its vertical axis": intrinsic @ turned(1, 2) @ camera_T_ego,
        "pitched 2 deg": intrinsic @ turned(0, 2) @ camera_T_ego,
        "rolled 4 deg": intrinsic @ turned(2, 4) @ camera_T_ego,
        "focal length 1.25 too long": intrinsic * np.array([[1.25, 1, 1, 1], [1, 1.25, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]) @ camera_T_ego,
        "intrinsic for a picture 1.3 times as large": np.diag([1.3, 1.3, 1, 1]) @ intrinsic @ camera_T_ego,
        "ego origin on the road": intrinsic @ camera_T_ego @ moved(z_m=1.84),
        "picture taken 2 m further on": intrinsic @ moved(z_m=2.0) @ camera_T_ego,
    }
    tiles = []
    for title, image_T_ego in cases.items():
        tile = rgb.copy()
        draw_check(tile, image_T_ego, points_m, shown_boxes(boxes, labels))
        cv2.putText(tile, title, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.putText(tile, title, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
        tiles.append(tile)
    wrong = cv2.resize(np.concatenate([np.concatenate(tiles[row : row + 2], 1) for row in range(0, 8, 2)]), None, fx=0.65, fy=0.65)
    for name, picture in (("own_rig.jpg", check), ("own_rig_wrong.jpg", wrong)):
        cv2.imwrite(str(Path(__file__).parent / name), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])


if __name__ == "__main__":
    main()
