"""Where the project is, and the real corpora that some tests need."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data"))
