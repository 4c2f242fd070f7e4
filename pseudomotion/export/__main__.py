"""``python -m pseudomotion.export``: the same as ``pmg-export``."""

import sys

from pseudomotion.export import main

if __name__ == "__main__":  # worker processes import this module
    sys.exit(main())
