"""Secrets are replaced while everybody counts: no request fails, and none is counted twice."""

import contextlib
import http.client
import json
import os
import re
import secrets
import select
import signal
import subprocess
import threading

import pytest
from manager_process import start_manager
from support import COMMAND, clean_environ, start_process, wait_until

import counter
from counter import SharedCounter
from counter.home import Home

pytestmark = pytest.mark.process

CLIENTS = 4


def command(*arguments):
    """What a `counter` command prints."""
    process = subprocess.run(
        [*COMMAND, *map(str, arguments)], env=clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


class Load:
    """Clients that increment until the end of the block, over connections that are new now and then."""

    def __init__(self, where, token):
        self.token = token  # as each takes it for its next request
        self.answers = [[] for _ in range(CLIENTS)]  # token, status, value
        self._where = where
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(told,)) for told in self.answers]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc_info):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _work(self, told):
        connection = http.client.HTTPConnection(self._where, timeout=30)
        while not self._end.is_set():
            token = self.token
            connection.request(
                "POST", "/v1/counters/n/increment", headers={"Authorization": f"Bearer {token}"}
            )
            response = connection.getresponse()
            told.append((token, response.status, json.loads(response.read()).get("value")))
            if len(told) % 10 == 0:
                connection.close()
        connection.close()

    def wait_for_more(self, requests=30):
        """Until each client has made so many more, all with the token of now."""
        before = [len(told) for told in self.answers]

        def made():
            return all(len(told) - had >= requests for told, had in zip(self.answers, before, strict=True))

        wait_until(made, 60)
        assert {told[-1][0] for told in self.answers} == {self.token}

    @property
    def failed(self):
        return [answer for told in self.answers for answer in told if answer[1] != 200]

    @property
    def values(self):
        return sorted(value for told in self.answers for _, status, value in told if status == 200)


def status_of(where, token):
    connection = http.client.HTTPConnection(where, timeout=30)
    connection.request("GET", "/v1/counters/n", headers={"Authorization": f"Bearer {token}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def replace(path, content):
    """As the docs tell it: a new file, closed to others, in the place of the one before."""
    new = path.with_name("new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.rename(path)


def test_tokens_and_the_key_are_replaced_without_a_failed_request(tmp_path):
    tokens, home = tmp_path / "tokens", tmp_path / "home"
    make = ("token", "shop", "--scope", "write", "--tokens", tokens)
    old = command(*make)
    run = (*COMMAND, "run", "--workers", "2", "--port", "0", "--home", home, "--tokens", tokens)
    with start_process(run) as service:
        where = service.line("ready", timeout=60).split()[1].removeprefix("http://")
        library = counter.connect(f"counter://{home}")
        library.increment("m")
        with Load(where, old) as load:
            load.wait_for_more()
            load.token = command(*make)
            load.wait_for_more()
            replace(tokens, "".join(tokens.read_text().splitlines(keepends=True)[1:]).encode())
            load.wait_for_more()
            assert (status_of(where, old), status_of(where, load.token)) == (401, 200)

            replace(home / "authkey", secrets.token_bytes(32))
            assert command("incr", "m", "--home", home) == "2"
            assert "a new key is in force" in service.stderr
            ready = service.stderr.count("is ready")
            service.send(signal.SIGHUP)  # new workers hold the new key, those from before go on with the old
            wait_until(lambda: service.stderr.count("is ready") == ready + 2, 60)
            load.wait_for_more()
            assert library.increment("m") == 3
        assert load.failed == []
        assert load.values == list(range(1, len(load.values) + 1))
        library.store.close()
        assert service.stop() == 0
        said = service.stdout + service.stderr
        assert old not in said and load.token not in said
        assert not re.search("ERROR|Traceback", said)


def test_a_key_that_is_replaced_between_being_let_in_and_reading_it_costs_no_call(home, monkeypatch):
    connect, replaced = Home.connect, []

    def connect_and_replace(self, deadline):
        connection = connect(self, deadline)
        if not replaced:
            select.select([connection], [], [], 20)  # until the manager has chosen whom it lets in
            replace(self.key_path, secrets.token_bytes(32))
            replaced.append(True)
        return connection

    with start_manager(home.path) as manager:
        monkeypatch.setattr(Home, "connect", connect_and_replace)
        with contextlib.closing(manager.store()) as store:
            assert SharedCounter(store).increment("a") == 1
        assert replaced


def test_with_tokens_it_may_be_open_to_others(tmp_path):
    token = command("token", "a", "--scope", "read", "--tokens", tmp_path / "tokens")
    open_to_others = ("--bind", "0.0.0.0", "--port", "0", "--workers", "1", "--tokens", "tokens")
    run = (*COMMAND, "run", *open_to_others, "--home", tmp_path / "home")
    with start_process(run, cwd=tmp_path) as service:  # the path is relative, and children start elsewhere
        port = service.line("ready", timeout=60).split()[1].rpartition(":")[2]
        assert status_of(f"127.0.0.1:{port}", "none") == 401
        assert status_of(f"127.0.0.1:{port}", token) == 404
        assert service.stop() == 0
