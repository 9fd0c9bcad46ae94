from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from torch.utils import _pytree as pytree

from sparsedrive import structures
from sparsedrive.structures import (
    CameraRig,
    Frame,
    ImageFeatures,
    InstanceMemory,
    MotionMemory,
    ParityOptions,
    StreamClock,
    StreamState,
    cat_frames,
    cat_states,
    take_rows,
)
from sparsedrive.structures.frame import with_available

STRUCTURES = [value for value in vars(structures).values() if isinstance(value, type) and hasattr(value, "__slots__")]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frame(batch: int, seed: int = 0, *, cameras: int = 2, height: int = 4) -> Frame:
    draw = rng(seed)
    rig = CameraRig(
        image_T_ego=torch.randn(batch, cameras, 4, 4, generator=draw),
        image_wh_px=torch.rand(batch, cameras, 2, generator=draw),
        focal_px=torch.rand(batch, cameras, generator=draw),
        available=torch.rand(batch, cameras, generator=draw) > 0.5,
        names=tuple("ABCD"[:cameras]),
    )
    return Frame(
        images=torch.randn(batch, cameras, 3, height, 6, generator=draw),
        rig=rig,
        global_T_ego=torch.randn(batch, 4, 4, generator=draw, dtype=torch.float64),
        time_s=torch.rand(batch, generator=draw, dtype=torch.float64),
        sequence_id=torch.randint(9, (batch,), generator=draw),
        ego_status=torch.randn(batch, 10, generator=draw),
        command=torch.randint(3, (batch,), generator=draw),
    )


def state(batch: int, seed: int = 0, *, motion: bool = True) -> StreamState:
    """Every entry of every tensor is set, so that a forgotten one shows."""
    draw = rng(seed)

    def real(*shape: int) -> torch.Tensor:
        return torch.rand(batch, *shape, generator=draw) + 1

    def whole(*shape: int) -> torch.Tensor:
        return torch.randint(1, 99, (batch, *shape), generator=draw)

    def instances() -> InstanceMemory:
        return InstanceMemory(feature=real(3, 4), state=real(3, 11), confidence=real(3), track_id=whole(3), next_id=whole())

    clock = StreamClock(
        global_T_ego=real(4, 4).double(), time_s=real().double(), sequence_id=whole(), started=torch.ones(batch, dtype=torch.bool)
    )
    past = MotionMemory(
        feature=real(5, 2, 4), state=real(5, 2, 11), period=whole(5), track_id=whole(5), confidence=real(5), ego_feature=real(2, 4),
        ego_state=real(2, 11), ego_period=whole(), ego_status=real(10),
    )  # fmt: skip
    return StreamState(clock=clock, detection=instances(), map=instances(), motion=past if motion else None)


def same(a, b) -> bool:
    pairs = list(zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True))
    return all(x.dtype == y.dtype and torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_all_structures_are_found():
    assert {cls.__name__ for cls in STRUCTURES} >= {"Frame", "CameraRig", "StreamState", "Scene", "Predictions", "ImageFeatures", "Plan"}
    assert len(STRUCTURES) == 30


@pytest.mark.parametrize("cls", STRUCTURES, ids=lambda cls: cls.__name__)
def test_every_structure_is_a_frozen_slotted_pytree(cls):
    values = {field.name: torch.full((2,), float(number)) for number, field in enumerate(fields(cls))}
    made = cls(**values)
    leaves, spec = pytree.tree_flatten(made)
    assert [leaf[0].item() for leaf in leaves] == list(range(len(values)))
    doubled = pytree.tree_unflatten([2 * leaf for leaf in leaves], spec)
    assert type(doubled) is cls and all(getattr(doubled, name)[0] == 2 * value[0] for name, value in values.items())
    with pytest.raises(FrozenInstanceError):
        setattr(made, next(iter(values)), None)
    with pytest.raises((AttributeError, TypeError)):
        made.something_else = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        cls(*values.values())


def test_tree_map_keeps_camera_names_and_none():
    before = frame(2)
    after = pytree.tree_map(lambda leaf: leaf, before)
    assert isinstance(after.rig, CameraRig) and after.rig.names == ("A", "B") and same(before, after)
    assert pytree.tree_map(lambda leaf: leaf + 1, state(2, motion=False)).motion is None


def test_reset_where_blanks_these_streams_and_no_other():
    before = state(3)
    after = before.reset_where(torch.tensor([False, True, False]))
    assert same(after.stream(0), before.stream(0)) and same(after.stream(2), before.stream(2))
    leaves = pytree.tree_leaves(after.stream(1))
    assert len(leaves) == 23 and all((leaf == 0).all() for leaf in leaves)
    assert [leaf.dtype for leaf in leaves] == [leaf.dtype for leaf in pytree.tree_leaves(before)]
    assert before.clock.started.all()  # a value: the old one is as it was
    assert same(before.reset_where(torch.zeros(3, dtype=torch.bool)), before)


def test_reset_where_leaves_no_nan_behind():
    broken = pytree.tree_map(lambda leaf: torch.full_like(leaf, torch.nan) if leaf.is_floating_point() else leaf, state(2))
    after = broken.reset_where(torch.tensor([True, True]))
    assert all((leaf == 0).all() for leaf in pytree.tree_leaves(after))


def test_streams_and_cat_states_are_inverse():
    whole = state(3)
    assert same(cat_states([whole.stream(index) for index in range(3)]), whole)
    assert whole.stream(1).clock.started.shape == (1,)
    assert not same(cat_states([whole.stream(index) for index in (0, 2, 1)]), whole)
    assert cat_states([state(1, motion=False), state(2, motion=False)]).motion is None


def test_states_detach_and_move():
    grown = pytree.tree_map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, state(1))
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(grown.detach()))
    assert {leaf.device.type for leaf in pytree.tree_leaves(state(1).to("meta"))} == {"meta"}
    moved = frame(1).to("meta")
    assert moved.images.device.type == moved.rig.available.device.type == "meta" and moved.rig.names == ("A", "B")


def test_cat_frames_puts_streams_side_by_side():
    parts = [frame(1, seed=1), frame(2, seed=2)]
    whole = cat_frames(parts)
    assert whole.batch_size == 3 and whole.rig.names == ("A", "B") and whole.time_s.dtype == torch.float64
    assert torch.equal(whole.images[1:], parts[1].images) and torch.equal(whole.rig.image_T_ego[:1], parts[0].rig.image_T_ego)
    assert torch.equal(whole.command, torch.cat([part.command for part in parts]))
    assert same(cat_frames(parts[:1]), parts[0])


def test_cat_frames_refuses_rigs_that_differ():
    with pytest.raises(ValueError, match=r"expected every frame to have cameras \('A', 'B'\).*got \('A', 'B', 'C'\).*separate sessions"):
        cat_frames([frame(1), frame(1, cameras=3)])
    with pytest.raises(ValueError, match=r"images \(2, 3, 4, 6\), got .*\(2, 3, 8, 6\)"):
        cat_frames([frame(1), frame(1, height=8)])
    renamed = replace(frame(1), rig=replace(frame(1).rig, names=("B", "A")))
    with pytest.raises(ValueError, match=r"got \('B', 'A'\)"):
        cat_frames([frame(1), renamed])


def test_with_available_changes_nothing_else():
    before, available = frame(2), torch.tensor([[True, False], [False, False]])
    after = with_available(before, available)
    assert torch.equal(after.rig.available, available)
    assert same(replace(after, rig=replace(after.rig, available=before.rig.available)), before)


def test_take_rows_picks_inside_the_batch():
    rows = torch.arange(2 * 4 * 3).reshape(2, 4, 3)
    index = torch.tensor([[3, 0], [1, 1]])
    assert torch.equal(take_rows(rows, index), torch.stack([rows[b, index[b]] for b in range(2)]))
    assert torch.equal(take_rows(rows[..., 0], index), torch.stack([rows[b, index[b], 0] for b in range(2)]))
    deep = torch.rand(2, 4, 3, 5, generator=rng(0), dtype=torch.float64, requires_grad=True)
    assert take_rows(deep, index).shape == (2, 2, 3, 5) and take_rows(deep, index[:, :0]).shape == (2, 0, 3, 5)
    take_rows(deep, index).sum().backward()
    assert deep.grad[0, :, 0, 0].tolist() == [1, 0, 0, 1] and deep.grad[1, :, 0, 0].tolist() == [0, 2, 0, 0]


def test_levels_of_packed_features():
    sizes = ((4, 6), (2, 3), (1, 2))
    levels = [torch.randn(2, 3, 5, *size, generator=rng(size[0])) for size in sizes]
    packed = torch.cat([level.flatten(3).transpose(2, 3) for level in levels], dim=2)
    features = ImageFeatures(packed=packed, level_hw=(4, 6, 2, 3, 1, 2))
    assert features.num_levels == 3
    for index in (0, 1, 2, -1, -3):
        assert torch.equal(features.level(index), levels[index])
    assert features.level(0).data_ptr() == packed.data_ptr()  # a view
    with pytest.raises(IndexError):
        features.level(3)


def test_published_switches_every_option_on_and_the_default_none():
    options = [field.name for field in fields(ParityOptions)]
    assert options and not any(getattr(ParityOptions(), name) for name in options)
    assert all(getattr(ParityOptions.published(), name) for name in options)
