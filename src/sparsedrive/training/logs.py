"""What a run says: one JSON line and one CSV row a logged step, TensorBoard where it is installed."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JSONL, CSV = "log.jsonl", "log.csv"


class RunLog:
    """Appends to `<folder>/log.jsonl` and `log.csv`. A run that goes on from an earlier step drops what was logged after it."""

    def __init__(self, folder: Path, from_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._jsonl, self._csv = folder / JSONL, folder / CSV
        kept = [entry for entry in read_log(folder) if entry["step"] <= from_step]
        whole = self._jsonl.with_suffix(".part")  # a crash in here must not cost the log
        whole.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        whole.replace(self._jsonl)
        self._columns = list(kept[0]) if kept else []
        self._rewrite_csv(kept)
        self._board = _tensorboard(folder)

    def add(self, entry: Mapping[str, float]) -> None:
        """One step; it must have `step`. Every entry of a run has the same names."""
        with self._jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")
        if not self._columns:
            self._columns = list(entry)
            self._rewrite_csv([])
        with self._csv.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([entry.get(name, "") for name in self._columns])
        if self._board is not None:
            for name, value in entry.items():
                self._board.add_scalar(name.replace(".", "/"), value, int(entry["step"]))

    def close(self) -> None:
        """Write what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()

    def _rewrite_csv(self, entries: list[dict[str, float]]) -> None:
        with self._csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if self._columns:
                writer.writerow(self._columns)
            writer.writerows([entry.get(name, "") for name in self._columns] for entry in entries)


def read_log(folder: Path) -> list[dict[str, float]]:
    """All logged steps; a last line cut off by a crash is left out."""
    path = folder / JSONL
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
