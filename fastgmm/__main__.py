"""``python -m fastgmm``: the command line."""

import sys

from fastgmm.cli import main

sys.exit(main())
