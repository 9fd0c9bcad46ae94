import math
from itertools import pairwise

import pytest
from training_samples import model_config

from sparsedrive.training.config import OptimiserConfig
from sparsedrive.training.optimiser import make_optimiser, rate_share, set_rate

CONFIG = OptimiserConfig(rate=1.0, warmup_steps=10, warmup_share=0.25, min_rate_share=0.01, backbone_rate_share=0.1)


def test_rate_warms_up_then_falls_to_the_minimum():
    shares = [rate_share(step, 100, CONFIG) for step in range(101)]
    assert shares[0] == pytest.approx(0.25)
    assert max(shares) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 0.1))) == shares[10]
    assert shares[100] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(shares[:11])) and shares[10:] == sorted(shares[10:], reverse=True)


def test_the_backbone_learns_slower():
    model = model_config().build()
    optimiser = make_optimiser(model, CONFIG)
    assert set_rate(optimiser, 0, 100, CONFIG) == pytest.approx(0.25)
    rate_of = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rate_of[id(model.image_encoder.backbone.conv1.weight)] == pytest.approx(0.025)
    assert rate_of[id(model.image_encoder.neck.lateral_convs[0].weight)] == pytest.approx(0.25)
    assert len(rate_of) == sum(p.requires_grad for p in model.parameters())


def test_frozen_parts_do_not_learn():
    model = model_config().build()
    optimiser = make_optimiser(model, CONFIG, freeze=("image_encoder.", "map."))
    assert not any(p.requires_grad for p in model.image_encoder.parameters())
    assert optimiser.param_groups[1]["params"] == []
    with pytest.raises(ValueError, match=r"no parameter begins with 'imag_encoder'; the model's parts are \['depth_head', 'detection'"):
        make_optimiser(model_config().build(), CONFIG, freeze=("imag_encoder",))
    with pytest.raises(ValueError, match="at least one parameter that learns"):
        make_optimiser(model_config().build(), CONFIG, freeze=("",))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"OptimiserConfig\.rate: expected a positive number, got 0"):
        OptimiserConfig(rate=0)
