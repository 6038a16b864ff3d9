"""A number for each visitor, with buttons; one that is not changed for 30 days is forgotten.

The cookie is Flask's session: signed, so that nobody can take the id of another. In this folder:

    $ export SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_hex())')
    $ counter run visitors:create_app --workers 3

Open http://127.0.0.1:8000/ in two browsers, or in another terminal:

    $ curl -b jar -c jar http://127.0.0.1:8000/
    …Your number is 0…
    $ curl -b jar -c jar -L -d '' http://127.0.0.1:8000/inc
    …Your number is 1…

Keep the key where only the app can read it: with another one, all visitors are new.
"""

import os
import secrets
from datetime import timedelta

from flask import Blueprint, Flask, redirect, render_template_string, session, url_for
from werkzeug import Response

from counter.flask import FlaskCounter

LIFETIME = timedelta(days=30)
PAGE = """<!doctype html>
<html lang="en">
<title>Your number</title>
<p>Your number is {{ number }}</p>
<form method="post">
<button formaction="{{ url_for('visitors.increment') }}">+ 1</button>
<button formaction="{{ url_for('visitors.decrement') }}">− 1</button>
<button formaction="{{ url_for('visitors.reset') }}">Reset</button>
</form>
"""

hits = FlaskCounter()
numbers = hits.view("visitor:")
pages = Blueprint("visitors", __name__)


@pages.get("/")
def show() -> str:
    """The visitor's own number; the first time, an id for the cookie, and nothing is counted."""
    session.permanent = True
    visitor = session.setdefault("visitor", secrets.token_urlsafe())
    return render_template_string(PAGE, number=numbers[visitor])


@pages.post("/inc")
def increment() -> Response:
    """One more."""
    return _add(1)


@pages.post("/dec")
def decrement() -> Response:
    """One less."""
    return _add(-1)


@pages.post("/reset")
def reset() -> Response:
    """Back to 0, as if never counted."""
    if "visitor" in session:
        del numbers[session["visitor"]]
    return redirect(url_for(".show"), 303)


def _add(delta: int) -> Response:
    # A form on another site comes without the cookie (SameSite), and must not get this visitor a new one.
    if "visitor" in session:
        ttl = int(LIFETIME.total_seconds())
        numbers.increment(session["visitor"], delta, ttl=ttl, ttl_mode="sliding")  # from the last change on
    return redirect(url_for(".show"), 303)


def create_app() -> Flask:
    """The app; with the SECRET_KEY of the environment, which has to be the same in all workers."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.environ.get("SECRET_KEY"),
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,  # behind HTTPS, SESSION_COOKIE_SECURE=True as well
    )
    if not app.config["SECRET_KEY"]:
        raise RuntimeError("set SECRET_KEY in the environment to a random text, the same for all workers")
    hits.init_app(app)
    app.register_blueprint(pages)
    return app
