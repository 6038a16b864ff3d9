"""A manager's folder: who may enter it, its key, its locks, its socket."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pickle
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from counter import folder as folder_module
from counter import home as home_module
from counter.errors import InvalidRequest, StoreUnavailable
from counter.folder import AlreadyRunning
from counter.home import KEY_BYTES, Home, default_home, peer_uid

NOBODY = 65534
NO_MANAGER = "no manager is running in"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners and users")
has_peercred = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system has no SO_PEERCRED")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach; tmp_path is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def group() -> str:
    """A group we may give files to: another than our first, where there is one."""
    ours = (
        {entry.gr_gid for entry in grp.getgrall()} if os.geteuid() == 0 else {*os.getgroups(), os.getegid()}
    )
    return grp.getgrgid(max(ours - {os.getegid()}, default=os.getegid())).gr_name


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def in_fork(work: Callable[[], object], uid: int | None = None) -> str:
    """What *work* returns or raises in a forked child (as another user), as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            answer = str(work())
        except BaseException as exc:  # noqa: BLE001 - told to the parent, which is another process
            answer = f"{type(exc).__name__}: {exc}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return answer


@contextlib.contextmanager
def python(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs *code* with `home`, has printed a line, and stays until it is told or killed."""
    head = "import os, subprocess, sys\nfrom counter.home import Home\nhome = Home(sys.argv[1])\n"
    tail = "\nprint('ready', flush=True)\nsys.stdin.read()\n"
    command = [sys.executable, "-c", head + code + tail, str(path)]
    where = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# The folder


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"COUNTER_HOME": "/srv/shop", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/srv/shop"),
        ({"COUNTER_HOME": "shop"}, str(Path.cwd() / "shop")),
        ({"COUNTER_HOME": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/counter"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/counter"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/counter"),
        ({"HOME": "/h"}, "/h/.local/state/counter"),
    ],
)
def test_default_home(environ: dict[str, str], expected: str) -> None:
    assert default_home(environ) == Path(expected)


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_default_home_without_a_usable_variable_is_the_users(environ: dict[str, str]) -> None:
    """Not `/.local`, nor below whatever the current folder is."""
    users = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert default_home(environ) == users / ".local/state/counter"


def test_a_user_whom_the_host_does_not_know_has_to_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(StoreUnavailable, match="COUNTER_HOME"):
        default_home({})


def test_a_home_is_absolute_and_making_the_object_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home("shop/")
    monkeypatch.chdir("/")
    assert home.path == tmp_path / "shop"
    assert home.socket_path == tmp_path / "shop/manager.sock"
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        Home("/a\0b")


def test_prepare_makes_the_folder_and_those_above_it_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Home(tmp_path / "a/b/home").prepare()
    finally:
        os.umask(before)
    assert [mode_of(tmp_path / name) for name in ("a", "a/b", "a/b/home")] == [0o700] * 3


def test_prepare_has_every_folder_that_it_makes_on_the_disk(tmp_path: Path, monkeypatch: Any) -> None:
    """Or the power takes the home, and with it a journal that was synced."""
    synced: list[Path] = []
    monkeypatch.setattr("counter.home.sync_folder", synced.append)
    home = Home(tmp_path / "a" / "b" / "home")
    home.prepare()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    home.prepare()
    assert len(synced) == 3


def test_prepare_leaves_a_safe_folder_as_it_is(home: Home) -> None:
    home.path.chmod(0o500)
    home.prepare()
    assert mode_of(home.path) == 0o500


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_prepare_refuses_an_open_folder_and_does_not_change_it(home: Home, mode: int) -> None:
    home.path.chmod(mode)
    with pytest.raises(StoreUnavailable, match=f"chmod 700 {home.path}"):
        home.prepare()
    assert mode_of(home.path) == mode


def test_prepare_refuses_a_link_even_to_a_safe_folder(home: Home, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home.path)
    for path in (link, f"{link}/"):
        with pytest.raises(StoreUnavailable, match="link is a symbolic link: name the folder itself"):
            Home(path).prepare()


def test_prepare_refuses_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreUnavailable):
        Home(tmp_path / "link").prepare()
    assert not (tmp_path / "nowhere").exists()


def test_prepare_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="is not a folder"):
        Home(tmp_path / "file").prepare()


@as_root
def test_prepare_refuses_the_folder_of_another_user(home: Home) -> None:
    os.chown(home.path, NOBODY, -1)
    with pytest.raises(StoreUnavailable, match=f"belongs to user {NOBODY} and this is user 0: run as"):
        home.prepare()


@as_root
@pytest.mark.process
def test_prepare_says_so_where_it_may_not_write(open_folder: Path) -> None:
    answer = in_fork(Home(open_folder / "sub/home").prepare, uid=NOBODY)
    assert answer.startswith("StoreUnavailable: cannot prepare")
    assert "permission denied" in answer


@pytest.mark.parametrize("mode", [None, 0o700, 0o777])
def test_a_group_is_let_in_and_no_one_else(tmp_path: Path, group: str, mode: int | None) -> None:
    home = Home(tmp_path / "new/home")
    if mode is not None:
        home.path.mkdir(parents=True)
        home.path.chmod(mode)
    home.prepare(group=group)
    assert mode_of(home.path) == 0o750
    assert home.path.stat().st_gid == grp.getgrnam(group).gr_gid
    if mode is None:
        assert mode_of(home.path.parent) == 0o711  # what was made above it lets the group through


def test_an_unknown_group_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no group 'no such group'"):
        Home(tmp_path / "home").prepare(group="no such group")
    assert not (tmp_path / "home").exists()


@as_root
@pytest.mark.process
def test_a_group_one_is_no_member_of_is_refused(open_folder: Path) -> None:
    home = Home(open_folder / "home")
    home.path.mkdir(mode=0o700)
    os.chown(home.path, NOBODY, NOBODY)
    answer = in_fork(lambda: home.prepare(group=grp.getgrgid(0).gr_name), uid=NOBODY)
    assert answer.startswith("StoreUnavailable")
    assert "only a member of a group" in answer
    assert mode_of(home.path) == 0o700


@as_root
def test_a_group_does_not_make_anothers_folder_ours(home: Home, group: str) -> None:
    os.chown(home.path, NOBODY, -1)
    with pytest.raises(StoreUnavailable, match="belongs to user"):
        home.prepare(group=group)
    assert mode_of(home.path) == 0o700


# The key


def test_the_key_is_made_once_and_is_private(home: Home) -> None:
    before = os.umask(0)
    try:
        key = home.ensure_key()
    finally:
        os.umask(before)
    assert len(key) == KEY_BYTES == 32
    assert home.key_path.read_bytes() == key
    assert mode_of(home.key_path) == 0o600
    assert home.ensure_key() == home.read_key() == Home(home.path).read_key() == key
    assert [path.name for path in home.path.iterdir()] == ["authkey"]


def test_two_homes_have_two_keys(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.prepare()
    assert other.ensure_key() != home.ensure_key()


def test_the_folders_group_may_read_the_key(home: Home, group: str) -> None:
    key = home.ensure_key()
    home.prepare(group=group)
    assert home.ensure_key() == home.read_key() == key
    assert mode_of(home.key_path) == 0o640
    assert home.key_path.stat().st_gid == grp.getgrnam(group).gr_gid


def test_a_missing_key_says_what_makes_one(home: Home) -> None:
    with pytest.raises(StoreUnavailable, match="start the manager, it makes one"):
        home.read_key()


SECRET = b"sesame" * 5 + b"!!"


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (SECRET, 0o644, r"was open to other users \(mode 0644\)"),
        (SECRET, 0o660, r"was open to other users \(mode 0660\)"),
        (SECRET, 0o602, r"was open to other users \(mode 0602\)"),
        (b"", 0o600, "does not hold exactly 32 bytes"),
        (SECRET[:-1], 0o600, "does not hold exactly 32 bytes"),
        (SECRET + b"\n", 0o600, "does not hold exactly 32 bytes"),
    ],
)
def test_an_unsafe_or_damaged_key_is_refused_not_replaced_and_not_told(
    home: Home, content: bytes, mode: int, sentence: str
) -> None:
    home.key_path.write_bytes(content)
    home.key_path.chmod(mode)
    for ask in (home.read_key, home.ensure_key):
        with pytest.raises(StoreUnavailable, match=f"{sentence}: remove it and restart") as caught:
            ask()
        assert "sesame" not in str(caught.value)
    assert home.key_path.read_bytes() == content
    assert mode_of(home.key_path) == mode


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path, 0o600), "not a regular file"),
        (lambda path: path.symlink_to("/etc/hostname"), "it is a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "it is a symbolic link"),
    ],
    ids=["folder", "fifo", "link", "dangling"],
)
def test_what_is_no_file_is_no_key(home: Home, make: Callable[[Path], None], sentence: str) -> None:
    make(home.key_path)
    for ask in (home.read_key, home.ensure_key):
        with pytest.raises(StoreUnavailable, match=sentence):
            ask()


@as_root
def test_a_key_of_another_user_is_refused(home: Home) -> None:
    home.ensure_key()
    os.chown(home.key_path, NOBODY, -1)
    with pytest.raises(StoreUnavailable, match=f"belongs to user {NOBODY}, its folder to user 0"):
        home.read_key()


@as_root
@pytest.mark.process
def test_other_users_are_told_that_they_may_not_read_the_key(open_folder: Path) -> None:
    home = Home(open_folder / "home")
    home.prepare()
    home.ensure_key()
    answer = in_fork(home.read_key, uid=NOBODY)
    assert answer.startswith("StoreUnavailable")
    assert "permission denied; choose another with --home or COUNTER_HOME, or have its owner" in answer


def test_an_interrupted_first_start_leaves_no_half_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match=r"cannot write .*authkey: No space left"):
            home.ensure_key()
    assert list(home.path.iterdir()) == []
    assert len(home.ensure_key()) == KEY_BYTES


def test_who_comes_second_takes_the_key_of_the_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Home(home.path)
    with monkeypatch.context() as patch:
        real = os.fsync
        patch.setattr(os, "fsync", lambda file: (patch.setattr(os, "fsync", real), first.ensure_key()))
        key = home.ensure_key()
    assert key == first.read_key()
    assert [path.name for path in home.path.iterdir()] == ["authkey"]


# The locks


def test_a_second_manager_is_refused_and_told_who_the_first_is(home: Home) -> None:
    with home.lock() as lock:
        with pytest.raises(
            AlreadyRunning, match=rf"a manager \(pid {os.getpid()}\) already runs in"
        ) as caught:
            Home(home.path).lock()
        assert caught.value.pid == os.getpid() == home.holder()
        lock.release()
        assert home.holder() is None
        with home.lock("lock"):
            assert home.holder("lock") == os.getpid()


def test_the_supervisors_lock_is_another(home: Home) -> None:
    with home.lock(), home.lock("supervisor"):
        assert home.holder("supervisor") == os.getpid()
        with pytest.raises(AlreadyRunning, match=r"`counter run` \(pid \d+\) already runs in"):
            home.lock("supervisor")


def test_already_running_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(AlreadyRunning("taken", 42)))
    assert (type(error), str(error), error.pid, error.exit_code) == (AlreadyRunning, "taken", 42, 3)


def test_nobody_holds_the_lock_of_a_home_that_does_not_exist(tmp_path: Path) -> None:
    assert Home(tmp_path / "home").holder() is None
    with pytest.raises(StoreUnavailable, match="cannot lock"):
        Home(tmp_path / "home").lock()


def test_a_pid_left_in_the_file_is_no_holder(home: Home) -> None:
    (home.path / "lock").write_text(f"{os.getpid():>10}\n")
    assert home.holder() is None
    home.lock().release()
    assert home.holder() is None


def test_a_dead_ones_pid_is_never_taken_for_the_new_holder(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question asked between taking the lock and writing the pid is answered after the writing."""
    (home.path / "lock").write_text(f"{1:>10}\n")
    answers: list[int | None] = []
    asking = threading.Thread(target=lambda: answers.append(Home(home.path).holder()))
    real = os.pwrite

    def asked_just_before(file: int, data: bytes, offset: int) -> int:
        asking.start()
        asking.join(0.05)
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", asked_just_before)
    with home.lock():
        asking.join()
        assert answers == [os.getpid()]


def test_asking_for_the_holder_never_refuses_a_manager_that_starts(home: Home) -> None:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            Home(home.path).holder()

    home.lock().release()
    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(100):
            home.lock().release()
    finally:
        done.set()
        for thread in asking:
            thread.join()


def test_a_lock_by_a_program_that_is_not_ours(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(home.path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for ask in (home.lock, home.holder):
            with pytest.raises(StoreUnavailable, match="a program that is not ours"):
                ask()
    monkeypatch.setattr(folder_module, "TURN_SECONDS", 0.02)
    folder = os.open(home.path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(StoreUnavailable, match="another program keeps"):
        home.lock()
    os.close(folder)
    home.lock().release()


def test_a_copy_in_a_child_forked_in_mid_question_holds_up_nobody(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    real = fcntl.flock

    def fork_just_after(file: int, how: int) -> None:
        real(file, how)
        if how != fcntl.LOCK_UN:
            copies.append(os.dup(file))

    home.lock().release()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fork_just_after)
        assert home.holder() is None
        home.lock().release()
    assert len(copies) == 4
    home.lock().release()
    for copy in copies:
        os.close(copy)


def test_waiting_for_a_release(home: Home) -> None:
    with home.lock():
        assert home.wait_released("lock", 0.0) is False
        assert home.wait_released("lock", 0.05) is False
    assert home.wait_released("lock", 0.0) is True


@pytest.mark.process
def test_kill_9_releases_the_lock(home: Home) -> None:
    with python("lock = home.lock()", home.path) as process:
        assert home.holder() == process.pid
        with pytest.raises(AlreadyRunning, match=f"pid {process.pid}"):
            home.lock()
        process.kill()
        assert home.wait_released("lock", 10)
        assert f"{process.pid}" in (home.path / "lock").read_text()  # left behind, and yet no holder
        with home.lock():
            assert home.holder() == os.getpid()


@pytest.mark.process
def test_children_do_not_keep_a_dead_holders_lock(home: Home) -> None:
    """A forked child and a started program outlive the holder, which is killed: the lock is free."""
    code = """
lock = home.lock()
forked = os.fork()
if forked == 0:
    lock.release()  # not the child's to release
    os.read(0, 1)
    os._exit(0)
started = subprocess.Popen(["sleep", "60"], close_fds=False)
print(forked, started.pid, flush=True)
"""
    with python(f"print('ready', flush=True)\n{code}", home.path) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert process.stdout.readline() == "ready\n"
        try:
            assert home.holder() == process.pid
            process.kill()
            process.wait()
            for child in children:
                os.kill(child, 0)
            assert home.holder() is None
            home.lock().release()
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)


@as_root
@pytest.mark.process
def test_only_the_owner_can_ask_for_the_holder(open_folder: Path) -> None:
    home = Home(open_folder / "home")
    home.prepare()
    with home.lock():
        assert "permission denied" in in_fork(home.holder, uid=NOBODY)


# The socket


def test_the_socket_is_private_listens_and_does_not_block(home: Home) -> None:
    before = os.umask(0)
    try:
        listener = home.bind()
    finally:
        os.umask(before)
    with listener:
        assert mode_of(home.socket_path) == 0o600
        assert listener.getblocking() is False
        with home.connect(soon()) as client, listener.accept()[0] as server:
            assert 0 < (client.gettimeout() or 0) <= 10
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
    assert [path.name for path in home.path.iterdir()] == ["manager.sock"]


def test_the_folders_group_may_connect(home: Home, group: str) -> None:
    home.prepare(group=group)
    with home.bind():
        assert mode_of(home.socket_path) == 0o660
        assert home.socket_path.stat().st_gid == grp.getgrnam(group).gr_gid
        home.connect(soon()).close()


def test_nobody_can_connect_before_the_mode_is_final(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the widest umask too: the file gets its mode before anybody is let in, its name after."""
    seen: list[tuple[int, bool]] = []
    real = socket.socket.listen

    def look(listener: socket.socket, backlog: int) -> None:
        temporary = home.path / "manager.sock.new"
        seen.append((mode_of(temporary), home.socket_path.exists()))
        with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as early:
            early.connect(str(temporary))
        real(listener, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    before = os.umask(0)
    try:
        home.bind().close()
    finally:
        os.umask(before)
    assert seen == [(0o600, False)]


def test_stale_sockets_are_no_obstacle(home: Home) -> None:
    home.bind().close()
    home.socket_path.rename(home.path / "manager.sock.new")
    home.bind().close()
    with home.bind():
        home.connect(soon()).close()


def test_a_restart_never_shows_a_folder_without_a_socket(home: Home) -> None:
    listener, missed, done = home.bind(), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not home.socket_path.exists():
                missed.append(time.monotonic())

    watching = threading.Thread(target=watch)
    watching.start()
    for _ in range(100):
        listener.close()
        listener = home.bind()
    done.set()
    watching.join()
    listener.close()
    assert missed == []


def test_what_cannot_be_bound_is_told(home: Home) -> None:
    home.socket_path.mkdir()
    with pytest.raises(StoreUnavailable, match=r"cannot listen in .*: Is a directory"):
        home.bind()


def test_a_late_exit_leaves_its_successors_socket(home: Home) -> None:
    late, successor = home, Home(home.path)
    with late.bind(), successor.bind():
        late.unlink_socket()
        home.connect(soon()).close()
        successor.unlink_socket()
        assert not home.socket_path.exists()
        successor.unlink_socket()


def test_a_later_socket_with_the_same_inode_is_not_ours(home: Home) -> None:
    """File systems use an inode again at once; what is new in the old place is still told apart."""
    with home.bind():
        found = home.socket_path.stat()
        os.utime(home.socket_path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
        home.unlink_socket()
        assert home.socket_path.exists()


@pytest.mark.process
def test_a_forked_child_does_not_unlink_its_parents_socket(home: Home) -> None:
    with home.bind():
        assert in_fork(home.unlink_socket) == "None"
        home.connect(soon()).close()
        home.unlink_socket()
        assert not home.socket_path.exists()


def test_unlinking_without_a_socket_of_ours_does_nothing(home: Home) -> None:
    home.unlink_socket()
    with Home(home.path).bind():
        home.unlink_socket()
        assert home.socket_path.exists()


def test_a_home_without_a_manager_fails_at_once(home: Home, tmp_path: Path) -> None:
    started = time.monotonic()
    for path in (home.path, tmp_path / "nothing"):
        with pytest.raises(StoreUnavailable) as caught:
            Home(path).connect(soon())
        assert str(caught.value) == (
            f"no manager is running in {path}; start one: `counter run`; "
            "elsewhere? set COUNTER_URL; in tests: COUNTER_URL=memory://"
        )
    assert time.monotonic() - started < 5


def test_a_manager_that_restarts_is_waited_for(home: Home) -> None:
    home.bind().close()  # killed: its file is still there, and refuses
    restarting = threading.Timer(0.05, lambda: listeners.append(Home(home.path).bind()))
    listeners: list[socket.socket] = []
    restarting.start()
    home.connect(soon()).close()
    restarting.join()
    listeners[0].close()


def test_a_manager_that_does_not_come_back_is_waited_for_until_the_deadline(home: Home) -> None:
    home.bind().close()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=rf"nothing answered in {home.path} for \d+\.\d s"):
        home.connect(started + 0.1)
    assert 0.1 <= time.monotonic() - started < 5
    with pytest.raises(StoreUnavailable, match="nothing answered"):
        home.connect(started)  # past already: one try


def test_a_socket_that_was_seen_and_has_gone_is_waited_for_once(home: Home) -> None:
    """A clean restart takes its socket away; later calls do not wait for what has gone for good."""
    with home.bind():
        home.connect(soon()).close()
        home.unlink_socket()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=NO_MANAGER):
        home.connect(started + 0.1)
    assert time.monotonic() - started >= 0.1
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=NO_MANAGER):
        home.connect(soon())
    assert time.monotonic() - started < 5


def test_a_socket_that_vanishes_while_one_waits_is_waited_for(home: Home) -> None:
    home.bind().close()
    vanishing = threading.Timer(0.03, home.socket_path.unlink)
    listeners: list[socket.socket] = []
    restarting = threading.Timer(0.1, lambda: listeners.append(Home(home.path).bind()))
    vanishing.start()
    restarting.start()
    home.connect(soon()).close()
    for thread in (vanishing, restarting):
        thread.join()
    listeners[0].close()


def test_a_full_backlog_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "BACKLOG", 0)
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(home.bind())
        with pytest.raises(StoreUnavailable, match="nothing answered"):
            while True:
                open_sockets.enter_context(home.connect(soon(0.05)))
        accepting = threading.Timer(0.05, lambda: open_sockets.enter_context(listener.accept()[0]))
        accepting.start()
        open_sockets.enter_context(home.connect(soon()))
        accepting.join()


def test_the_backlog_holds_a_thousand() -> None:
    assert home_module.BACKLOG == 1024


def test_other_errors_of_the_system_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(*_args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", no_files)
    with pytest.raises(StoreUnavailable, match=r"cannot connect in .*: Too many open files"):
        home.connect(soon())


def test_a_client_refuses_a_link_too(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.path)
    with home.bind(), pytest.raises(StoreUnavailable, match="is a symbolic link"):
        Home(tmp_path / "link").connect(soon())


@as_root
@has_peercred
@pytest.mark.process
def test_somebody_else_who_answers_is_refused(home: Home) -> None:
    """The kernel notes who called listen() last: here another user, on a socket that it inherited."""
    with home.bind() as listener:
        assert in_fork(lambda: listener.listen(5), uid=NOBODY) == "None"
        with pytest.raises(
            StoreUnavailable, match=f"user {NOBODY} answers in .*, which is user 0's: refused"
        ):
            home.connect(soon())


@as_root
@has_peercred
@pytest.mark.process
def test_a_client_trusts_the_folders_owner_not_only_its_own_user(home: Home) -> None:
    with home.bind() as listener:
        os.chown(home.path, NOBODY, -1)
        with pytest.raises(StoreUnavailable, match="user 0 answers"):
            home.connect(soon())
        assert in_fork(lambda: listener.listen(5), uid=NOBODY) == "None"
        home.connect(soon()).close()


@has_peercred
def test_peer_uid_of_both_ends(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with home.bind() as listener, home.connect(soon()) as client, listener.accept()[0] as server:
        assert peer_uid(client) == peer_uid(server) == os.geteuid()
        monkeypatch.delattr(socket, "SO_PEERCRED")
        assert peer_uid(client) is None
        home.connect(soon()).close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system has no /proc/self/fd")
def test_a_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 20) / ("er" * 40))
    assert len(os.fsencode(home.socket_path)) > 150
    home.prepare()
    home.ensure_key()
    with home.lock(), home.bind() as listener:
        with home.connect(soon()) as client, listener.accept()[0] as server:
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
        home.unlink_socket()
    assert sorted(path.name for path in home.path.iterdir()) == ["authkey", "lock"]


def test_a_path_too_long_is_refused_where_there_is_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / ("long" * 20) / ("er" * 40))
    home.prepare()
    monkeypatch.setattr(Path, "is_dir", lambda _path: False)
    with pytest.raises(StoreUnavailable, match="too long for a socket here: choose a shorter --home"):
        home.bind()


@pytest.mark.parametrize("work", ["bind", "connect", "lock", "read_key", "ensure_key"])
def test_nothing_is_left_open(home: Home, work: str) -> None:
    """Whatever is done, and whether it succeeds or fails, no descriptor is left behind."""
    folder = Path("/dev/fd")
    before = len(list(folder.iterdir()))
    with contextlib.suppress(StoreUnavailable):
        if work == "bind":
            home.bind().close()
        elif work == "connect":
            home.connect(time.monotonic())
        elif work == "lock":
            with home.lock(), contextlib.suppress(AlreadyRunning):
                home.lock()
            home.holder()
        else:
            getattr(home, work)()
    assert len(list(folder.iterdir())) == before
