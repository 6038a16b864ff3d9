"""Small file systems of a trial's own: ones that get full, and one on a disk whose power can be cut.

The disk is a file that a loop device shows as one, with ext4 on it. What is in that file is what the disk
would hold after a power cut; what the kernel has only cached of the file system is not in it. A copy that
takes its time while the device writes would be of many moments, and a state that no cut can leave. So the
file itself is on an outer ext4, and that one is frozen during the copy: every write of the device before
this moment is in the copy, none after it is, and a sync under way waits. Freezing syncs the outer file
system, never the inner.

What this does not show is a disk with a cache of its own that loses what it was not told to flush.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from support import wait_until

MIB = 1024 * 1024
PATH = f"{os.defpath}:/usr/sbin:/sbin"
"""Where the system's own tools are; the `PATH` of a plain user lacks some."""
_CAP_SYS_ADMIN = 21
_LOOP_CTL_GET_FREE = 0x4C82
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878


class Cut(NamedTuple):
    """When the power was cut: after *begin* and before *end*, in nanoseconds of CLOCK_MONOTONIC."""

    begin: int
    end: int


class Disk:
    """An ext4 on a disk; *folder* is where it is mounted, *image* the file that is the disk, on *outer*."""

    def __init__(self, folder, image, outer):
        self.folder = folder
        self._image = image
        self._outer = outer

    def cut(self, copy):
        """Make the file *copy* what the disk would hold if the power were cut now; a `Cut`."""
        outer = os.open(self._outer, os.O_RDONLY)
        try:
            begin = time.monotonic_ns()
            fcntl.ioctl(outer, _FIFREEZE, 0)
            try:
                end = time.monotonic_ns()
                shutil.copyfile(self._image, copy)
            finally:
                fcntl.ioctl(outer, _FITHAW, 0)
        finally:
            os.close(outer)
        return Cut(begin, end)


@contextlib.contextmanager
def disk(trial, size=64 * MIB):
    """A `Disk` of *size* bytes until the end of the block."""
    around = ext4(trial.folder / "outer", size + 32 * MIB, "-O", "^has_journal")
    with around as outer, ext4(outer / "inner", size) as inner:
        yield Disk(inner, image_of(inner), outer)


@contextlib.contextmanager
def ext4(folder, size, *options):
    """A new ext4 of *size* bytes at *folder* until the end of the block; mkfs gets the *options*."""
    image = image_of(folder)
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", *options, image)
    with mounted(image, folder):
        yield folder
    image.unlink()


@contextlib.contextmanager
def tmpfs(folder, size):
    """A new file system in memory at *folder* until the end of the block."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs"):
        yield folder


@contextlib.contextmanager
def mounted(image, folder):
    """The file system in the file *image*, mounted at *folder* until the end of the block."""
    with _mounted(folder, "-o", "loop,noatime", image):
        yield folder


def image_of(folder):
    """The file with the file system that is mounted at *folder*."""
    return Path(f"{folder}.img")


@contextlib.contextmanager
def _mounted(folder, *arguments):
    folder.mkdir(mode=0o700)
    make_nodes()
    run("mount", *arguments, folder)
    try:
        yield
    finally:
        wait_until(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0)
        folder.rmdir()


def make_nodes():
    """Have the device files of the next loop device: in a container nobody makes them."""
    control = Path("/dev/loop-control")
    if not control.exists():
        os.mknod(control, 0o600 | stat.S_IFCHR, os.makedev(10, 237))
    file = os.open(control, os.O_RDWR)
    try:
        number = fcntl.ioctl(file, _LOOP_CTL_GET_FREE)
    finally:
        os.close(file)
    for each in range(number, number + 4):  # others may take one meanwhile
        if not (node := Path(f"/dev/loop{each}")).exists():
            os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, each))


def run(*command):
    """Run *command*; an error says what it said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": PATH})
    assert done.returncode == 0, f"{words} failed: {done.stderr}"


def not_allowed():
    """Why this process may have no file systems of its own, whatever is installed; None if it may."""
    (granted,) = re.findall(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not int(granted, 16) >> _CAP_SYS_ADMIN & 1:
        return "this process may not mount a file system"
    try:
        make_nodes()
    except OSError as error:
        return f"there are no loop devices here: {error}"
    return None


def missing_tools():
    """The programs that it takes and that are not installed."""
    return [tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool, path=PATH) is None]
