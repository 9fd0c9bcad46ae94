"""Close the loop: the tiny model drives a generated town. It is a small model and drives badly; what counts is how the parts fit."""

import numpy as np

import sparsedrive
from sparsedrive.data import CameraCalibration, ImagePreprocess, OwnRig
from sparsedrive.world import EgoPlan, Renderer, World, ego_status, global_T_car, nuscenes_rig

STEPS = 3


def main() -> None:
    """One and a half seconds; every half second a new plan."""
    model = sparsedrive.load("tiny", "packaged")
    session, preprocess = sparsedrive.StreamingSession(model), ImagePreprocess(final_wh_px=model.config.image_wh_px)
    world = World.create(seed=3)
    renderer, sensors = Renderer(world.town, world.cast), nuscenes_rig((352, 198))
    ego_T_car = np.linalg.inv(sensors.lidar.car_T_lidar)  # the models' ego frame is the lidar's
    rig = OwnRig([
        CameraCalibration(name=c.name, intrinsic=c.intrinsic, ego_T_camera=ego_T_car @ c.car_T_camera, wh_px=c.wh_px)
        for c in sensors.cameras
    ])  # fmt: skip
    for _ in range(STEPS):
        state = world.state
        frame = rig.frame(
            rig.pictures({camera.name: renderer.render(state, camera) for camera in sensors.cameras}),
            preprocess,
            global_T_ego=global_T_car(state.ego) @ sensors.lidar.car_T_lidar,
            time_s=state.time_s,
            ego_status=ego_status(state.ego).tolist(),
            command=sparsedrive.Command[world.command().upper()],
        )
        plan = session.step(frame).plan
        assert plan is not None
        world.step(EgoPlan(position_m=plan.trajectory_m[0].numpy()), 0.5)
        print(
            f"{world.state.time_s:.1f} s: {world.state.ego.speed_mps:.1f} m/s, {world.command()}; off the road: {world.off_road()}, "
            f"hit: {[world.cast.categories[actor] for actor in world.collisions()]}"
        )


if __name__ == "__main__":
    main()
