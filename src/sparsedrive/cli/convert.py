"""`sparsedrive convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, optional, out

Layout = Literal["spconv1", "spconv2", "torchsparse"]


@dataclass(frozen=True, kw_only=True)
class Convert(BaseVerb):
    """Convert weights: an official checkpoint (.pth) to our safetensors, or back with --to-official.

    With --preset, a driving model: every tensor finds its place, or the command lists those that do not and writes nothing. With --layout,
    any network of sparse convolutions from SpConv or TorchSparse, for `load_state_dict` of the one built here; docs/sparse.md says more.
    Files are read without running code in them.

    Examples:
      sparsedrive convert sparsedrive_stage2.pth small.safetensors --preset sparsedrive_small_stage2
      sparsedrive convert small.safetensors official.pth --preset sparsedrive_small_stage2 --to-official
      sparsedrive convert bevfusion.pth encoder.safetensors --layout spconv2 --prefix encoders.lidar.backbone.
      sparsedrive convert second.pth second.safetensors --layout spconv1 --pattern '^middle_encoder\\..*weight$'
      sparsedrive convert minkunet.pth minkunet.safetensors --layout torchsparse
      sparsedrive convert minkunet.safetensors minkunet.pth --layout torchsparse --to-official
    """

    src: Annotated[Path, Positional, arg(metavar="SRC")]
    """The file to read."""
    dst: Annotated[Path, Positional, arg(metavar="DST")]
    """The file to write (.safetensors; .pth with --to-official)."""
    preset: Annotated[str | None, optional("NAME")] = None
    """Driving model the weights belong to; `sparsedrive presets` lists them."""
    layout: Annotated[Layout | None, optional("spconv1|spconv2|torchsparse")] = None
    """Library the sparse convolutions were trained with: SpConv 1.x (mmcv too), SpConv 2.x or TorchSparse."""
    prefix: Annotated[str | None, optional("TEXT")] = None
    """With --layout: take only tensors whose name begins so, and cut it off; with --to-official put it in front."""
    pattern: Annotated[str | None, optional("REGEX")] = None
    """With SpConv: which names are sparse convolutions, of those with five dimensions (all; for networks with dense ones too)."""
    to_official: bool = False
    """Write the names of the official code instead of ours (of SpConv's only in Python, see docs/sparse.md)."""

    def run(self) -> int:
        """Converts and says what was done."""
        if self.layout is not None and self.preset is None:
            return self._convert_layout(self.layout)
        if self.preset is None or self.layout is not None:
            got = "neither" if self.preset is None else "both"
            raise ValueError(f"convert: expected --preset for a driving model or --layout for sparse convolutions, got {got}; give one")
        if self.prefix is not None or self.pattern is not None:
            raise ValueError("convert: expected --prefix and --pattern beside --layout only, got them with --preset; leave them out")
        return self._convert_preset(self.preset)

    def _convert_preset(self, preset: str) -> int:
        from sparsedrive.convert import convert_file

        report = convert_file(self.src, self.dst, preset, self.to_official)
        console = out()
        console.print(
            f"{report.num_tensors} tensors, {report.num_parameters / 1e6:.1f} M parameters: {report.source} -> {report.target}",
            markup=False,
        )
        if report.constants:
            verb = "added" if self.to_official else "left out"
            console.print(f"{verb} {len(report.constants)} constants of the official code: {', '.join(report.constants)}", markup=False)
        return 0

    def _convert_layout(self, layout: Layout) -> int:
        from sparsedrive.convert.spconv import WEIGHTS, convert_spconv_file
        from sparsedrive.convert.torchsparse import convert_torchsparse_file

        prefix = self.prefix or ""
        if layout == "torchsparse":
            if self.pattern is not None:
                raise ValueError("convert: expected no --pattern with TorchSparse, whose kernels stay as they are, got one; leave it out")
            count = convert_torchsparse_file(self.src, self.dst, prefix=prefix, to_official=self.to_official)
        elif self.to_official:
            remedy = "call sparsedrive.convert.spconv.to_spconv with the model, which knows the kernels' sizes"
            raise ValueError(f"convert: expected no --to-official with --layout {layout}, got it; {remedy}")
        else:
            pattern = WEIGHTS if self.pattern is None else self.pattern
            count = convert_spconv_file(self.src, self.dst, layout, prefix=prefix, pattern=pattern)
        out().print(f"{count} tensors: {self.src} -> {self.dst}", markup=False)
        return 0
