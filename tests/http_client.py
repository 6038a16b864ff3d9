"""One HTTP client process: POSTs N times, and prints the numbers that it got as JSON.

It takes a new connection now and then, so that every worker gets some.

python http_client.py URL FIELD N
"""

import http.client
import json
import sys
from urllib.parse import urlsplit


def main(url, field, times):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    numbers = []
    for at in range(int(times)):
        if at % 20 == 0:
            connection.close()
        connection.request("POST", parts.path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        numbers.append(json.loads(body)[field])
    connection.close()
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
