"""`python -m modelyard` is the command `modelyard`."""

import sys

from modelyard.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
