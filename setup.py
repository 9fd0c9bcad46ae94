"""The C++ kernels, the one thing pyproject.toml cannot say. Without a working compiler the package installs without them."""

import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/sparsedrive/ops/native")
# No -march: what the machine can do is asked when the library runs. No fused multiply-add but the written ones: see common.h.
UNIX = ["-std=c++17", "-O3", "-fopenmp-simd", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-pthread", "-g0"]
WINDOWS = ["/std:c++17", "/O2", "/EHsc"]

setup(
    ext_modules=[
        Extension(
            "sparsedrive.ops.native._library",
            sources=sorted(path.as_posix() for path in NATIVE.glob("*.cpp")),
            depends=sorted(path.as_posix() for path in NATIVE.glob("*.h")),
            language="c++",
            extra_compile_args=WINDOWS if sys.platform == "win32" else UNIX,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,
        )
    ]
)
