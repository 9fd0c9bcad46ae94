import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from sparsedrive import StreamingSession
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame, cat_frames
from sparsedrive.structures.frame import with_available

sys.path.append(str(Path(__file__).parents[1] / "models"))
from model_samples import ROUNDING, build, config, differences, frame, take_stream


@pytest.fixture(scope="module")
def model() -> SparseDrive:
    return build()


@pytest.fixture
def session(model) -> StreamingSession:
    """Two frames in."""
    made = StreamingSession(model)
    for index in range(2):
        made.step(frame(index))
    return made


def test_steps_go_on_from_each_other(model):
    session = StreamingSession(model)
    scenes = [session.step(frame(index)) for index in range(3)]
    assert [scene.plan.period.item() for scene in scenes] == [1, 2, 3]
    assert scenes[2].detections.track_id.max() >= 24
    assert not scenes[0].detections.box.requires_grad


def test_two_sessions_share_a_model_and_nothing_else(model):
    alone = [StreamingSession(model), StreamingSession(model)]
    expected = [[alone[s].step(frame(i, stream=s)) for i in range(4)] for s in range(2)]
    first, second = StreamingSession(model), StreamingSession(model)
    for i in range(4):  # in turn
        assert differences(first.step(frame(i)), expected[0][i]) == []
        assert differences(second.step(frame(i, stream=1)), expected[1][i]) == []


def test_a_batch_of_three_drives_equals_three_sessions(model):
    together, apart = StreamingSession(model), [StreamingSession(model) for _ in range(3)]
    for i in range(4):
        frames = [frame(i, stream=s) for s in range(3)]
        scene = together.step(cat_frames(frames))
        for s in range(3):
            assert differences(take_stream(scene, s), apart[s].step(frames[s]), ROUNDING) == [], (i, s)


def test_reset_forgets(session, model):
    session.reset()
    assert session.state is None
    assert differences(session.step(frame(2)), StreamingSession(model).step(frame(2))) == []


def test_after_reset_another_number_of_streams_may_come(session):
    session.reset()
    assert session.step(cat_frames([frame(2), frame(2, stream=1)])).detections.box.shape[0] == 2


def test_a_session_puts_the_model_in_eval_mode():
    training = build().train()
    StreamingSession(training)
    assert not any(module.training for module in training.modules())


def test_score_threshold_reaches_the_decoder(model):
    scene = StreamingSession(model, score_threshold=1.1).step(frame(0))
    assert not scene.detections.valid.any() and not scene.map.valid.any()
    with_twins = build(replace(config(), no_duplicates=False))  # else of boxes in one place only the best is valid
    every = StreamingSession(with_twins).step(frame(0))
    assert every.detections.valid.all() and every.map.valid.all()


def test_saved_and_loaded_it_goes_on_bit_by_bit(session, model, tmp_path):
    session.save(tmp_path / "state.safetensors")
    other = StreamingSession(model)
    other.load(tmp_path / "state.safetensors")
    assert differences(other.state, session.state) == []
    for index in range(2, 5):
        assert differences(other.step(frame(index)), session.step(frame(index))) == []


def test_a_batch_is_saved_too(model, tmp_path):
    session, other = StreamingSession(model), StreamingSession(model)
    session.step(cat_frames([frame(0), frame(0, stream=1)]))
    session.save(tmp_path / "state.safetensors")
    other.load(tmp_path / "state.safetensors")
    following = cat_frames([frame(1), frame(1, stream=1)])
    assert differences(other.step(following), session.step(following)) == []


def test_stage_one_is_saved_too(tmp_path):
    model = build(config(stage=1))
    session, other = StreamingSession(model), StreamingSession(model)
    session.step(frame(0))
    session.save(tmp_path / "state.safetensors")
    other.load(tmp_path / "state.safetensors")
    assert other.state.motion is None and differences(other.step(frame(1)), session.step(frame(1))) == []


def test_nothing_to_save_before_the_first_frame(model, tmp_path):
    with pytest.raises(ValueError, match="at least one step before"):
        StreamingSession(model).save(tmp_path / "state.safetensors")


def wrong_state_files(session: StreamingSession, folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.safetensors" for name in ("other preset", "cut", "text", "weights", "scalar", "empty")}
    other = StreamingSession(build(config(stage=1)))
    other.step(frame(0))
    other.save(paths["other preset"])
    session.save(folder / "good.safetensors")
    paths["cut"].write_bytes((folder / "good.safetensors").read_bytes()[:-100])
    paths["text"].write_text("not a state")
    save_file({"map.anchors": torch.zeros(3, 40)}, paths["weights"])
    save_file({"000": torch.tensor(1.0)}, paths["scalar"])
    save_file({}, paths["empty"])
    return paths


@pytest.mark.parametrize("kind", ["other preset", "cut", "text", "weights", "scalar", "empty"])
def test_wrong_state_files_are_refused_and_the_state_is_kept(session, kind, tmp_path):
    before = session.state
    with pytest.raises(ValueError, match=rf"{kind}\.safetensors: expected (a session state|the state of a session)"):
        session.load(wrong_state_files(session, tmp_path)[kind])
    assert session.state is before


def changed_rig(now: Frame, **changes) -> Frame:
    return replace(now, rig=replace(now.rig, **changes))


def filled(tensor: torch.Tensor, index: tuple, value: float) -> torch.Tensor:
    copy = tensor.clone()
    copy[index] = value
    return copy


NOW = frame(2)
WRONG = {
    "nan image": (replace(NOW, images=filled(NOW.images, (0, 1, 2, 3, 4), math.nan)), r"Frame\.images: .*NaN or infinity in camera LEFT"),
    "infinite image": (replace(NOW, images=filled(NOW.images, (0, 0, 0, 0, 0), math.inf)), "camera FRONT"),
    "singular calibration": (
        changed_rig(NOW, image_T_ego=filled(NOW.rig.image_T_ego, (0, 2), 0.0)),
        r"image_T_ego: expected an invertible projection for camera BACK",
    ),
    "nan calibration": (changed_rig(NOW, image_T_ego=filled(NOW.rig.image_T_ego, (0, 1, 0, 0), math.nan)), "image_T_ego.*LEFT"),
    "nan camera position": (changed_rig(NOW, image_T_ego=filled(NOW.rig.image_T_ego, (0, 1, 0, 3), math.nan)), "image_T_ego.*LEFT"),
    "nan calibration of a failed camera": (
        with_available(
            changed_rig(NOW, image_T_ego=filled(NOW.rig.image_T_ego, (0, 1, 0, 0), math.nan)), torch.tensor([[True, False, True]])
        ),
        "image_T_ego.*LEFT",
    ),
    "picture without size": (changed_rig(NOW, image_wh_px=filled(NOW.rig.image_wh_px, (0, 1), 0.0)), "image_wh_px"),
    "float32 time": (replace(NOW, time_s=NOW.time_s.float()), r"float64 .*got torch\.float32 and torch\.float64"),
    "float32 pose": (replace(NOW, global_T_ego=NOW.global_T_ego.float()), r"float64 .*got torch\.float64 and torch\.float32"),
    "nan time": (replace(NOW, time_s=filled(NOW.time_s, (0,), math.nan)), r"Frame\.time_s: expected finite seconds"),
    "scaled pose": (replace(NOW, global_T_ego=NOW.global_T_ego * 2), r"global_T_ego: expected a rotation"),
    "nan rotation": (replace(NOW, global_T_ego=filled(NOW.global_T_ego, (0, 0, 0), math.nan)), "global_T_ego"),
    "nan position": (replace(NOW, global_T_ego=filled(NOW.global_T_ego, (0, 0, 3), math.nan)), "global_T_ego"),
    "transposed pose": (replace(NOW, global_T_ego=NOW.global_T_ego.transpose(1, 2)), "global_T_ego"),
    "mirrored pose": (replace(NOW, global_T_ego=NOW.global_T_ego * torch.tensor([1.0, 1, -1, 1])), "global_T_ego"),
    "command 3": (replace(NOW, command=torch.tensor([3])), r"Frame\.command: expected .*0 right.*got \[3\]"),
    "command -1": (replace(NOW, command=torch.tensor([-1])), r"Frame\.command"),
    "two streams": (cat_frames([NOW, NOW]), "expected 1 streams as before, got 2.*reset"),
    "other cameras": (changed_rig(NOW, names=("A", "B", "C")), r"Frame\.rig\.names"),
    "rig without batch": (
        changed_rig(NOW, image_T_ego=NOW.rig.image_T_ego[0]),
        r"CameraRig\.image_T_ego: expected \[1, 3, 4, 4\].*got \[3, 4, 4\]",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_frames_that_cannot_be_right_are_refused_and_the_state_is_kept(session, kind):
    wrong, message = WRONG[kind]
    before, copy = session.state, pytree.tree_map(torch.clone, session.state)
    with pytest.raises(ValueError, match=message):
        session.step(wrong)
    assert session.state is before and differences(session.state, copy) == []
    assert session.step(NOW).plan.period.item() == 3  # and on it goes


def test_a_failed_camera_may_show_anything(session, model):
    lost = with_available(NOW, torch.tensor([[True, False, True]]))
    broken = replace(lost, images=filled(lost.images, (0, 1), math.nan))
    other = StreamingSession(model)
    other.state = session.state
    assert differences(session.step(broken), other.step(lost)) == []


def test_the_caller_may_use_the_same_buffers_for_the_next_frame(session, model):
    """Pose and time of a frame are remembered, so they must not change when the caller writes the next ones in their place."""
    expected = session.step(frame(2)), session.step(frame(3))
    careful = StreamingSession(model)
    buffer = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, frame(0))
    scenes = []
    for index in range(4):
        following = frame(index)
        for target, source in zip(pytree.tree_leaves(buffer), pytree.tree_leaves(following), strict=True):
            if isinstance(target, torch.Tensor):
                target.copy_(source)
        scenes.append(careful.step(buffer))
    assert differences(tuple(scenes[2:]), expected) == []
