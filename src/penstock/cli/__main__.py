"""`python -m penstock.cli`: the command line without its console script."""

from __future__ import annotations

import sys

from penstock.cli.entry import main

sys.exit(main())
