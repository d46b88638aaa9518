"""Makes the harness and the lossy file system importable for the short, seeded tests of crashes."""

import sys
from pathlib import Path

for _folder in ("torture", "conformance"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / _folder))
