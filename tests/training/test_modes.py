"""Half precision, running means, frozen parts, accumulation, deterministic operations."""

import pytest
import torch
from accelerate.state import AcceleratorState
from small_runs import without_chance
from training_samples import RandomLoader, model_config, same_weights, train_config, trainer

from sparsedrive.training.logs import read_log
from sparsedrive.training.trainer import Trainer, make_accelerator


@pytest.fixture(autouse=True)
def fresh_engine():
    """The engine keeps its precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=False)
    yield
    AcceleratorState._reset_state(reset_partial_state=False)
    torch.use_deterministic_algorithms(False)


def same_batch(step, frame, targets):
    """The second batch every time."""
    loader = RandomLoader()
    loader.step = 1
    return next(iter(loader))


@pytest.fixture(scope="module", params=["no", "bf16"])
def learned(request, tmp_path_factory):
    """The same batch eight times."""
    AcceleratorState._reset_state(reset_partial_state=False)
    loader = RandomLoader(spoil=same_batch)
    run = trainer(tmp_path_factory.mktemp(request.param), precision=request.param, steps=8, loader=loader)
    run.run()
    return run


def test_it_learns_one_batch(learned):
    """Classes; boxes and lines are only refined once their class is believed."""
    log = read_log(learned.folder)
    for name in ("loss.detection.0.class", "loss.detection.2.class", "loss.map.1.class"):
        assert log[-1][name] < 0.9 * log[0][name], name
    assert all(value.dtype == torch.float32 for value in learned.plain_model.parameters())
    assert all(value.isfinite().all() for value in learned.plain_model.state_dict().values())


def test_half_precision_is_computed_in_and_resumed(learned, tmp_path):
    features = learned.states[0].detection.feature
    assert features.dtype == (torch.bfloat16 if learned.config.precision == "bf16" else torch.float32)
    assert learned.states[0].detection.state.dtype == torch.float32  # places in metres stay precise
    loader = RandomLoader(spoil=same_batch)
    resumed = trainer(tmp_path, precision=learned.config.precision, steps=8, loader=loader, seed=5)
    assert resumed.resume(learned.folder / "checkpoints" / "step-00000006") == []
    resumed.run()
    assert same_weights(resumed, learned)


def test_fp16_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        make_accelerator(train_config(precision="fp16"), cpu=True)


def test_deterministic_runs_are_equal_to_the_last_bit(tmp_path):
    runs = [trainer(tmp_path / str(number), deterministic=True, steps=3) for number in range(2)]
    for run in runs:
        assert torch.are_deterministic_algorithms_enabled()
        torch.manual_seed(0)
        run.run()
    ours, theirs = (read_log(run.folder) for run in runs)
    for one, other in zip(ours, theirs, strict=True):
        assert {n: v for n, v in one.items() if n.startswith("loss")} == {n: v for n, v in other.items() if n.startswith("loss")}
    assert same_weights(*runs)


def test_the_running_mean_is_the_mean_of_the_weights(tmp_path):
    """Decay is at most (1 + n) / (10 + n), so that the random start is soon forgotten."""
    run = trainer(tmp_path, ema_decay=0.5)
    name = "detection.anchors"
    mean, batches = run.plain_model.state_dict()[name].clone(), iter(run.loader)
    run.model.train()
    for step in range(1, 5):
        run.train_step(*next(batches))
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * run.plain_model.state_dict()[name]
    torch.testing.assert_close(run.ema[name], mean)
    assert not torch.equal(run.ema[name], run.plain_model.state_dict()[name])
    assert run.ema["image_encoder.backbone.bn1.num_batches_tracked"] == 4


def test_frozen_parts_keep_weights_and_statistics(tmp_path):
    run = trainer(tmp_path, freeze=("image_encoder.backbone", "map."), steps=2)
    before = {name: value.clone() for name, value in run.plain_model.state_dict().items()}
    run.run()
    after = run.plain_model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("image_encoder.backbone.", "map.")) for name in changed)
    assert any(name.startswith("image_encoder.neck.") for name in changed) and any(name.startswith("detection.") for name in changed)
    assert run.plain_model.training and not run.plain_model.image_encoder.backbone.bn1.training


def plain_run(folder, accumulation: int) -> Trainer:
    """Nothing random, no batch norms, and every stream has as many targets as the others: each part is averaged over its own."""
    config = train_config(accumulation=accumulation, freeze=("image_encoder.backbone", "planner.ego_feature"), steps=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = without_chance(model_config()).build()
    return Trainer(model, RandomLoader(first=2), config, folder, make_accelerator(config, cpu=True))


def test_accumulated_parts_give_what_the_whole_batch_gives(tmp_path):
    logs = {}
    for parts in (1, 4):
        run = plain_run(tmp_path / str(parts), parts)
        run.run()
        logs[parts] = read_log(run.folder)
    for one, other in zip(logs[1], logs[4], strict=True):
        for name in one:
            if name in ("loss", "gradient_norm") or name.startswith("loss."):
                assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (one["step"], name)
