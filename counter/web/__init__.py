"""The HTTP API: an app of its own (`create_app`), or a part of yours (`api_blueprint`)."""

from __future__ import annotations

from .app import api_blueprint, create_app

__all__ = ["api_blueprint", "create_app"]
