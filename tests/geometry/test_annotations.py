"""The shape annotations are inert at run time; here they are checked, by the import hook, in an interpreter of its own."""

import subprocess
import sys

CHECKED = """
import torch
from jaxtyping import install_import_hook, TypeCheckError

with install_import_hook(["sparsedrive.geometry", "sparsedrive.structures"], "beartype.beartype"):
    from sparsedrive.geometry import box_state, camera, polyline, se3
    from sparsedrive.structures import ImageFeatures, take_rows
from sparsedrive.structures import CameraRig, Frame, cat_frames
from sparsedrive.structures.frame import with_available

pose = torch.eye(4).repeat(2, 1, 1)
box = torch.rand(2, 5, 10) + 0.1
state = box_state.encode(box)

def frame():
    rig = CameraRig(image_T_ego=torch.eye(4).repeat(2, 3, 1, 1), image_wh_px=torch.ones(2, 3, 2), focal_px=torch.ones(2, 3),
                    available=torch.ones(2, 3, dtype=torch.bool), names=("A", "B", "C"))
    return Frame(images=torch.zeros(2, 3, 3, 8, 8), rig=rig, global_T_ego=pose.double(), time_s=torch.zeros(2).double(),
                 sequence_id=torch.zeros(2, dtype=torch.long), ego_status=torch.zeros(2, 10), command=torch.zeros(2, dtype=torch.long))
"""
GOOD = """
assert box_state.decode(state).shape == (2, 5, 10) and box_state.encode(box[0, 0]).shape == (11,)
assert box_state.corners(box).shape == (2, 5, 8, 3) and box_state.yaw_rad(state).shape == (2, 5)
box_state.transform(state, pose); box_state.transform(state, pose, torch.zeros(2))
polyline.transform(torch.zeros(2, 5, 40), pose); polyline.points(torch.zeros(40))
se3.relative(pose, se3.invert(pose)); se3.invert(pose[0]); se3.transform_points(pose, box[..., :3]); se3.from_yaw(*torch.zeros(3, 2))
camera.project(torch.zeros(2, 5, 7, 3), torch.zeros(2, 6, 4, 4), torch.ones(2, 6, 2)); camera.project_with_depth(torch.zeros(7, 3), pose[0])
take_rows(state, torch.zeros(2, 3, dtype=torch.long)); take_rows(torch.zeros(2, 5, 4, 11), torch.zeros(2, 3, dtype=torch.long))
take_rows(torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.long))
cat_frames([frame(), frame()]); with_available(frame(), torch.zeros(2, 3, dtype=torch.bool))
ImageFeatures(packed=torch.zeros(2, 3, 20, 8), level_hw=(4, 4, 2, 2)).level(1)
print("ran")
"""
BAD = """
calls = [
    lambda: box_state.decode(box), lambda: box_state.encode(state), lambda: box_state.transform(state, pose[0]),
    lambda: box_state.transform(state, pose, torch.zeros(3)), lambda: polyline.transform(torch.zeros(3, 5, 40), pose),
    lambda: se3.invert(pose[:, :3]), lambda: camera.project(torch.zeros(2, 5, 3), torch.zeros(2, 6, 4, 4), torch.ones(2, 6, 2)),
    lambda: camera.project(torch.zeros(2, 5, 7, 3), torch.zeros(2, 6, 4, 4), torch.ones(2, 5, 2)),
    lambda: take_rows(state, torch.zeros(2, 3)), lambda: take_rows(state, torch.zeros(3, 3, dtype=torch.long)),
    lambda: with_available(frame(), torch.zeros(2, 3)),
]
for number, call in enumerate(calls):
    try:
        call()
    except TypeCheckError:
        continue
    raise SystemExit(f"call {number} was accepted")
print("ran")
"""


def test_right_shapes_pass_and_wrong_ones_are_noticed():
    done = subprocess.run([sys.executable, "-c", CHECKED + GOOD + BAD], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.split() == ["ran", "ran"], done.stdout + done.stderr[-2000:]
