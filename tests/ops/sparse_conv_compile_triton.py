"""Compile sparse convolution's Triton kernels to machine code for GPUs that need not be there; a line for each."""

import importlib

from compile_triton import compiled

CAPABILITIES = (80, 90)
POINTERS = ("rows", "weight", "output", "grad")
LAYER = {"OFFSETS": 27, "IN": 64, "OUT": 96, "BLOCK_M": 64, "BLOCK_O": 64}


def main() -> None:
    """Both kernels, each dtype, for all GPUs."""
    kernels = importlib.import_module("sparsedrive.ops.sparse_conv.triton_kernels")
    convolve, join = LAYER | {"TRANSPOSED": False, "BLOCK_I": 32}, LAYER | {"BLOCK_I": 64}
    programs = ((kernels._convolve, convolve), (kernels._convolve, convolve | {"TRANSPOSED": True}), (kernels._join, join))
    for capability in CAPABILITIES:
        for dtype, triton_dtype in kernels.TRITON_DTYPES.items():
            for kernel, sizes in programs:
                types = dict.fromkeys(POINTERS, f"*{triton_dtype.name}") | {"table": "*i32", "parts": "*fp32"}
                stages = compiled(kernel, types, sizes | {"DTYPE": triton_dtype, "PRECISION": "ieee"}, capability)
                assert stages["cubin"][:4] == b"\x7fELF"
                tensor_cores = "mma." in stages["ptx"] or "mma_async" in stages["ptx"]
                assert tensor_cores == (triton_dtype != kernels.tl.float32), "half precision is for tensor cores, float32 is exact"
                print(f"sm_{capability} {kernel.__name__} {dtype}: {len(stages['cubin'])} bytes")


if __name__ == "__main__":
    main()
