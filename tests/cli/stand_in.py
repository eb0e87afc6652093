"""``python -m tests.cli.stand_in SECONDS``: a command that says what the scheduler thinks of it, and waits.

Interrupted it ends with 130, as a command of ours does.
"""

import sys
import time

from tests.env import standing


def main() -> int:
    standing.main()
    try:
        time.sleep(float(sys.argv[1]))
    except KeyboardInterrupt:
        return 130
    return 65


if __name__ == "__main__":
    sys.exit(main())
