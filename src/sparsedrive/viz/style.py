"""Colours (RGB, 0-255) and the one font of every picture."""

import colorsys

import cv2

from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES

Colour = tuple[int, int, int]

BACKGROUND: Colour = (16, 19, 25)
PANEL: Colour = (23, 27, 35)
GRID: Colour = (44, 51, 63)
MUTED: Colour = (134, 145, 163)
TEXT: Colour = (232, 236, 242)
WHITE: Colour = (255, 255, 255)
PLAN: Colour = (64, 236, 138)
COLLIDES: Colour = (255, 64, 64)
EGO: Colour = (206, 214, 226)

_DETECTION_COLOURS: dict[str, Colour] = {
    "car": (255, 166, 43),
    "truck": (255, 107, 74),
    "construction_vehicle": (201, 142, 92),
    "bus": (255, 221, 64),
    "trailer": (255, 158, 134),
    "barrier": (150, 163, 184),
    "motorcycle": (240, 98, 226),
    "bicycle": (178, 132, 255),
    "pedestrian": (84, 166, 255),
    "traffic_cone": (64, 214, 204),
}
_MAP_COLOURS: dict[str, Colour] = {"ped_crossing": (92, 200, 255), "divider": (214, 222, 235), "boundary": (255, 92, 128)}

FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(label: int) -> Colour:
    """Colour of a detection class, by its index in `DETECTION_CLASSES`."""
    return _DETECTION_COLOURS[DETECTION_CLASSES[label]]


def map_colour(label: int) -> Colour:
    """Colour of a map class, by its index in `MAP_CLASSES`."""
    return _MAP_COLOURS[MAP_CLASSES[label]]


def track_colour(track_id: int) -> Colour:
    """Colour of a track: steady over time; ids that follow each other lie far apart on the colour circle."""
    golden_ratio = 0.618033988749895
    red, green, blue = colorsys.hsv_to_rgb((track_id * golden_ratio) % 1.0, 0.55, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` blended over `other`; `share` 1 is all `colour`."""
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(colour, other, strict=True))
    return red, green, blue
