"""Which scenes are for training and which are not: the official splits, a folder's own, or a list of the user's."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from sparsedrive.data.nuscenes.tables import read_json

OTHER = "other"
"""Split of the scenes a log has but its splits do not name: prepared, so that they can be streamed, and never trained on by accident."""

SPLITS_FILE = "splits.json"

_TRAIN = (
    "1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 199-200 202-204 206-214 218-220 222 224-264 "
    "283-306 315-318 321 323-324 328 347-386 388-403 405-408 410-459 461-465 467-469 471-472 474-480 499-502 504-515 517-518 525-539 "
    "541-546 566 568 570-578 580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728 730-731 733-741 744 746-747 749-752 757-765 "
    "767-769 786-787 789-792 803-806 808-813 815-817 819-822 847-856 858 860-866 868-873 875-878 880 882-903 945 947 949 952-953 955-961 "
    "975-984 988-992 994-1025 1044-1058 1074-1102 1104-1110"
)
_VAL = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 777-778 780-784 794-800 "
    "802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
_TEST = (
    "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 827-831 833-842 844-846 932-933 935-943 "
    "1026-1043"
)
_OFFICIAL = {
    "v1.0-trainval": {"train": _TRAIN, "val": _VAL},
    "v1.0-test": {"test": _TEST},
    "v1.0-mini": {"mini_train": "61 553 655 757 796 1077 1094 1100", "mini_val": "103 916"},
}
"""Numbers of the scenes as ranges. Source: nuScenes devkit 1.2.0, `nuscenes.utils.splits`."""


def official_splits(version: str) -> dict[str, tuple[str, ...]]:
    """Names of the scenes by split; none for a version that is not of nuScenes."""
    return {name: _names(ranges) for name, ranges in _OFFICIAL.get(version, {}).items()}


def read_splits(path: Path, scenes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A JSON object of lists of scene names, such as {"train": ["scene-0001"], "val": ["scene-0002"]}.

    `ValueError`: another shape, a scene named twice in one split, or a name that is none of `scenes` (close ones are suggested).
    """
    content, known = read_json(path), list(scenes)
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{path}: expected a JSON object such as {{"train": ["scene-0001"], "val": ["scene-0002"]}}, got {content!r:.80}')
    for split, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: expected a list of scene names for split {split!r}, got {names!r:.80}")
        if len(set(names)) != len(names):
            raise ValueError(f"{path}: split {split!r} names a scene twice: {sorted({name for name in names if names.count(name) > 1})}")
        lost = [name for name in names if name not in known]
        if lost:
            close = get_close_matches(lost[0], known) or known[:10]
            raise ValueError(f"{path}: split {split!r} names {lost[0]!r}, which is not in the tables; perhaps you meant one of {close}")
    return {str(split): tuple(names) for split, names in content.items()}


def choose_splits(scenes: Sequence[str], tables: Path, custom: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Splits of the log with these scenes, whose tables are in the folder `tables` (its name is the version).

    `custom` if given: the scenes it does not name are left out. Else `splits.json` beside the tables, else the official splits, of which
    only the scenes that are there count; scenes these do not name go to the split "other".
    """
    if custom is not None:
        return read_splits(custom, scenes)
    own = tables / SPLITS_FILE
    if own.is_file():
        splits = read_splits(own, scenes)
    else:
        there = set(scenes)
        found = {name: tuple(filter(there.__contains__, names)) for name, names in official_splits(tables.name).items()}
        splits = {name: names for name, names in found.items() if names}
    return splits | _others(scenes, splits)


def shared_scenes(splits: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Scenes that are in a split to train on and in one to validate on, by the splits' names."""
    names = {kind: {scene for split, scenes in splits.items() if kind in split.split("_") for scene in scenes} for kind in ("train", "val")}
    return tuple(sorted(names["train"] & names["val"]))


def _others(scenes: Sequence[str], splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    named = {name for names in splits.values() for name in names}
    rest = (*splits.get(OTHER, ()), *(name for name in scenes if name not in named))
    return {OTHER: rest} if rest else {}


def _names(ranges: str) -> tuple[str, ...]:
    bounds = [tuple(map(int, part.split("-"))) for part in ranges.split()]
    return tuple(f"scene-{number:04}" for bound in bounds for number in range(bound[0], bound[-1] + 1))
