import cv2
import numpy as np
import pytest

from sparsedrive.viz import VideoWriter


def picture(red: int) -> np.ndarray:
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = red
    return image


def test_pngs_keep_the_pixels_and_the_colour_order(tmp_path):
    with VideoWriter(tmp_path, mp4=False) as video:
        path = video.write(picture(200))
        video.write(picture(100))
    assert [item.name for item in sorted((tmp_path / "frames").iterdir())] == ["000000.png", "000001.png"]
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), picture(200))
    assert not video.has_video and video.problem is None and not video.video_path.exists()


def test_mp4_plays_back(tmp_path):
    with VideoWriter(tmp_path, fps=2.0) as video:
        for red in (200, 100, 50):
            video.write(picture(red))
    if video.problem:
        pytest.skip(video.problem)
    capture = cv2.VideoCapture(str(video.video_path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and capture.get(cv2.CAP_PROP_FPS) == 2
    assert abs(int(capture.read()[1][..., 2].mean()) - 200) < 12


class Refusing:
    """Stands in for an OpenCV built without an MP4 encoder."""

    def __init__(self, *_) -> None:
        pass

    fourcc = staticmethod(lambda *_: 0)

    def isOpened(self) -> bool:  # noqa: N802
        return False


def test_without_a_codec_it_says_so_and_keeps_the_pngs(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoWriter", Refusing)
    with VideoWriter(tmp_path) as video:
        video.write(picture(1))
    assert not video.has_video
    assert video.problem is not None and "cannot encode MP4" in video.problem and str(tmp_path / "frames") in video.problem
    assert (tmp_path / "frames" / "000000.png").is_file()


def test_pictures_of_an_earlier_run_are_removed_but_nothing_else(tmp_path):
    (tmp_path / "frames").mkdir()
    for name in ("000009.png", "notes.png"):
        (tmp_path / "frames" / name).write_bytes(b"x")
    VideoWriter(tmp_path)
    assert [item.name for item in (tmp_path / "frames").iterdir()] == ["notes.png"]


def test_pictures_of_another_size_are_refused(tmp_path):
    with VideoWriter(tmp_path, mp4=False) as video:
        video.write(picture(1))
        with pytest.raises(ValueError, match=r"expected pictures of \(96, 64\) pixels like the first one, got \(10, 10\)"):
            video.write(np.zeros((10, 10, 3), np.uint8))
