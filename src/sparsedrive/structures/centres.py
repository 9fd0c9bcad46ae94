"""Boxes as centres on a map seen from above: the map, what a network says about its cells, and the truth to train it with."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures._structure import structure

CENTRE_DIM = 10
"""Columns of a cell's box: x and y from the cell's lower corner [cells], z [m], logarithms of length, width, height [m], sine and cosine
of the yaw, velocity x and y [m/s]."""


@dataclass(frozen=True, kw_only=True)
class CentreGrid:
    """Cells of the map: its lower corner (x, y), size of a cell (x, y), number of cells (x, y). Ego frame."""

    low_m: tuple[float, float]
    cell_m: tuple[float, float]
    shape: tuple[int, int]


@structure
class CentreMaps:
    """Answers of a network: class logits and a box (`CENTRE_DIM` columns) for every cell."""

    class_logits: Float[Tensor, "B K Y X"]
    box: Float[Tensor, "B 10 Y X"]


@structure
class CentreTargets:
    """How much each cell is the centre of a box of each class (1 in the cell of the centre), and for N boxes their cell and columns.

    `cell` counts row by row (y * X + x). Velocity is NaN where it is unknown. Boxes off the map and rows that pad are not `valid`.
    """

    heat: Float[Tensor, "B K Y X"]
    cell: Int[Tensor, "B N"]
    box: Float[Tensor, "B N 10"]
    valid: Bool[Tensor, "B N"]
