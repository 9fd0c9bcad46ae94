"""`sparsedrive convert --layout`: small files of every layout from end to end, and what is refused."""

import pytest
import torch
from torch import Tensor

from sparsedrive.cli import main
from sparsedrive.convert.checkpoint import read_state
from sparsedrive.convert.spconv import to_spconv
from sparsedrive.convert.torchsparse import to_torchsparse
from sparsedrive.sparse import MinkUNet, UNetConfig

NARROW = UNetConfig(widths=(4, 4, 6, 8, 8, 8, 6, 6, 4), num_classes=3)


@pytest.fixture(scope="module")
def network() -> MinkUNet:
    torch.manual_seed(0)
    return MinkUNet(NARROW)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == value.dtype and torch.equal(first[name], value) for name, value in second.items()
    )


@pytest.mark.parametrize(("layout", "wrapper"), [("spconv1", "state_dict"), ("spconv2", "model_state")])
def test_spconv(layout, wrapper, network, tmp_path, capsys):
    official = to_spconv(network.state_dict(), layout, network, prefix="encoders.lidar.")
    assert official["encoders.lidar.up1.1.0.net.0.weight"].shape[slice(0, 3) if layout == "spconv1" else slice(1, 4)] == (3, 3, 3)
    src, dst = tmp_path / "official.pth", tmp_path / "new" / "ours.safetensors"
    torch.save({wrapper: official | {"heads.weight": torch.zeros(2)}, "epoch": 3, "version": "0.5"}, src)
    assert main(["convert", str(src), str(dst), "--layout", layout, "--prefix", "encoders.lidar."]) == 0
    assert f"{len(official)} tensors: {src} -> {dst}" in capsys.readouterr().out
    assert equal(read_state(dst), network.state_dict())


def test_a_pattern_leaves_dense_convolutions_alone(tmp_path):
    src, dst = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    state = {"lidar.0.weight": torch.randn(5, 3, 1, 2, 4), "lidar.0.bias": torch.randn(5), "camera.0.weight": torch.randn(5, 4, 3, 1, 2)}
    torch.save(state, src)
    assert main(["convert", str(src), str(dst), "--layout", "spconv2", "--pattern", r"^lidar\."]) == 0
    made = read_state(dst)
    assert list(made) == ["camera.0.weight", "lidar.0.bias", "lidar.0.kernel"] and made["lidar.0.kernel"].shape == (6, 4, 5)
    assert torch.equal(made["lidar.0.kernel"][1], state["lidar.0.weight"][:, 0, 0, 1].T)
    assert torch.equal(made["camera.0.weight"], state["camera.0.weight"])


def test_torchsparse_there_and_back_is_exact(network, tmp_path):
    theirs, ours, again = (str(tmp_path / name) for name in ("theirs.pth", "ours.safetensors", "again.pth"))
    official = to_torchsparse(network.state_dict(), prefix="net.")
    torch.save({"model": official, "epoch": 15}, theirs)
    words = ["--layout", "torchsparse", "--prefix", "net."]
    assert main(["convert", theirs, ours, *words]) == 0
    assert equal(read_state(tmp_path / "ours.safetensors"), network.state_dict())
    assert main(["convert", ours, again, *words, "--to-official"]) == 0
    assert equal(torch.load(again, weights_only=True)["state_dict"], official)


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    kernel = torch.randn(8, 4, 4)
    torch.save({"a.kernel": kernel, "b.kernel": kernel, "c.kernel": kernel[:2]}, tmp_path / "tied.pth")
    assert main(["convert", str(tmp_path / "tied.pth"), str(tmp_path / "ours.safetensors"), "--layout", "torchsparse"]) == 0
    made = read_state(tmp_path / "ours.safetensors")
    assert torch.equal(made["a.kernel"], kernel) and torch.equal(made["b.kernel"], kernel) and torch.equal(made["c.kernel"], kernel[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --preset for a driving model or --layout for sparse convolutions, got neither"),
        (["--preset", "tiny", "--layout", "spconv1"], "--layout for sparse convolutions, got both"),
        (["--preset", "tiny", "--prefix", "a."], "expected --prefix and --pattern beside --layout only"),
        (["--layout", "torchsparse", "--pattern", "a"], "expected no --pattern with TorchSparse"),
        (["--layout", "spconv2", "--to-official"], "call sparsedrive.convert.spconv.to_spconv with the model"),
        (["--layout", "spconv2", "--prefix", "wrong."], "got 'wrong.'; the file has names like 'net.0.weight'"),
        (["--layout", "spconv2", "--pattern", "("], "pattern: expected a regular expression, got '('"),
        (["--layout", "spconv2", "--pattern", "wrong"], "check the prefix, the pattern or the model"),
        (["--layout", "torchsparse", "--to-official"], "expected a target ending in .pth"),
    ],
)
def test_what_does_not_fit_is_refused(words, message, tmp_path, capsys):
    src, dst = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save({"net.0.weight": torch.zeros(5, 3, 3, 3, 4)}, src)
    assert main(["convert", str(src), str(dst), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not dst.exists()


def test_help_shows_an_example_of_every_layout(capsys):
    with pytest.raises(SystemExit) as left:
        main(["convert", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    for layout in ("spconv1", "spconv2", "torchsparse"):
        assert f".safetensors --layout {layout}" in words
