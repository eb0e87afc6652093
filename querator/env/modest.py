"""Start a module so that nobody else feels it: ``python modest.py MODULE``, run by its path.

It goes first, before the module's imports, which alone are half a second of a core. A small ``nice`` is not
enough. Linux shares the processors out between *sessions* first (``kernel.sched_autogroup_enabled``): a
process in a session of its own, as our children are, gets as much as a server and all its neighbours
together, however nice it is. And whoever runs is left alone for a slice before somebody more important
who wakes up takes over: a few milliseconds, for each of the few hops between a request and its answer.

So the session is made unimportant as a whole, the process runs where nobody else wants to
(``SCHED_IDLE``), and it asks for long slices, which is what lets those who ask for shorter ones take over at
once. What a system does not know of these is left out: nice 19 is everywhere.
"""

import contextlib
import ctypes
import errno
import os
import platform
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import Final

_NICE: Final = 19
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_ATTEMPTS: Final = 20
_PAUSE: Final = 0.02
"""Seconds: the kernel takes one such change in a tenth of a second, of all processes together."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Numbers of the system call, for which the C library has no name."""
_ATTRIBUTES: Final = struct.Struct("<IIQiIQQQ")
"""size, policy, flags, nice, priority, runtime, deadline, period."""
_SLICE: Final = 100_000_000
"""Nanoseconds; the longest that there is. The kernel's own are one to three milliseconds."""


def be_modest() -> None:
    """This process, its threads to come and its session: as unimportant as the system knows how to."""
    os.nice(_NICE)
    _leave_the_session_to_others()
    if sys.platform == "linux":
        # In this order: of an idle process the kernel keeps its slice, and takes no other.
        _take_long_slices()
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def is_modest() -> bool:
    """Whether this process is: those that it starts should then be as well."""
    return sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_IDLE


def _leave_the_session_to_others() -> None:
    if os.getsid(0) != os.getpid():
        return  # There are others in it, who are not modest.
    for _ in range(_ATTEMPTS):
        try:
            _AUTOGROUP.write_text(f"{_NICE}", encoding="ascii")
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return
            time.sleep(_PAUSE)
        else:
            return


def _take_long_slices() -> None:
    """Known from Linux 6.12 on; ignored before."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None:
        attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, _NICE, 0, _SLICE, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def main() -> None:
    """Be modest, and be the module that is named, as ``python -m`` would."""
    be_modest()
    if not sys.flags.safe_path:
        # The directory of this file is no place to import from.
        sys.path[0] = ""
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
