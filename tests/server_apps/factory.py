"""An app that is made by a function, and connects there."""

from flask import Flask
from views import add_views

import counter


def create_app():
    app = Flask(__name__)
    add_views(app, counter.connect())
    return app
