"""Stream a generated drive through the tiny model and print what it says."""

import tempfile

import sparsedrive
from sparsedrive.data import ImagePreprocess, NuScenesLog, make_frame
from sparsedrive.world import WorldConfig, write_world

DRIVE = WorldConfig(seconds=2.0, wh_px=(352, 198), lidar=False)


def main() -> None:
    """Two seconds of driving."""
    model = sparsedrive.load("tiny", "packaged")
    session = sparsedrive.StreamingSession(model)
    preprocess = ImagePreprocess(final_wh_px=model.config.image_wh_px)
    with tempfile.TemporaryDirectory() as folder:
        log = NuScenesLog(write_world(folder, 1, DRIVE))
        for record in log.scene("scene-0001"):
            scene = session.step(make_frame(record, preprocess, sequence_id=0))
            best = scene.detections.box[0, 0].tolist()
            path = scene.plan.trajectory_m[0].tolist()
            print(f"best box at ({best[0]:.1f}, {best[1]:.1f}) m, plan ends at ({path[-1][0]:.1f}, {path[-1][1]:.1f}) m")


if __name__ == "__main__":
    main()
