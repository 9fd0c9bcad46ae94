"""Options of convolutions: who wins, what acts, and what tuning finds."""

import pytest
import torch
from sparse_samples import random_tensor
from torch import nn

from sparsedrive.sparse import Conv3d, ConvConfig, SparseTensor, apply_configs, compat, current_config, tune, use_config
from sparsedrive.sparse.tuning import load_configs, save_configs


class TestConfig:
    def test_nearest_configuration_wins(self):
        x, layer = random_tensor(), Conv3d(4, 3, 2, 2).double()
        own = Conv3d(4, 3, 2, 2, config=ConvConfig()).double()
        assert current_config() == ConvConfig()
        with use_config(ConvConfig(downsample_mode="minkowski")):
            assert len(layer(x)) > len(own(x))
            with use_config(ConvConfig()):
                assert len(layer(x)) == len(own(x))
        assert current_config() == ConvConfig()

    def test_even_kernels_follow_the_map_mode(self):
        coords = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.int32)
        layer = Conv3d(1, 1, (2, 3, 1))
        layer.kernel.data.fill_(1)
        found = {}
        for mode in ("hashmap", "hashmap_on_the_fly"):
            with use_config(ConvConfig(kmap_mode=mode)):
                found[mode] = layer(SparseTensor(coords=coords, feats=torch.tensor([[1.0], [10.0]]))).feats.flatten().tolist()
        assert found == {"hashmap": [11, 11], "hashmap_on_the_fly": [11, 10]}

    def test_torchsparse_s_names_act_and_leave_others_values_alone(self):
        x, layer = random_tensor(), Conv3d(4, 3, 2, 2).double()
        held, few = compat.get_default_conv_config(), len(layer(x))
        try:
            for mode in (0, 1, 2, 0):
                compat.set_conv_mode(mode)
                assert compat.get_conv_mode() == mode and current_config().mask_splits == (0, 1, 3)[mode]
            compat.set_downsample_mode("minkowski")
            assert len(layer(x)) > few and compat.get_downsample_mode() == "minkowski"
            compat.set_downsample_mode("spconv")
            compat.set_kmap_mode("hashmap")
            assert len(layer(x)) > few and compat.get_kmap_mode() == "hashmap"
            compat.set_global_conv_config(ConvConfig(dataflow="gather_scatter"))
            assert compat.get_global_conv_config().dataflow == "gather_scatter" and held == ConvConfig()
        finally:
            compat.clear_global_conv_config()
        assert len(layer(x)) == few and current_config() == ConvConfig()
        with pytest.raises(ValueError, match="expected 0, 1 or 2, got 3"):
            compat.set_conv_mode(3)

    @pytest.mark.parametrize("field", ["downsample_mode", "kmap_mode", "dataflow"])
    def test_unknown_values_are_refused(self, field):
        with pytest.raises(ValueError, match=rf"ConvConfig.{field}: expected one of .*, got 'x'"):
            ConvConfig(**{field: "x"})
        with pytest.raises(ValueError, match="mask_splits: expected 0 to 4"):
            ConvConfig(mask_splits=-1)

    def test_tuning_takes_the_fastest_of_each_group_and_leaves_the_model(self, monkeypatch, tmp_path):
        own = ConvConfig(downsample_mode="minkowski")
        model = nn.Sequential(Conv3d(4, 4), Conv3d(4, 4, 2, 2, config=own), Conv3d(4, 4)).double()
        clock = [0.0]
        cost = {(1, "fetch_on_demand"): 1.0, (2, "gather_scatter"): 1.0}

        def run(model, batch):
            clock[0] += sum(cost.get((layer.stride[0], (layer.config or current_config()).dataflow), 2.0) for layer in model)

        monkeypatch.setattr("sparsedrive.sparse.tuning.time.perf_counter", lambda: clock[0])
        found = tune(model, [None], run=run, dataflows=("implicit_gemm", "gather_scatter", "fetch_on_demand"))
        assert {name: config.dataflow for name, config in found.items()} == {
            "0": "fetch_on_demand",
            "1": "gather_scatter",
            "2": "fetch_on_demand",
        }
        assert found["1"].downsample_mode == "minkowski" and [layer.config for layer in model] == [None, own, None]
        save_configs(found, tmp_path / "configs.json")
        apply_configs(model, load_configs(tmp_path / "configs.json"))
        assert model[2].config == found["2"]
        x = random_tensor()
        assert tune(model, [x], repeats=1).keys() == found.keys()
        with pytest.raises(ValueError, match="names of Conv3d layers, got 7"):
            apply_configs(model, {"7": own})
        with pytest.raises(ValueError, match="some batches"):
            tune(model, [])
