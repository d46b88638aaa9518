"""Makes the harness and the lossy file system importable for the long tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
