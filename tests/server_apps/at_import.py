"""An app that has counted before its server forks: the connection of that is open then."""

from flask import Flask
from views import add_views

import counter

hits = counter.connect()
hits.increment("started")

app = Flask(__name__)
add_views(app, hits)
