"""Load over HTTP: `counter run` on a free port, and client processes that POST together."""

import contextlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from support import COMMAND, start_process

CLIENTS = 8
"""Client processes that POST at once."""


@contextlib.contextmanager
def running(*arguments, home, cwd=None):
    """`counter run` with *arguments* on a free port: the process, and the URL that its ready line names."""
    command = [*COMMAND, "run", "--home", home, "--port", "0", *arguments]
    with start_process(command, cwd=cwd) as process:
        ready = process.line("ready", timeout=60)
        found = re.search(r"http://\S+", ready)
        yield process, found and found[0]
        assert process.stop() == 0, process.describe()


def ask(url, method="GET"):
    """The JSON that *url* answers; anything but 200 fails."""
    try:
        with urlopen(Request(url, method=method), timeout=30) as response:
            assert response.status == 200
            return json.load(response)
    except HTTPError as error:
        with error:
            raise AssertionError(f"{method} {url}: {error.code}, {error.read()}") from None


def count_together(url, field, each):
    """What `CLIENTS` processes got as *field* that each POST *each* times to *url*; only 200 is an answer."""

    def client(_):
        command = [sys.executable, Path(__file__).with_name("http_client.py"), url, field, str(each)]
        done = subprocess.run(command, capture_output=True, timeout=110)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [number for numbers in pool.map(client, range(CLIENTS)) for number in numbers]
