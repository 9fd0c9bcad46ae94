"""The lists of CamFail: how many, for which cameras, the same every time."""

import numpy as np
import pytest
from prepared_samples import make_scene

from sparsedrive.evaluation.robustness_scenarios import CLEAN, camera_ring, choose, onset_frame, suite_scenarios
from sparsedrive.structures import NUSCENES_CAMERAS

CLOCKWISE = ("F", "FR", "BR", "B", "BL", "FL")
"""Cameras of the samples look around clockwise from the front."""
PINNED = {
    "S1-front": "959ca55e77d8",
    "O-rear": "71b45a8a8cf2",
    "I-1s-1of6-0": "841a13677b8b",
    "FL-2": "eb8bfc5d5942",
    "CC-4": "bc5e17c52e0e",
    "Z-fr": "a2d367d3e055",
    "P-blur-4": "c09309e8c772",
    "H-late-1": "f970dd6cff6b",
    "R": "aa481e983411",
}


def scenes(count: int = 2, frames: int = 40, cameras: tuple[str, ...] = CLOCKWISE):
    return [make_scene(f"scene-{number:04d}", frames, cameras, (64, 36), number) for number in range(count)]


@pytest.fixture(scope="module")
def full():
    return suite_scenarios("full", scenes(), CLOCKWISE)


def lost(scenario, scene: str = "scene-0000", frames: int = 40) -> np.ndarray:
    return scenario.script.lost(scene, frames, CLOCKWISE)


def named(scenarios, name: str):
    return next(one for one in scenarios if one.name == name)


def test_the_ring_is_found_from_where_cameras_look():
    mixed = ("B", "FL", "F", "BR", "FR", "BL")
    assert camera_ring(scenes(1)[0], mixed) == ("F", "FL", "BL", "B", "BR", "FR")
    with pytest.raises(ValueError, match=r"no camera \['TOP'\]"):
        camera_ring(scenes(1)[0], ("F", "TOP"))


def test_suites_have_their_runs(full):
    counts = {group: sum(one.group == group for one in full) for group in dict.fromkeys(one.group for one in full)}
    assert counts == {CLEAN: 1, "S1": 6, "S2a": 6, "S2o": 3, "S3": 6, "O": 3, "I": 12, "FL": 5, "CC": 3, "Z": 6, "P": 10, "H": 4, "R": 1}
    core, quick = (suite_scenarios(suite, scenes(), CLOCKWISE) for suite in ("core", "quick"))
    assert len(core) == 24 and [one.name for one in quick] == [CLEAN, "S1-front", "S1-rear", "O-front", "R"]
    digests = {one.name: one.script.digest for one in full}
    assert all(digests[one.name] == one.script.digest for one in (*core, *quick))
    assert len({one.name for one in full}) == len(full)


def test_the_lists_never_change(full):
    """Pinned: results of another day can be compared only as long as these stay."""
    assert {name: named(full, name).script.digest[:12] for name in PINNED} == PINNED


def test_only_what_is_random_hangs_on_the_seed(full):
    other = suite_scenarios("full", scenes(), CLOCKWISE, seed=1)
    changed = {one.group for one, two in zip(full, other, strict=True) if one.script.digest != two.script.digest}
    assert changed == {"I", "FL", "CC", "R"}


def test_a_scene_fails_the_same_whatever_other_scenes_there_are(full):
    alone = suite_scenarios("full", scenes(3)[1:2], CLOCKWISE)
    for one, two in zip(alone, full, strict=True):
        np.testing.assert_array_equal(lost(one, "scene-0001"), lost(two, "scene-0001"))


def test_dead_cameras_are_who_they_should_be(full):
    def dead(name: str) -> set[str]:
        always = lost(named(full, name)).all(0)
        assert (lost(named(full, name)) == always).all()
        return {CLOCKWISE[column] for column in np.flatnonzero(always)}

    assert dead("S1-front") == {"F"} and dead("S1-rear") == {"B"} and dead("S1-fl") == {"FL"}
    assert dead("S2a-front-fl") == {"F", "FL"} and dead("S2a-rear-br") == {"B", "BR"}
    opposite = [dead(one.name) for one in full if one.group == "S2o"]
    assert len(opposite) == 3 and all(pair in opposite for pair in ({"F", "B"}, {"FL", "BR"}, {"FR", "BL"}))
    assert dead("S3-rear-arc") == {"BL", "B", "BR"} and dead("S3-alternate-a") | dead("S3-alternate-b") == set(CLOCKWISE)
    assert len(dead("CC-2")) == 2 and dead("CC-2") < dead("CC-4") < dead("CC-5") and len(dead("CC-5")) == 5


def test_onset_and_health_errors(full):
    assert onset_frame(scenes(1)[0]) == 10 and onset_frame(scenes(1, frames=9)[0]) == 4
    np.testing.assert_array_equal(np.flatnonzero(lost(named(full, "O-front")).any(1)), np.arange(10, 40))
    late = [span for span in named(full, "H-late-3").script.spans if span.scene == "scene-0000"]
    assert [(span.start, span.stop, span.announced) for span in sorted(late)] == [(10, 13, False), (13, 40, True)]
    assert not any(span.announced for span in named(full, "H-undetected").script.spans)
    assert all(span.announced and span.kind == "intact" for span in named(full, "H-false-alarm").script.spans)
    for one in full:
        hidden = {"Z", "P"} & {one.group}
        assert all(span.announced != bool(hidden) for span in one.script.spans) or one.group == "H"


def test_random_lists_lose_as_much_as_they_say():
    many = suite_scenarios("full", scenes(25), CLOCKWISE)

    def share(name: str) -> float:
        return float(np.mean([lost(named(many, name), f"scene-{number:04d}") for number in range(25)]))

    for sixths in range(1, 6):
        assert abs(share(f"FL-{sixths}") - sixths / 6) < 0.02
    for mean_down in ("1s", "3s"):
        for sixths in (1, 2):
            assert abs(np.mean([share(f"I-{mean_down}-{sixths}of6-{seed}") for seed in range(3)]) - sixths / 6) < 0.03
    assert abs(share("R") - 0.15) < 0.02


@pytest.mark.parametrize("cameras", [("only",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")])
def test_other_rigs(cameras):
    found = suite_scenarios("full", scenes(1, 12, cameras), cameras)
    groups = {one.group for one in found}
    assert ("S2a" in groups) == (len(cameras) > 2) and ("S2o" in groups) == (len(cameras) > 3) and "S3" not in groups
    assert sum(one.group == "S1" for one in found) == len(cameras)
    for one in found:
        one.script.check(scenes(1, 12, cameras), cameras)


def test_choosing(full):
    assert [one.name for one in choose(full, ["S1-front", "R"])] == [CLEAN, "S1-front", "R"]
    assert sum(one.group == "I" for one in choose(full, ["I-1s"])) == 6
    with pytest.raises(ValueError, match=r"expected names or groups of this suite, got \['S9'\]"):
        choose(full, ["S1", "S9"])
    with pytest.raises(ValueError, match="suite: expected one of quick, core, full"):
        suite_scenarios("huge", scenes(), CLOCKWISE)
    with pytest.raises(ValueError, match=r"no camera \['CAM_FRONT'"):
        suite_scenarios("quick", scenes(), NUSCENES_CAMERAS)
