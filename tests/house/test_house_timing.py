"""The core is imported in a moment: in seconds of the processor, which other work on the machine does not stretch."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timing


def test_import_is_quick() -> None:
    code = "import time\nbegan = time.process_time()\nimport outthink\nprint(time.process_time() - began)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(runs) < 0.2
