"""``python -m pseudomotion.train.validate``: the same as ``pmg-validate``."""

import sys

from pseudomotion.train.cli import validate

sys.exit(validate())
