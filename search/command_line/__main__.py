"""``spnas`` for a Python of your own choice: ``python -m search.command_line``."""

from __future__ import annotations

import sys

from search.command_line.launcher import main

if __name__ == "__main__":
    sys.exit(main())
