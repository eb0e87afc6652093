"""Disks that fail a PostgreSQL: one that is too small, and one whose fsync does not work."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import Cluster

_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>
static int fails(void) { return access(SWITCH, F_OK) == 0; }
int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""
SMALL_DISK_SETTINGS: Mapping[str, str] = {"max_wal_size": "64MB", "min_wal_size": "32MB"}
"""So that the write-ahead log leaves room for data on a small disk."""


class NotHere(Exception):
    """This machine cannot do it; the text says why, loudly."""


def fsync_switch(cluster: Cluster) -> tuple[Path, dict[str, str]]:
    """A file whose presence makes fsync fail, in a server started with this environment.

    Raises:
        NotHere: there is no compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotHere("NO COMPILER: fsync failures are not tested")
    switch, source, library = cluster.root / "fail", cluster.root / "shim.c", cluster.root / "shim.so"
    source.write_text(_SHIM)
    command = [compiler, "-shared", "-fPIC", f'-DSWITCH="{switch}"', "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return switch, {"LD_PRELOAD": str(library)}


@contextmanager
def small_disk(megabytes: int = 160) -> Iterator[Path]:
    """A file system of that size, gone afterwards.

    Raises:
        NotHere: mounting one is not for us.
    """
    if os.geteuid() != 0:
        raise NotHere("NOT ROOT: a full disk is not tested")
    root = Path("/tmp") / f"querator-small-{os.getpid()}"
    root.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
    if subprocess.run(["mount", *options, str(root)], check=False).returncode != 0:
        root.rmdir()
        raise NotHere("NO MOUNT: a full disk is not tested")
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
        root.rmdir()


def fill(root: Path, leaving: int = 0) -> Path:
    """A file that takes all the room there is, but for so many bytes; remove it to heal."""
    ballast = root / "ballast"
    with ballast.open("wb") as file:
        wanted = shutil.disk_usage(root).free - leaving
        try:
            file.write(b"\0" * wanted)
        except OSError:
            # Somebody was quicker with the last pages: full is full.
            return ballast
    return ballast
