"""Ten requests a minute for each address, over all workers together, with Flask-Limiter.

It needs `pip install flask-limiter`. In this folder:

    $ counter run rate_limited:app --workers 3

In another terminal, twelve requests, and the status of each:

    $ for i in $(seq 12); do curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8000/; done
    200 200 200 200 200 200 200 200 200 200 429 429

Behind a proxy all visitors have the proxy's address: limit by a header that the proxy always sets, such as
`Limiter(lambda: request.headers["X-Real-IP"], …)`. Werkzeug's ProxyFix helps under other servers only:
`counter run` lets no X-Forwarded-For through.
"""

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

import counter.limits  # noqa: F401  (makes counter:// known to Flask-Limiter)

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    storage_uri="counter://",
    in_memory_fallback_enabled=True,  # while there is no manager, each worker limits for itself
)


@app.get("/")
@limiter.limit("10/minute")
def search() -> dict[str, str]:
    """What costs something."""
    return {"result": "found"}
