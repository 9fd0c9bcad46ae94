"""`python -m sparsedrive`, for launchers that start modules: `torchrun -m sparsedrive train ...`."""

import sys

from sparsedrive.cli import main

sys.exit(main())
