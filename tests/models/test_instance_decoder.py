from dataclasses import replace

import pytest
import torch
from model_samples import HEIGHT, ROUNDING, WIDTH, build, config, differences, frame
from torch.testing import assert_close

from sparsedrive.geometry import box_state
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.decoder_layer import LayerConfig
from sparsedrive.models.instance_decoder import DecoderConfig, InstanceDecoder
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import ImageFeatures, InstanceMemory, ParityOptions, cat_frames

OURS, STALE = ParityOptions(), ParityOptions(stale_memory_attention=True)


@pytest.fixture(scope="module")
def decoders() -> dict[str, InstanceDecoder]:
    model = build()
    return {"boxes": model.detection, "lines": model.map}


def features(batch: int = 2) -> ImageFeatures:
    level_hw = tuple(size // stride for stride in (4, 8, 16, 32) for size in (HEIGHT, WIDTH))
    pixels = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    return ImageFeatures(packed=torch.randn(batch, 3, pixels, 32, generator=torch.Generator().manual_seed(0)), level_hw=level_hw)


def memory(decoder: InstanceDecoder, seed: int = 1) -> InstanceMemory:
    draw = torch.Generator().manual_seed(seed)
    blank = decoder.initial_memory(2)
    rows = blank.feature.shape[1]
    return replace(
        blank,
        feature=torch.randn(blank.feature.shape, generator=draw),
        state=decoder.anchors.detach()[:rows].expand(2, -1, -1) + torch.randn(blank.state.shape, generator=draw) * 0.1,
        confidence=torch.rand(2, rows, generator=draw),
        track_id=torch.randperm(100, generator=draw)[: 2 * rows].view(2, rows),
        next_id=torch.tensor([100, 200]),
    )


def tick(*warm: bool, attends: tuple[bool, ...] | None = None) -> Tick:
    half_s, eye = torch.full((2,), 0.5), torch.eye(4).repeat(2, 1, 1)
    return Tick(warm=torch.tensor(warm), attends=torch.tensor(attends or warm), now_T_then=eye, elapsed_s=half_s, step_s=half_s)


def decode(decoder: InstanceDecoder, kept: InstanceMemory, now: Tick, parity: ParityOptions = OURS):
    cameras = cat_frames([frame(0), frame(0, stream=1)]).rig
    with torch.no_grad():
        return decoder(features(), cameras, kept, now, parity)


@pytest.mark.parametrize("name", ["boxes", "lines"])
def test_cold_streams_do_not_see_the_memory(decoders, name):
    decoder = decoders[name]
    mixed, kept = decode(decoder, memory(decoder), tick(True, False))
    fresh, fresh_kept = decode(decoder, decoder.initial_memory(2), tick(False, False))
    different = differences(mixed, fresh, ROUNDING)
    assert any("steps[1].state" in path for path in different)
    for a, b in ((mixed, fresh), (kept, fresh_kept)):
        assert differences(*(torch.utils._pytree.tree_map(lambda leaf: leaf[1:], value) for value in (a, b)), ROUNDING) == []


@pytest.mark.parametrize("name", ["boxes", "lines"])
def test_warm_rows_are_the_memory_and_what_is_remembered_comes_from_the_last_layer(decoders, name):
    decoder = decoders[name]
    past = memory(decoder)
    rows = past.track_id.shape[1]
    predictions, kept = decode(decoder, past, tick(True, True))
    assert torch.equal(predictions.track_id[:, :rows], past.track_id)
    assert predictions.track_id[:, rows].tolist() == [100, 200]
    assert kept.next_id.tolist() == [100 + decoder.config.num_anchors - rows, 200 + decoder.config.num_anchors - rows]
    for b in range(2):
        for k in range(rows):
            (row,) = (predictions.track_id[b] == kept.track_id[b, k]).nonzero()[0].tolist()
            assert torch.equal(kept.state[b, k], predictions.last.state[b, row])
            assert torch.equal(kept.feature[b, k], predictions.feature[b, row])
    assert (kept.confidence[:, :-1] >= kept.confidence[:, 1:]).all()


def test_stale_attention_uses_the_memory_of_a_cold_stream(decoders):
    decoder = decoders["boxes"]
    stale, _ = decode(decoder, memory(decoder), tick(False, False, attends=(True, True)), STALE)
    other, _ = decode(decoder, memory(decoder, seed=2), tick(False, False, attends=(True, True)), STALE)
    ours, _ = decode(decoder, memory(decoder), tick(False, False))
    ours_other, _ = decode(decoder, memory(decoder, seed=2), tick(False, False))
    assert differences(stale, other, ROUNDING) and differences(stale, ours, ROUNDING)
    assert differences(ours, ours_other, ROUNDING) == []


def test_memory_positions_follow_the_refined_boxes_after_the_first_temporal_layer(decoders):
    """Only the first temporal layer may embed where the memory was; later ones take the first rows' refined place."""
    decoder, seen = decoders["boxes"], []
    rows = decoder.config.num_memory
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments: seen.append((arguments[2], *arguments[3])))
        for layer in decoder.temporal_layers
    ]
    past = memory(decoder)
    try:
        predictions, _ = decode(decoder, past, tick(True, True))
    finally:
        for hook in hooks:
            hook.remove()
    (_, first_feature, first_embed, _), (second_own, second_feature, second_embed, _) = seen
    moved = decoder.config.kind.transform(past.state, torch.eye(4).repeat(2, 1, 1), torch.full((2,), 0.5))
    assert_close(first_embed, decoder.encoder(moved))
    assert torch.equal(second_embed, second_own[:, :rows]) and not torch.allclose(second_embed, first_embed)
    assert torch.equal(first_feature, past.feature) and torch.equal(second_feature, past.feature)
    assert_close(predictions.embed, decoder.encoder(predictions.last.state))


def test_layers_of_the_two_heads(decoders):
    boxes, lines = decoders["boxes"], decoders["lines"]
    assert boxes.single_frame_layers[0].instance_attention is None and lines.single_frame_layers[0].instance_attention is not None
    for decoder in (boxes, lines):
        assert all(layer.memory_attention is None for layer in decoder.single_frame_layers)
        assert all(layer.memory_attention is not None and layer.instance_attention is not None for layer in decoder.temporal_layers)
    assert not boxes.initial_feature.requires_grad and not boxes.initial_feature.any()
    assert lines.initial_feature.requires_grad and lines.initial_feature.any()


def test_a_decoder_without_memory_and_with_several_single_frame_layers():
    base = config().map
    torch.manual_seed(0)
    decoder = replace(base, num_memory=0, num_layers=3, num_single_frame_layers=2).build().eval()
    predictions, kept = decode(decoder, decoder.initial_memory(2), tick(True, True))
    assert len(predictions.steps) == 3 and kept.feature.shape == (2, 0, 32)
    assert predictions.track_id.tolist() == [list(range(12))] * 2
    cold, _ = decode(decoder, decoder.initial_memory(2), tick(False, False))
    assert differences(predictions.steps, cold.steps, ROUNDING) == []


def test_default_anchors_cover_the_range():
    anchors = BoxKind().default_anchors(900)
    radius_m = anchors[:, :2].norm(dim=1)
    assert anchors.shape == (900, 11) and radius_m.max() < 55 and radius_m.min() < 2
    assert_close(box_state.decode(anchors)[:, 3:7], torch.tensor([4.5, 1.9, 1.7, 0.0]).expand(900, 4))
    for quadrant in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        inside = (anchors[:, :2] * torch.tensor(quadrant) > 0).all(1)
        assert 200 < inside.sum() < 250, "an even cover"
    lines = PolylineKind().default_anchors(100).reshape(100, 20, 2)
    assert_close((lines[:, 1:] - lines[:, :-1]).norm(dim=-1), torch.full((100, 19), 20 / 19), atol=1e-4, rtol=1e-4)
    centre_m = lines.mean(1)
    assert (centre_m.abs() <= torch.tensor([15.0, 30.0])).all() and centre_m[:, 1].max() > 20 and centre_m[:, 1].min() < -20


def make(**changes) -> DecoderConfig:
    base = DecoderConfig(kind=BoxKind(), num_anchors=10, num_memory=4, first_layer_attention=False, learned_features=False)
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_memory": 10}, r"num_memory: expected 0 <= num_memory < num_anchors=10, got 10; keep room"),
        ({"num_memory": -1}, r"num_memory: .*got -1"),
        ({"num_single_frame_layers": 0}, r"num_single_frame_layers: expected 1\.\.num_layers=6, got 0"),
        ({"num_single_frame_layers": 7}, r"got 7"),
    ],
)
def test_decoder_sizes_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_memory_without_a_temporal_layer_is_refused():
    """Rows merged from the memory would come after the last prediction: ids and boxes would not belong together."""
    with pytest.raises(ValueError, match=r"DecoderConfig\.num_memory"):
        make(num_layers=2, num_single_frame_layers=2)


@pytest.mark.parametrize("name", ["num_heads", "num_groups"])
def test_layer_sizes_that_do_not_divide_are_refused(name):
    with pytest.raises(ValueError, match=rf"LayerConfig\.{name}: expected a divisor of dim=256, got 7"):
        LayerConfig(**{name: 7})
