"""``python -m configagent``."""

import sys

from configagent.cli import main

sys.exit(main())
