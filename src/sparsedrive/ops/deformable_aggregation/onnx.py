"""Deformable aggregation in ONNX: as standard nodes, or as one node of a domain of our own.

Standard nodes (`GridSample` a level, masked) run everywhere and do the work of all cameras for every point: export with the reference.

    with use_backend("reference", op="deformable_aggregation"):
        torch.onnx.export(model, arguments, "model.onnx", dynamo=True)

One node, `sparsedrive::DeformableAggregation`, is for runtimes that are given a kernel for it:

    torch.onnx.export(model, arguments, "model.onnx", dynamo=True, custom_translation_table=translation_table())

Its inputs are `packed`, `points`, `weights` and its attribute `level_hw` as in the public function. Needs the packages onnx and onnxscript.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sparsedrive.ops.deformable_aggregation.op import NAME

DOMAIN, NODE, VERSION = "sparsedrive", "DeformableAggregation", 1
"""Of the node; the version counts changes of what it means."""
FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]


def translation_table() -> dict[Callable, Callable]:
    """`custom_translation_table` of `torch.onnx.export` that makes every deformable aggregation one node.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    import onnxscript

    node = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), NODE, op_schema=node_schema())

    def translate(packed: Any, level_hw: Sequence[int], points: Any, weights: Any, backend: str) -> Any:
        # the backend is a choice of ours: the runtime makes its own
        return node(packed, points, weights, level_hw=level_hw)

    return {getattr(torch.ops.sparsedrive, NAME).default: translate}


def node_schema() -> Any:
    """The node's `onnx.defs.OpSchema`, also for `onnx.defs.register_schema` where a checker asks for it."""
    from onnx.defs import OpSchema

    parameters = [("packed", "T", "[B, C, S, D]"), ("points", "U", "[B, A, P, C, 2]"), ("weights", "V", "[B, A, P, C, L, G]")]
    return OpSchema(
        NODE,
        DOMAIN,
        VERSION,
        doc="Samples a feature pyramid at the points that pictures see and sums the samples with weights.",
        inputs=[OpSchema.FormalParameter(name, kind, shape) for name, kind, shape in parameters],
        outputs=[OpSchema.FormalParameter("output", "T", "[B, A, D]")],
        type_constraints=[(kind, FLOATS, f"type of {name}") for name, kind, _ in parameters],
        attributes=[OpSchema.Attribute("level_hw", OpSchema.AttrType.INTS, "(H0, W0, H1, W1, ...) in pixels", required=True)],
    )
