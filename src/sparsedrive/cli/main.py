"""Entry point: picks the verb, and turns errors of the library into one line."""

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from sparsedrive.cli.anchors import FitAnchors
from sparsedrive.cli.calibration import Calibration
from sparsedrive.cli.compare import Compare
from sparsedrive.cli.console import BaseVerb, print_error, print_warning
from sparsedrive.cli.convert import Convert
from sparsedrive.cli.demo import Demo
from sparsedrive.cli.doctor import Doctor
from sparsedrive.cli.eval import Eval
from sparsedrive.cli.prepare import Prepare
from sparsedrive.cli.presets import Presets
from sparsedrive.cli.robustness import Robustness
from sparsedrive.cli.stream import Stream
from sparsedrive.cli.train import Train
from sparsedrive.cli.view import View
from sparsedrive.cli.world import World
from sparsedrive.training.guard import TrainingError

DEBUG_VARIABLE = "SPARSEDRIVE_DEBUG"
USER_ERROR = 2
TRAINING_STOPPED = 3
INTERRUPTED = 130

DESCRIPTION = """Sparse, instance-centric driving from cameras: detection, tracking, online map, forecasts and plan.

First steps:
  sparsedrive doctor                 is this machine fit?
  sparsedrive demo --out demo        pictures and a video in a minute, without any download
  sparsedrive stream --help          run a model on a nuScenes-format folder
  sparsedrive world --help           a driving world of one's own, in the same format
  sparsedrive train --help           after `sparsedrive prepare`; then `sparsedrive eval --help`
"""

VERBS: dict[str, type[BaseVerb]] = {
    "doctor": Doctor,
    "presets": Presets,
    "demo": Demo,
    "stream": Stream,
    "train": Train,
    "eval": Eval,
    "compare": Compare,
    "robustness": Robustness,
    "view": View,
    "convert": Convert,
    "prepare": Prepare,
    "world": World,
    "anchors": FitAnchors,
    "calibration": Calibration,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 2 the input was at fault, 3 a training had to stop, 130 interrupted.

    ValueError, OSError and TrainingError become one red line on stderr; `--debug` or SPARSEDRIVE_DEBUG=1 shows the traceback.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = tyro.cli(_verb_type(argv), prog="sparsedrive", description=DESCRIPTION, args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    debug = verb.debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print_warning(str(message))
        try:
            return verb.run()
        except (ValueError, OSError, TrainingError) as error:
            if debug:
                raise
            print_error(str(error))
            return TRAINING_STOPPED if isinstance(error, TrainingError) else USER_ERROR
        except KeyboardInterrupt:
            if debug:
                raise
            print_error("interrupted")
            return INTERRUPTED


def _verb_type(argv: list[str]) -> Any:
    """The union of all verbs. The overview gets the first line of each verb's help; the verb's own help all of it, examples included."""
    overview = not any(word in VERBS for word in argv)
    options = []
    for name, verb in VERBS.items():
        text = inspect.getdoc(verb) or ""
        described = tyro.conf.subcommand(name, description=text.splitlines()[0] if overview else text)
        options.append(Annotated[verb, described])
    return Union[tuple(options)]  # noqa: UP007  (built at run time)
