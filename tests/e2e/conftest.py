"""What the end-to-end tests share: the example's own two-host driver."""

from __future__ import annotations

import sys
from pathlib import Path

# `examples` is a directory of programs, not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
