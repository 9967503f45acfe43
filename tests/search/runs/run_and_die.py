"""A program: a tool, whose second process dies in the middle of its run, the first time.

usage: torchrun ... tests/search/runs/run_and_die.py MARK TOOL [the tool's arguments]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from tests.search.runs.elastic_runs import dying_once

if __name__ == "__main__":
    mark, tool = Path(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    with dying_once(mark):
        runpy.run_path(tool, run_name="__main__")
