"""A disk in memory, with the interface of `counter.disk`, that knows what a power cut leaves of it.

A file is pages of `PAGE` bytes. What is written is cached; `sync` makes it durable. After a power cut each
page that was not synced is as it was durable, or as it was after any write since then, whatever became of the
others, and the size is anything between. Names are an ordered journal: a power cut leaves a beginning of what
was done to them since the folder was synced, or (*disordered*) any part of it.
"""

import copy
import errno
import os
import pathlib

PAGE = 64


class Ended(BaseException):
    """The process ends in the middle of a call. No `Exception`, so that nobody handles it."""


class Planned:
    """A failure of calls of one *kind*: the *after*-th from now on, *times* in a row."""

    def __init__(self, kind, number, after, times, part):
        self.kind, self.number, self.after, self.times, self.part = kind, number, after, times, part

    def meets(self):
        """Whether this call is one that fails."""
        self.after -= 1
        if self.after >= 0 or self.times <= 0:
            return False
        self.times -= 1
        return True


class Inode:
    """A file's bytes: as they are cached, as they are on the disk, and all that was between."""

    def __init__(self):
        self.cached = bytearray()
        self.durable = bytearray()
        self.versions = {}  # of each page that is not synced: what it was since
        self.sizes = []

    def write(self, data, at):
        end = at + len(data)
        first = min(at, len(self.cached)) // PAGE  # a gap reads as zeros
        self.cached.extend(bytes(max(0, end - len(self.cached))))
        self.cached[at:end] = data
        self._remember(first, (end + PAGE - 1) // PAGE)

    def cut(self, size):
        last = (len(self.cached) + PAGE - 1) // PAGE
        del self.cached[size:]
        self.cached.extend(bytes(size - len(self.cached)))
        self._remember(size // PAGE, last)

    def _remember(self, first, last):
        self.sizes.append(len(self.cached))
        for page in range(first, last):
            self.versions.setdefault(page, []).append(bytes(self.cached[page * PAGE : (page + 1) * PAGE]))

    def sync(self):
        size = len(self.cached)
        for page in self.versions:
            _put(self.durable, page, self.cached[page * PAGE : (page + 1) * PAGE])
        _resize(self.durable, size)
        self.versions.clear()
        self.sizes.clear()

    def drop(self, evict):
        """A sync failed: the pages count as written, and are not; with *evict* they are not cached either."""
        for page in self.versions if evict else ():
            size = len(self.cached)
            _put(self.cached, page, self.durable[page * PAGE : (page + 1) * PAGE])
            _resize(self.cached, size)
        self.versions.clear()

    def crash(self, rng):
        """Be what a power cut leaves."""
        sizes = [len(self.durable), *self.sizes]
        size = rng.choice((max(sizes), max(sizes), rng.choice(sizes), rng.randint(min(sizes), max(sizes))))
        kept = rng.choice((0.1, 0.5, 0.9, 0.97))  # a few lost pages leave whole records behind damaged ones
        for page, versions in sorted(self.versions.items()):
            if rng.random() < kept:
                _put(self.durable, page, versions[-1] if rng.random() < 0.7 else rng.choice(versions))
        _resize(self.durable, size)
        self.cached = bytearray(self.durable)
        self.versions.clear()
        self.sizes.clear()


class FakeFile:
    """As `counter.disk.DiskFile`."""

    def __init__(self, disk, inode, name):
        self._disk, self._inode, self._name = disk, inode, name
        self._life = disk.life
        disk.open_files.add(self)

    def write(self, data, at):
        try:
            failure = self._call("write")
        except Ended:
            self._inode.write(data[: int(len(data) * self._disk.torn)], at)
            self._disk.torn = 0.0  # the process has ended: it writes no more
            raise
        room = self._disk.room
        if failure is not None:
            part = int(len(data) * failure.part)
            self._inode.write(data[:part], at)
            raise _error(failure.number)
        growth = max(0, at + len(data) - len(self._inode.cached))
        if room is not None and growth > room:
            self._inode.write(data[: len(data) - growth + room], at)
            self._disk.room = 0
            raise _error(errno.ENOSPC)
        if room is not None:
            self._disk.room -= growth
        self._inode.write(data, at)

    def cut(self, size):
        self._disk.check(self._call("cut"))
        if self._disk.room is not None:
            self._disk.room += max(0, len(self._inode.cached) - size)
        self._inode.cut(size)

    def sync(self):
        failure = self._call("file_sync")
        if failure is not None:
            self._inode.drop(self._disk.evict)
            raise _error(failure.number)
        self._inode.sync()
        self._disk.during.pop("file_sync", lambda: None)()

    def close(self):
        assert self in self._disk.open_files, f"{self._name} is closed twice"
        self._disk.open_files.remove(self)

    def _call(self, kind):
        assert self._life == self._disk.life, "a file of an ended process is used"
        assert self in self._disk.open_files, f"{self._name} is used after it was closed"
        return self._disk.called(kind, self._name)


class FakeDisk:
    """As `counter.disk.Disk`.

    `calls` is what was called so far, as `(kind, name)`; `room` the bytes that fit in, None for any number;
    with *evict* a failed sync takes what it could not write out of the cache.
    """

    def __init__(self, evict=False):
        self.folder = pathlib.Path("/nowhere")
        self.names = {}
        self.durable_names = {}
        self.undone = []  # what was done to the names since the folder was synced
        self.calls = []
        self.open_files = set()
        self.room = None
        self.evict = evict
        self.life = 0
        self.left = None  # calls until the process ends
        self.never_ends_at = set()  # names
        self.torn = 0.0
        self.during = {}  # what another thread does while a call of a kind is under way, once
        self._planned = []

    # -- what a test asks for

    def fail(self, kind, number=errno.EIO, after=0, times=1, part=0.0):
        """Let calls of *kind* fail: *times* of them, after *after* good ones; *part* of a write is done."""
        self._planned.append(Planned(kind, number, after, times, part))

    def heal(self):
        """No planned failure happens any more, and there is room."""
        self._planned.clear()
        self.room = None

    def end_after(self, calls, torn=0.0):
        """Let the process end in the call after so many of them; if that is a write, *torn* of it is done."""
        self.left, self.torn = calls, torn

    def kill(self):
        """The process is gone; the kernel keeps what it was given."""
        self.life += 1
        self.left = None
        self.open_files.clear()

    def crash(self, rng, disordered=False):
        """The power is gone, and back."""
        self.kill()
        names = dict(self.durable_names)
        count = rng.randint(0, len(self.undone))
        for index, change in enumerate(self.undone):
            if rng.random() < 0.5 if disordered else index < count:
                _change(names, *change)
        self.names, self.durable_names, self.undone = names, dict(names), []
        for inode in {id(inode): inode for inode in names.values()}.values():
            inode.crash(rng)

    def bytes_of(self, name):
        """What is in the file."""
        return bytes(self.names[name].cached)

    def put(self, name, data):
        """A file that has always been there."""
        inode = self.names[name] = self.durable_names[name] = Inode()
        inode.write(data, 0)
        inode.sync()

    def copy_for_crash(self):
        """Another disk as this one is, to see there what a power cut would leave."""
        other = FakeDisk()
        other.names, other.durable_names, other.undone = copy.deepcopy(
            (self.names, self.durable_names, self.undone)
        )
        return other

    # -- the interface

    def sizes(self):
        self.check(self.called("sizes", ""))
        return {name: len(inode.cached) for name, inode in self.names.items()}

    def read(self, name):
        self.check(self.called("read", name))
        return bytes(self._inode(name).cached)

    def create(self, name):
        self.check(self.called("create", name))
        if name in self.names:
            raise _error(errno.EEXIST)
        self._do("put", name, Inode())
        return FakeFile(self, self.names[name], name)

    def open(self, name):
        self.check(self.called("open", name))
        return FakeFile(self, self._inode(name), name)

    def rename(self, old, new):
        self.check(self.called("rename", new))
        self._inode(old)
        self._do("rename", old, new)

    def remove(self, name):
        self.check(self.called("remove", name))
        inode = self._inode(name)
        if self.room is not None:
            self.room += len(inode.cached)
        self._do("remove", name)

    def sync(self):
        self.check(self.called("sync", ""))
        self.durable_names = dict(self.names)
        self.undone.clear()

    # -- inside

    def called(self, kind, name):
        """Note a call; the failure that is planned for it, or None."""
        if self.left is not None and name not in self.never_ends_at:
            if self.left <= 0:
                self.left = 0  # and so it is in every later call of this process
                raise Ended(f"in {kind} {name}")
            self.left -= 1
        self.calls.append((kind, name))
        planned = [each for each in self._planned if each.kind == kind]
        failing = [each for each in planned if each.meets()]
        return failing[0] if failing else None

    def check(self, failure):
        if failure is not None:
            raise _error(failure.number)

    def _inode(self, name):
        if name not in self.names:
            raise _error(errno.ENOENT)
        return self.names[name]

    def _do(self, *change):
        self.undone.append(change)
        _change(self.names, *change)


def _change(names, what, name, other=None):
    if what == "put":
        names[name] = other
    elif name in names:  # disordered, it may never have been there
        inode = names.pop(name)
        if what == "rename":
            names[other] = inode


def _put(content, page, data):
    at = page * PAGE
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + PAGE] = data.ljust(PAGE, b"\0")


def _resize(content, size):
    del content[size:]
    content.extend(bytes(size - len(content)))


def _error(number):
    return OSError(number, os.strerror(number))
