"""One short module per DVC stage: paths and params in, files out. Each also runs as `python -m
stages.NAME`.
"""

import os

from stages.runtime.parent_process import end_with_dvc

end_with_dvc()  # before what takes seconds to import, in which DVC may be killed

# Before torch loads OpenMP: threads that wait must soon sleep. By default they spin for long, and
# on a machine that is busy with anything else a training step then takes up to ten times as long
# (benchmarks/RESULTS.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
