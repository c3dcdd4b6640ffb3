"""One short module per DVC stage: paths and params in, files out.

Each module also runs as `python -m stages.NAME`.
"""

import os

PARENT = os.getppid()
"""The process that started this one, read before the imports of a stage, which take seconds."""

# The OpenMP library of torch reads this variable when it is loaded. By default, waiting threads
# spin for a long time, and on a busy machine a training step then takes up to ten times as long
# (benchmarks/RESULTS.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
