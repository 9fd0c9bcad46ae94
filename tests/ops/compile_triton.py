"""Compile the Triton kernels to machine code for GPUs that need not be there; a line for each."""

import importlib
import re

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CAPABILITIES = (80, 90, 100)
SMALL = torch.empty(1, 6, 85, 256, dtype=torch.bfloat16, device="meta")
WEIGHTS = torch.empty(1, 900, 13, 6, 4, 8, device="meta")
FOCAL = {"ALPHA": 0.25, "GAMMA": 2.0, "CLAMP_LOG": False, "LOG_FLOOR": 1.2e-38, "BLOCK": 1024, "WIDE": False, "DTYPE": tl.float32}
DAF_TYPES = {"packed": "*bf16", "grad": "*bf16", "output": "*bf16"} | dict.fromkeys(
    ("points", "weights", "grad_packed", "grad_points", "grad_weights"), "*fp32"
)
FOCAL_TYPES = {"logits": "*bf16", "target": "*i64", "loss": "*bf16", "grad": "*bf16", "grad_logits": "*bf16"}


def compiled(kernel, types: dict[str, str], constants: dict, capability: int) -> dict:
    """The kernel compiled for one kind of GPU: machine code and the stages before it."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    fixed = {(position,): constants[name] for position, name in enumerate(names) if name in constants}
    aligned = {(position,): [["tt.divisibility", 16]] for position, name in enumerate(names) if signature[name][0] == "*"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False}).asm


def main() -> None:
    """All kernels for all GPUs."""
    daf, focal = (
        importlib.import_module(f"sparsedrive.ops.{op}.triton_kernels") for op in ("deformable_aggregation", "sigmoid_focal_loss")
    )
    sizes = daf._sizes(SMALL, [8, 8, 4, 4, 2, 2, 1, 1], WEIGHTS)._asdict()
    wanted = {"NEED_PACKED": True, "NEED_POINTS": True, "NEED_WEIGHTS": True}
    kernels = (
        (daf._forward, DAF_TYPES, sizes),
        (daf._backward, DAF_TYPES, sizes | wanted),
        (focal._forward, FOCAL_TYPES, FOCAL),
        (focal._backward, FOCAL_TYPES, FOCAL),
    )
    for capability in CAPABILITIES:
        for kernel, types, constants in kernels:
            stages = compiled(kernel, types, constants, capability)
            code, vectors = stages["cubin"], len(re.findall(r"ld\.global[.\w:]*\.v[24]", stages["ptx"]))
            assert code[:4] == b"\x7fELF"
            assert vectors >= 16 or types is FOCAL_TYPES, "the features' four corners on four levels are not loaded several at a time"
            print(f"sm_{capability} {kernel.__module__.split('.')[-2]} {kernel.__name__}: {len(code)} bytes, {vectors} vector loads")


if __name__ == "__main__":
    main()
