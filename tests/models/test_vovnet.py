import re

import pytest
import torch
from torch.testing import assert_close

from sparsedrive.convert.start import VOVNET_PART, _vovnet_name
from sparsedrive.models.vovnet import VoVNetConfig

SMALL = VoVNetConfig(blocks=(1, 2, 1, 1))


def public_names(blocks: tuple[int, ...]) -> list[str]:
    """Names of the tensors in public files, as their modules are called there."""
    convs = [f"stem.stem_{i}" for i in (1, 2, 3)]
    names = []
    for stage, count in enumerate(blocks, 2):
        for block in (f"OSA{stage}_{i}" for i in range(1, count + 1)):
            convs += [f"stage{stage}.{block}.layers.{i}.{block}_{i}" for i in range(5)] + [f"stage{stage}.{block}.concat.{block}_concat"]
            names += [f"stage{stage}.{block}.ese.fc.{entry}" for entry in ("weight", "bias")]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return names + [f"{conv}/conv.weight" for conv in convs] + [f"{conv}/norm.{entry}" for conv in convs for entry in norm]


def test_v99_has_the_strides_and_channels_of_the_published_one():
    with torch.device("meta"):
        model = VoVNetConfig().build().eval()
        outputs = model(torch.empty(1, 3, 64, 96))
    assert [tuple(output.shape[1:]) for output in outputs] == [(256, 16, 24), (512, 8, 12), (768, 4, 6), (1024, 2, 3)]
    assert 6.5e7 < sum(parameter.numel() for parameter in model.parameters()) < 7.2e7


@pytest.mark.parametrize("config", [SMALL, VoVNetConfig()])
def test_every_public_name_has_its_place(config):
    with torch.device("meta"):
        ours = set(config.build().state_dict())
    public = public_names(config.blocks)
    assert len(public) == len(ours) and {_vovnet_name(name) for name in public} == ours
    assert {_vovnet_name(f"img_backbone.{name}") for name in public} == ours
    assert _vovnet_name("fc.weight") == "fc.weight" and isinstance(VOVNET_PART, re.Pattern)


def test_colours_arrive_in_the_order_of_the_public_weights():
    torch.manual_seed(0)
    model, images = SMALL.build().eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        model.stem[0].conv.weight[:, 1:] = 0  # what it calls the first colour alone
        changed = images.clone()
        changed[:, :2] += 1  # red and green
        assert_close(model(changed)[0], model(images)[0])
        changed[:, 2] += 1
        assert (model(changed)[0] - model(images)[0]).abs().max() > 1e-3


def test_checkpointing_changes_no_gradient():
    gradients = []
    for saving in (False, True):
        torch.manual_seed(0)
        model = VoVNetConfig(blocks=SMALL.blocks, checkpoint_activations=saving).build().train()
        model(torch.randn(2, 3, 32, 32))[-1].square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, saved in zip(*gradients, strict=True):
        assert_close(plain, saved)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"VoVNetConfig\.blocks: expected at least 1 block in each of 4 stages, got \(1, 3\)"):
        VoVNetConfig(blocks=(1, 3))
