"""No log of any process holds a token, a key or a counter's name, whatever is asked and whatever fails."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from urllib.parse import quote, urlsplit

import leaks
import pytest
from http_load import running
from support import COMMAND, clean_environ, wait_until

import counter
from counter import CounterError

pytestmark = pytest.mark.process

NAME = "patient-4711"
KEY = leaks.MARKERS[0].decode()
FORGED = "counter_Forged-token-which-nobody-gave-out-0123456789"


def command(home, *words, **environ):
    """What a command prints on stdout; its stderr goes to the log."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, env=clean_environ(**environ), timeout=60)
    return done.stdout.decode().strip(), done.stderr.decode()


def ask(url, method, path, body=None, **headers):
    """The status; any answer will do."""
    where = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(where.hostname, where.port, timeout=30)) as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, body if body is None else json.dumps(body), sent)
        response = client.getresponse()
        response.read()
        return response.status


def use(url, home, tokens):
    """Everything that comes near a secret, well and badly; how many requests over HTTP that were."""
    counter_ = f"/v1/counters/{NAME}"
    statuses = set()
    number = 0
    for token in (*tokens, FORGED, ""):
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        for method, path, body, headers in [
            ("POST", f"{counter_}/increment", None, {"Idempotency_Key": KEY}),
            ("POST", f"{counter_}/increment?delta=2", None, {"Idempotency_Key": KEY}),  # reused for another
            ("POST", f"{counter_}/increment", {"delta": NAME}, {}),
            ("PUT", counter_, {"value": 1, "max": 1}, {"Content_Type": "application/json"}),
            ("POST", f"{counter_}/increment", None, {}),
            ("POST", f"{counter_}/increment", None, {"If_Match": '"no"'}),
            ("GET", f"{counter_}?access_token={FORGED}", None, {}),
            ("GET", f"/v1/counters?prefix={NAME}", None, {}),
            ("GET", f"/v1/counters?cursor={NAME}", None, {}),
            ("GET", f"/{NAME}", None, {}),
            ("GET", f"{counter_}%00", None, {}),
            (
                "POST",
                "/v1/batch",
                {"ops": [{"op": "get", "name": f"no-{NAME}"}]},
                {"Content_Type": "application/json"},
            ),
            ("GET", "/metrics", None, {}),
            ("GET", counter_, None, {"Host": f"{NAME}.test"}),
            ("POST", f"{counter_}/reset", None, {"Idempotency_Key": f"{KEY} with a blank"}),
        ]:
            statuses.add(ask(url, method, path, body, **bearer, **headers))
            number += 1
    assert statuses >= {200, 400, 401, 403, 404, 409, 412, 421, 422}, statuses
    library = counter.connect(f"counter://{quote(str(home))}")
    library.increment(f"{NAME}-2", idempotency_key=KEY)
    with contextlib.suppress(CounterError):
        library.increment(NAME, max=0)
    for words in (("incr", NAME), ("get", f"no-{NAME}"), ("list",), ("set", NAME, "x")):
        command(home, *words, "--home", str(home))
    return number


@pytest.mark.parametrize(("log_format", "log_names"), [("text", False), ("json", True)])
def test_a_log_holds_no_secret(tmp_path, log_format, log_names):
    home, file = tmp_path / "home", tmp_path / "tokens"
    tokens = [
        command(home, "token", name, "--scope", scope, "--tokens", str(file))[0].splitlines()[0]
        for name, scope in (("reader", "read"), ("writer", "write"))
    ]
    assert all(token.startswith("counter_") for token in tokens)
    options = ["--access-log", "--tokens", str(file), "--log-format", log_format, "--timeout", "1"]
    options += ["--log-names"] if log_names else []
    with running("--workers", "2", *options, home=home) as (process, url):
        key = (home / "authkey").read_bytes()
        number = use(url, home, tokens)
        # away, and back: what fails on the way is logged as well
        manager = int((home / "lock").read_text())
        os.kill(manager, signal.SIGSTOP)
        try:
            assert ask(url, "GET", f"/v1/counters/{NAME}", Authorization=f"Bearer {tokens[0]}") in (503, 504)
        finally:
            os.kill(manager, signal.SIGKILL)
        bearer = {"Authorization": f"Bearer {tokens[1]}"}
        wait_until(lambda: ask(url, "POST", f"/v1/counters/{NAME}/reset", **bearer) == 200)
        access = re.compile(r' id=|"request_id": "')
        wait_until(lambda: sum(bool(access.search(line)) for line in process.stderr.splitlines()) >= number)
        log = process.stderr + process.stdout
    assert "store-unavailable" in log or "outcome-unknown" in log
    assert "writer" in log, "the name of a token is no secret"
    digests = re.findall(r"[0-9a-f]{64}", file.read_text())
    assert len(digests) == 2
    secrets = [*tokens, FORGED, KEY, *digests, key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1]]
    for secret in secrets:
        assert secret not in log
        assert secret.removeprefix("counter_")[:12] not in log
    assert (NAME in log) == log_names
    assert "?" not in log, "a query can hold anything"
