"""A context in which sums are made in the order of the published code, for comparisons down to the last bits.

Random weights leave instances with confidences 10^-7 apart, and which of two comes first decides what a stream remembers. To compare
with recorded runs of the published code, rounding has to be the same too, not only the formulas. Inside `published_order()`
deformable aggregation adds sample after sample, attention is an explicit softmax over just the allowed keys, and no algebraic
shortcut is taken. Slower, eager only, and never needed to run a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sparsedrive.ops.backends import use_backend

_active = False


@contextmanager
def published_order() -> Iterator[None]:
    """Within this context everything is added up as the published code does it. Holds for the whole process."""
    global _active
    before, _active = _active, True
    try:
        with use_backend("ordered", op="deformable_aggregation"):
            yield
    finally:
        _active = before


def in_published_order() -> bool:
    """Whether a `published_order()` context is open."""
    return _active
