"""Pictures and videos of scenes, drawn with OpenCV."""

from sparsedrive.viz.bev import BevView, draw_bev
from sparsedrive.viz.camera_view import draw_camera_view
from sparsedrive.viz.picture import render_scene
from sparsedrive.viz.shown import Shown, select
from sparsedrive.viz.video import VideoWriter

__all__ = ["BevView", "Shown", "VideoWriter", "draw_bev", "draw_camera_view", "render_scene", "select"]
