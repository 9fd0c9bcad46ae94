"""The loader: the same batches for every number of workers, and from any step on."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from prepared_samples import write_prepared
from torch.utils import _pytree as pytree

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.failures import RandomFailures
from sparsedrive.data.loader import FrameLoader, _Batch, make_loader
from sparsedrive.data.preprocess import ImagePreprocess

PLAIN = LoadConfig(preprocess=ImagePreprocess(final_wh_px=(96, 32)))
TRAIN = replace(PLAIN, augment=AugmentConfig(turn_deg=(-20, 20)))
FAILURES = RandomFailures(probability=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def training(data, **options) -> FrameLoader:
    defaults = {"training": True, "batch_size": 2, "workers": 0, "failures": FAILURES}
    return make_loader(data, "train", TRAIN, **(defaults | options))


def same(batches, others) -> bool:
    """Bit for bit (unknown velocities are NaN)."""
    leaves = [[leaf for leaf in pytree.tree_leaves(list(side)) if isinstance(leaf, torch.Tensor)] for side in (batches, others)]
    pairs = list(zip(*leaves, strict=True))
    assert len(pairs) > 20
    return all(torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5)) for one, other in pairs)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_counts_give_the_same_batches(data, workers):
    steps = 2 * training(data).steps_per_epoch
    assert same(islice(training(data, workers=workers), steps), islice(training(data), steps))
    assert not same(islice(training(data, seed=1), steps), islice(training(data), steps)) if workers == 1 else True


def test_two_ranks_load_what_one_would(data):
    one = [frame for frame, _ in islice(training(data, batch_size=4), 3)]
    ranks = [[frame for frame, _ in islice(training(data, rank=rank, world_size=2), 3)] for rank in (0, 1)]
    for step, whole in enumerate(one):
        assert torch.equal(torch.cat([rank[step].images for rank in ranks]), whole.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_goes_on_where_the_last_batch_was(data, workers):
    whole = list(islice(training(data), 8))
    first = training(data, workers=workers)
    begun = list(islice(first, 3))
    state = first.state_dict()  # although the workers are ahead
    second = training(data, workers=workers)
    second.load_state_dict(state)
    assert same([*begun, *islice(second, 5)], whole)
    assert same(islice(first, 5), whole[3:])  # and so does another loop over the same loader
    assert first.state_dict() == second.state_dict()


def test_a_position_can_move_to_other_ranks_but_not_to_other_frames(data):
    state = training(data, batch_size=4).state_dict()
    training(data, batch_size=2, rank=1, world_size=2).load_state_dict(state)
    for options in ({"batch_size": 3}, {"seed": 5}, {"parts": 1}):
        with pytest.raises(ValueError, match="its step means other frames here"):
            training(data, **({"batch_size": 4} | options)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"slots = None, now 4"):
        training(data, batch_size=4).load_state_dict({"step": 3})


def test_an_epoch_can_be_begun_anywhere(data):
    loader = training(data)
    loader.start_epoch(3)
    frame, _ = next(iter(loader))
    assert loader.step == 3 * loader.steps_per_epoch + 1
    assert frame.sequence_id.tolist() == [request.sequence_id for request in loader.requests(loader.step - 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_ends_and_begins_again(data, workers):
    loader = make_loader(data, "train", PLAIN, training=False, batch_size=2, workers=workers)
    next(iter(loader))  # a look at it does not cost the next evaluation a batch
    rounds = [list(loader) for _ in range(2)]
    assert same(*rounds) and len(rounds[0]) == loader.steps_per_epoch == 7
    rows = [request for step in range(7) for request in loader.requests(step)]
    assert len({(row.scene, row.frame) for row in rows if not row.padding}) == 12 == sum(not row.padding for row in rows)
    available = torch.cat([frame.rig.available for frame, _ in rounds[0]])
    assert available.any(1).tolist() == [not row.padding for row in rows]
    padded = [targets.boxes.valid[row].any() for _, targets in rounds[0] for row in range(2)]
    assert not any(valid for valid, row in zip(padded, rows, strict=True) if row.padding)


def test_the_numbers_of_others_are_left_alone(data):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(islice(training(data), 2))
    assert torch.equal(torch.rand(1), expected)


def test_an_unknown_split_is_refused(data):
    with pytest.raises(ValueError, match=r"expected one of \['train', 'val'\]"):
        make_loader(data, "test", PLAIN, training=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned(data):
    frame, targets = next(iter(training(data, workers=1, pin_memory=True)))
    assert frame.images.is_pinned() and frame.rig.available.is_pinned() and targets.boxes.box.is_pinned()


def test_what_pins_a_batch_keeps_its_parts(data, monkeypatch):
    """Without a GPU: every tensor goes through `pin_memory`, names and structure stay."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    batch = _Batch(*next(iter(training(data))))
    pinned = batch.pin_memory()
    assert same([(batch.frame, batch.targets)], [(pinned.frame, pinned.targets)])
    assert pinned.frame.images is not batch.frame.images and pinned.frame.rig.names == batch.frame.rig.names
