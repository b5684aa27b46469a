"""`python -m bigsmall` is the `bigsmall` command."""

import sys

from .cli import main

sys.exit(main())
