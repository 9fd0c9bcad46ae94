import torch

from sparsedrive.decoding import drop_duplicates
from sparsedrive.structures import Detections


def detections(rows: list[tuple[float, ...]], valid: list[bool] | None = None) -> Detections:
    """Rows x y length width yaw, best first."""
    n = len(rows)
    box = torch.zeros(1, n, 10)
    box[0, :, [0, 1, 3, 4, 6]] = torch.tensor(rows)
    score = torch.linspace(0.9, 0.1, n)[None]
    row = torch.arange(n)[None]
    known = torch.ones(1, n, dtype=torch.bool) if valid is None else torch.tensor([valid])
    return Detections(box=box, score=score, class_score=score, label=row % 3, track_id=row, query_index=row, valid=known)


def kept(found: Detections) -> list[bool]:
    return drop_duplicates(found).valid[0].tolist()


def test_a_centre_inside_a_better_box_is_dropped_along_its_own_axes():
    car = (0.0, 0.0, 4.0, 2.0, 0.0)
    assert kept(detections([car, (1.9, 0.0, 1.0, 1.0, 0.0)])) == [True, False]
    assert kept(detections([car, (0.0, 1.9, 1.0, 1.0, 0.0)])) == [True, True]
    turned = (0.0, 0.0, 4.0, 2.0, torch.pi / 2)
    assert kept(detections([turned, (0.0, 1.9, 1.0, 1.0, 0.0)])) == [True, False]
    assert kept(detections([turned, (1.9, 0.0, 1.0, 1.0, 0.0)])) == [True, True]


def test_a_worse_larger_box_around_a_better_small_one_is_dropped():
    assert kept(detections([(1.5, 0.0, 1.0, 1.0, 0.0), (0.0, 0.0, 4.0, 2.0, 0.0)])) == [True, False]


def test_what_was_dropped_drops_nothing():
    """A chain: the second lies on the first, the third on the second only."""
    chain = [(0.0, 0.0, 4.0, 2.0, 0.0), (1.9, 0.0, 4.0, 2.0, 0.0), (3.8, 0.0, 4.0, 2.0, 0.0)]
    assert kept(detections(chain)) == [True, False, True]
    assert kept(detections(chain, valid=[False, True, True])) == [False, True, False]


def test_greedy_over_many_boxes_is_the_plain_loop():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(60, 5, generator=generator) * torch.tensor([12.0, 12.0, 4.0, 2.0, 3.0])
    found = detections([tuple(row) for row in rows.tolist()])

    def inside(i: int, j: int) -> bool:
        x, y, length, width, yaw = rows[i].double()
        dx, dy = rows[j, 0] - x, rows[j, 1] - y
        return bool((dx * yaw.cos() + dy * yaw.sin()).abs() < length / 2 and (dy * yaw.cos() - dx * yaw.sin()).abs() < width / 2)

    stays: list[int] = []
    for j in range(60):
        if not any(inside(i, j) or inside(j, i) for i in stays):
            stays.append(j)
    assert 5 < len(stays) < 50
    assert [i for i, yes in enumerate(kept(found)) if yes] == stays


def test_streams_do_not_see_each_other():
    one = detections([(0.0, 0.0, 4.0, 2.0, 0.0), (1.0, 0.0, 4.0, 2.0, 0.0)])
    far = detections([(0.0, 0.0, 4.0, 2.0, 0.0), (9.0, 0.0, 4.0, 2.0, 0.0)])
    both = Detections(**{name: torch.cat([getattr(one, name), getattr(far, name)]) for name in Detections.__slots__})
    assert drop_duplicates(both).valid.tolist() == [[True, False], [True, True]]
