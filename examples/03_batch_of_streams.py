"""Run two cars side by side in one batch; one of them changes scene, the other does not notice."""

import tempfile

import torch

import sparsedrive
from sparsedrive.data import ImagePreprocess, NuScenesLog, make_frame
from sparsedrive.structures import cat_frames
from sparsedrive.world import WorldConfig, write_world

DRIVE = WorldConfig(seconds=2.0, wh_px=(352, 198), lidar=False)


def main() -> None:
    """Three frames of two streams."""
    model = sparsedrive.load("tiny")
    session = sparsedrive.StreamingSession(model)
    preprocess = ImagePreprocess(final_wh_px=model.config.image_wh_px)
    with tempfile.TemporaryDirectory() as folder:
        records = NuScenesLog(write_world(folder, 1, DRIVE)).scene("scene-0001")
        for index in range(3):
            first = make_frame(records[index], preprocess, sequence_id=0)
            second = make_frame(records[3 - index], preprocess, sequence_id=index)  # a new sequence every frame: always cold
            session.step(cat_frames([first, second]))
            newest = session.state.detection.next_id
            print(f"frame {index}: stream 0 has named {newest[0]} instances, stream 1 {newest[1]}")
    assert torch.equal(newest, torch.tensor([340, 200])), newest


if __name__ == "__main__":
    main()
