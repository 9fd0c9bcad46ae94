"""Fixed lists of failures: what they say, their files, and what a frame looks like under each kind of fault."""

import json
from dataclasses import replace

import numpy as np
import pytest
from prepared_samples import write_prepared

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.dataset import DrivingDataset, LoadConfig
from sparsedrive.data.failure_pictures import damaged
from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.data.failures import CameraFault
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.sampler import FrameRequest

PLAIN = LoadConfig(preprocess=ImagePreprocess(final_wh_px=(96, 32)))
TRAIN = replace(PLAIN, augment=AugmentConfig())
SCENE, FRONT = "scene-0000", "CAM_FRONT"


def span(start: int, stop: int, kind: str = "black", **changes) -> FaultSpan:
    return FaultSpan(**({"scene": SCENE, "camera": FRONT, "start": start, "stop": stop, "kind": kind} | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def load(data, *spans: FaultSpan, frame: int = 3, config: LoadConfig = PLAIN):
    script = FailureScript(spans=spans) if spans else None
    return DrivingDataset(data, "train", config, failures=script)[FrameRequest(scene=SCENE, frame=frame, sequence_id=0)]


def test_a_list_says_what_is_wrong_when():
    script = FailureScript(
        spans=(span(2, 4), span(4, 6, "blur", amount=3.0, announced=False), span(0, 9, camera="CAM_BACK", scene="other"))
    )
    names = ("CAM_BACK", FRONT)
    faults = [script.faults(FrameRequest(scene=SCENE, frame=frame, sequence_id=8), names) for frame in range(7)]
    assert [one[0] for one in faults] == [None] * 7
    assert [None if one[1] is None else one[1].kind for one in faults] == [None, None, "black", "black", "blur", "blur", None]
    assert faults[4][1] == CameraFault(kind="blur", amount=3.0, announced=False)
    np.testing.assert_array_equal(script.lost(SCENE, 7, names)[:, 1], [False, False, True, True, True, True, False])
    assert script.lost("other", 9, names)[:, 0].all() and not script.lost("third", 9, names).any()


def test_a_frozen_picture_stays_the_same_when_the_failure_is_noticed_late():
    script = FailureScript(spans=(span(3, 5, "freeze", announced=False), span(5, 8, "freeze")))
    stale = [script.faults(FrameRequest(scene=SCENE, frame=frame, sequence_id=0), (FRONT,))[0].stale_frame for frame in range(3, 8)]
    assert stale == [2] * 5
    begun = FailureScript(spans=(span(0, 2, "freeze"),))
    assert begun.faults(FrameRequest(scene=SCENE, frame=1, sequence_id=0), (FRONT,))[0].stale_frame is None


@pytest.mark.parametrize("config", [PLAIN, TRAIN], ids=["evaluation", "training"])
def test_what_each_fault_shows(data, config):
    whole, earlier = load(data, config=config), load(data, frame=1, config=config)

    def front(kind: str, **changes) -> np.ndarray:
        frame = load(data, span(2, 5, kind, **changes), config=config)
        np.testing.assert_array_equal(frame.images[1:], whole.images[1:])
        assert frame.available[1:].all() and frame.available[0] == (not changes.get("announced", True))
        return frame.images[0]

    black = -np.array(PLAIN.preprocess.mean_rgb) / PLAIN.preprocess.std_rgb
    np.testing.assert_allclose(front("black"), np.broadcast_to(black[:, None, None], whole.images[0].shape), rtol=1e-5)
    assert not front("mean", announced=False).any()
    np.testing.assert_array_equal(front("intact"), whole.images[0])
    np.testing.assert_array_equal(front("freeze", announced=False), earlier.images[0])
    noise = front("noise", announced=False)
    np.testing.assert_array_equal(noise, front("noise"))
    assert noise.std() > 1 and abs(np.corrcoef(noise.ravel(), whole.images[0].ravel())[0, 1]) < 0.05
    for kind, amount in (("blur", 16.0), ("expose", 0.5), ("occlude", 0.5)):
        changed = front(kind, amount=amount, announced=False)
        assert np.abs(changed - whole.images[0]).mean() > 0.02, kind
        assert np.corrcoef(changed.ravel(), whole.images[0].ravel())[0, 1] > 0.3, kind


def test_damage_by_numbers():
    picture = np.random.default_rng(0).integers(0, 200, (90, 160, 3)).astype(np.uint8)
    for share in (0.25, 0.5, 0.75, 1.0):
        patched = damaged(picture, CameraFault(kind="occlude", amount=share))
        black = (patched == 0).all(-1)
        assert abs(black.mean() - share) < 0.02 and (patched[~black] == picture[~black]).all()
        assert black[45, 80] and (share == 1 or not black[0, 0])
    brighter = damaged(picture, CameraFault(kind="expose", amount=2.0))
    np.testing.assert_array_equal(brighter, np.minimum(picture.astype(int) * 2, 255))
    point = np.zeros((101, 160, 3), np.uint8)
    point[50, 80] = 255
    blurred = damaged(point.repeat(1, 0), CameraFault(kind="blur", amount=20.0)).astype(float)[:, :, 0]
    spread_px = np.sqrt((blurred * (np.arange(101)[:, None] - 50) ** 2).sum() / blurred.sum())
    assert abs(spread_px - 2.0) < 0.3  # 20 px at a width of 1600 are 2 px at 160
    np.testing.assert_array_equal(damaged(picture, CameraFault(kind="intact")), picture)


def test_padding_rows_and_pictures_that_are_not_there_are_black(data):
    dataset = DrivingDataset(data, "train", PLAIN, failures=FailureScript(spans=(span(2, 5, "intact"),)))
    frame = dataset[FrameRequest(scene=SCENE, frame=3, sequence_id=0, padding=True)]
    assert not frame.available.any() and frame.images.max() < -1


def test_a_schedule_with_too_few_entries_is_named(data):
    class Short:
        def faults(self, request, camera_names):
            return (None,)

    with pytest.raises(ValueError, match="failures: expected an entry for each of 6 cameras"):
        DrivingDataset(data, "train", PLAIN, failures=Short())[FrameRequest(scene=SCENE, frame=0, sequence_id=0)]


def test_files_come_back_and_order_does_not_matter(tmp_path):
    spans = (span(4, 6, "occlude", amount=0.5, announced=False), span(0, 2), span(1, 2, camera="CAM_BACK"))
    script = FailureScript(spans=spans)
    assert FailureScript(spans=spans[::-1]).digest == script.digest != FailureScript(spans=spans[1:]).digest
    loaded = FailureScript.load(script.save(tmp_path / "deep" / "list.json"))
    assert sorted(loaded.spans) == sorted(spans) and loaded.digest == script.digest
    assert FailureScript(spans=()).digest == FailureScript.load(FailureScript(spans=()).save(tmp_path / "none.json")).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format="other"), "expected an object with format 'sparsedrive-failures'"),
        (lambda content: content.update(faults={}), "expected a list under 'faults'"),
        (lambda content: content["faults"][0].pop("camera"), "fault 0: expected keys scene, camera"),
        (lambda content: content["faults"][0].update(colour="red"), "fault 0: expected keys"),
        (lambda content: content["faults"][0].update(start="2"), "fault 0, start: got '2'"),
        (lambda content: content["faults"][0].update(announced=1), "fault 0, announced: got 1"),
        (lambda content: content["faults"][0].update(kind="fog"), "fault 0: camera fault: expected a kind of black"),
        (lambda content: content["faults"][0].update(stop=1), "fault 0: fault of CAM_FRONT in scene-0000: expected 0 <= start < stop"),
        (lambda content: content["faults"][0].update(stop=5), "changed after the digest was written"),
        (lambda content: content["faults"].append(content["faults"][0]), "two faults at frame 2"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, change, message):
    path = FailureScript(spans=(span(2, 4),)).save(tmp_path / "list.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        FailureScript.load(path)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.json").write_text("fail!")
    for name, message in (("text.json", "expected JSON"), ("absent.json", "cannot be read")):
        with pytest.raises(ValueError, match=message):
            FailureScript.load(tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scene": "scene-9"}, "no such scene, there are scene-0000, scene-0001, scene-0002"),
        ({"camera": "CAM_TOP"}, "no such camera, there are .'CAM_FRONT'"),
        ({"stop": 99}, "the scene has 5 frames"),
    ],
)
def test_a_list_for_other_data_is_refused(data, wrong, message):
    scenes = [data.scene(name) for name in data.split("train")]
    FailureScript(spans=(span(0, 5),)).check(scenes, PLAIN.camera_names)
    with pytest.raises(ValueError, match=message):
        FailureScript(spans=(span(0, 5, **wrong) if "stop" not in wrong else span(0, 99),)).check(scenes, PLAIN.camera_names)
