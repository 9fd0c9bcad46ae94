"""Where the golden numbers are, and the rules that rebuild the weights and inputs behind them."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

SUBSET = Path(__file__).parent / "subset"


def golden_folder() -> Path:
    """The full set: SPARSEDRIVE_GOLDEN, or `shared/golden` beside the checkout."""
    return Path(os.environ.get("SPARSEDRIVE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def input_rules(folder: Path = SUBSET) -> ModuleType:
    """`golden_inputs.py` of a folder: pure numpy, no code of the published project."""
    spec = importlib.util.spec_from_file_location("golden_inputs", folder / "golden_inputs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
