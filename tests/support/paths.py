"""The folders of the project and of the real corpora for some tests."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data"))
