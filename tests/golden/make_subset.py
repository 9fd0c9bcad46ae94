"""Writes the committed subset: `python tests/golden/make_subset.py GOLDEN_FOLDER`.

Small, and nothing derived from nuScenes: no calibration, no projection matrices, no poses. What any clone can check with it: the
ops and their gradients, key points, embeddings, decoders, plan selection, matching, losses, the depth branch, and the image features of
one frame.
"""

import re
import sys
from pathlib import Path

import numpy as np

from sources import SUBSET

UNIT = re.compile(
    r"(daf_small|daf_mid|focal|decoder|map_decoder|plan_decode|check_collision|sine_embed|depth"
    r"|losses|box_loss|det_target\w*|map_target|motion_target|plan_target)/"
)
KEY_POINTS = re.compile(r"kps/(det|map)_(anchor|feature|key_points)$")
FEATURES = re.compile(r"f0/(fpn/.*|in/img_head)$")


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]) / "sparsedrive"
    for source, target, wanted in (
        ("unit.npz", "unit.npz", lambda key: UNIT.match(key) or KEY_POINTS.match(key)),
        ("eval_stage1_seq_b1.npz", "features_stage1_seq_b1.npz", FEATURES.match),
    ):
        with np.load(folder / source, allow_pickle=False) as golden:
            np.savez_compressed(SUBSET / target, **{key: golden[key] for key in golden.files if wanted(key)})


if __name__ == "__main__":
    main()
