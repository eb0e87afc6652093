"""``python -m tests.env.standing``: a line of JSON on what this process is to the system's scheduler."""

import json
import os
from pathlib import Path


def main() -> None:
    session = Path("/proc/self/autogroup")
    told = {
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "policy": os.sched_getscheduler(0),
        "session": session.read_text().strip() if session.exists() else "",
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
