"""Counts by HTTP as a careful client does: each call has a key, and is repeated with it until answered."""

import http.client
import json
import os
import time
from urllib.parse import urlsplit

SECONDS = 10.0
PAUSE = 0.02


class HttpCaller:
    """One connection that is kept; for one thread. A call may take *seconds*, repeats included."""

    def __init__(self, url, seconds=SECONDS):
        parts = urlsplit(url)
        self._seconds = seconds
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
        self._keys = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._calls = 0

    def increment(self, name, diary):
        """Make one call, and write into *diary* what was met and how it ended."""
        self._calls += 1
        headers = {"Idempotency-Key": f"{self._keys}-{self._calls}"}
        end = time.monotonic() + self._seconds
        sent = False  # once it was sent, a later 503 cannot tell that it was not applied
        while True:
            try:
                status, body = self._post(f"/v1/counters/{name}/increment", headers)
            except ConnectionRefusedError:
                self._connection.close()
                diary.connection_refused()
                said = "the connection is refused"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                diary.connection_broken(repr(error))
                sent, said = True, repr(error)
            else:
                if status == 200:
                    diary.acknowledged(json.loads(body)["value"])
                    return
                sent, said = sent or status != 503, f"{status} {body!r}"
                if status not in (503, 504):
                    end = 0.0
            if time.monotonic() + PAUSE > end:
                (diary.unknown if sent else diary.refused)(said)
                return
            time.sleep(PAUSE)

    def close(self):
        self._connection.close()

    def _post(self, path, headers):
        self._connection.request("POST", path, headers=headers)
        response = self._connection.getresponse()
        return response.status, response.read()
