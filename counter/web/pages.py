"""The pages for people: the newest counters, and what each error means."""

from __future__ import annotations

import base64
import hashlib
import logging
from functools import cache
from pathlib import Path

from flask import render_template
from markupsafe import Markup

from ..errors import CounterError
from ..ops import List
from ..problems import HttpError, meaning
from ..results import Entry
from .call import Answer, Call, by_method
from .security import PAGE_POLICY

NEWEST = 20

log = logging.getLogger(__name__)


def home(call: Call) -> Answer:
    """`/`: the counters that changed last, and how to ask for more."""
    return by_method(call, {"GET": _home})


def _home(call: Call) -> Answer:
    entries: list[Entry] = []
    trouble = None
    try:
        entries = call.ask(List(sort="-updated", limit=NEWEST)).counters
    except CounterError as error:
        trouble = error
        log.warning("%s: %s", error.code, error.detail)
    address = call.site + call.base
    page = _page("home.html", entries=entries, trouble=trouble, address=address, base=call.base)
    return page if trouble is None else page._replace(status=503, headers=(("Retry-After", "1"),))


def problem(call: Call) -> Answer:
    """`/problems/{code}`: what an error means, and what to do."""
    found = meaning(call.rest())
    if found is None:
        raise HttpError("no-such-route", "there is no error of that name")
    return by_method(call, {"GET": lambda _: _page("problem.html", problem=found)})


def _page(template: str, **values: object) -> Answer:
    style, policy = _style()
    html = render_template(f"counter/{template}", style=style, **values)
    return Answer(html.encode() + b"\n", content_type="text/html; charset=utf-8", policy=policy)


@cache
def _style() -> tuple[Markup, str]:
    """The style sheet as it stands in a page, and the policy that allows this one and nothing else."""
    text = (Path(__file__).parent / "templates" / "counter" / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), PAGE_POLICY.format(style=f"'sha256-{digest}'")  # noqa: S704  (a file of this package)
