from __future__ import annotations

import sys

from auditportal.embedded import run

if __name__ == "__main__":
    sys.exit(run.main(sys.argv[1:]))
