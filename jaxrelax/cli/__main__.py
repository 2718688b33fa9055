"""``python -m jaxrelax.cli``."""

import sys

from jaxrelax.cli import main

if __name__ == "__main__":
    sys.exit(main())
