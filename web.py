"""The HTTP API as a WSGI app, for any server: `gunicorn web:app`. `counter workers` serves the same."""

from counter.web import create_app

app = create_app()
