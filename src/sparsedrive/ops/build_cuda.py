"""Build the CUDA kernels in `native/*.cu` with nvcc: `python -m sparsedrive.ops.build_cuda`. No GPU is needed to build."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from sparsedrive.ops import cuda_library


@dataclass(frozen=True, kw_only=True)
class Options:
    """Build the CUDA kernels of the ops, for the GPU of this machine if nothing is said."""

    arch: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARCH")] = ()
    """Compute capabilities to build for, like 80 90a 100."""
    nvcc: str = "nvcc"
    """The compiler."""


def command(arch: tuple[str, ...], target: Path, nvcc: str = "nvcc") -> list[str]:
    """The compiler's command line. Newer GPUs than those named run what is compiled for the first when it is loaded."""
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in arch]
    if arch[0].isdigit():  # machine code of 90a and the like runs on just that one
        codes.append(f"-gencode=arch=compute_{arch[0]},code=compute_{arch[0]}")
    sources = sorted(str(path) for path in cuda_library.FOLDER.glob("*.cu"))
    return [nvcc, "-std=c++17", "-O3", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden", *codes, "-o", str(target), *sources]


def main(options: Options) -> None:
    """Build into the package, where it is found from then on."""
    if shutil.which(options.nvcc) is None:
        raise SystemExit(f"no compiler {options.nvcc!r}: install the CUDA toolkit, or name its nvcc with --nvcc")
    arch = options.arch
    if not arch:
        if not torch.cuda.is_available():
            raise SystemExit("no GPU here to build for: name compute capabilities, as in --arch 80 90 100")
        arch = ("".join(str(number) for number in torch.cuda.get_device_capability()),)
    target = cuda_library.FOLDER / cuda_library.FILE_NAME
    # Replaced as a whole: a process that has the old one loaded keeps it.
    built = target.with_suffix(".new")
    done = subprocess.run(command(arch, built, options.nvcc), check=False)
    if done.returncode:
        raise SystemExit(f"{options.nvcc} failed ({done.returncode}); nothing was changed")
    built.replace(target)
    print(f"built for {' '.join(arch)}: {target}")


if __name__ == "__main__":
    main(tyro.cli(Options))
