"""Errors as documents: each code has a page's worth of advice, and a document holds what its error knows."""

import pickle
from datetime import UTC, datetime

import msgspec
import pytest

from counter.errors import HTTP_PROBLEMS, STORE_ERRORS, NotFound, OutOfBounds, VersionMismatch
from counter.problems import ADVICE, HttpError, document, meaning
from counter.results import Entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENTRY = Entry("a", 1, "r.1", NOW, NOW)


def encoded(error, base=""):
    return msgspec.json.decode(msgspec.json.encode(document(error, base)))


def test_every_code_is_explained_once():
    assert ADVICE.keys() == STORE_ERRORS.keys() | HTTP_PROBLEMS.keys()
    assert not STORE_ERRORS.keys() & HTTP_PROBLEMS.keys()
    for code in ADVICE:
        assert meaning(code).code == code
    assert meaning("nope") is None


@pytest.mark.parametrize("code", list(STORE_ERRORS))
def test_a_stores_error(code):
    error = STORE_ERRORS[code]("what happened")
    told = encoded(error, "/x")
    current = {"current": None} if code in ("out-of-bounds", "version-mismatch") else {}
    assert told == {
        "type": f"/x/problems/{code}",
        "title": error.title,
        "status": error.status,
        "detail": "what happened",
        "code": code,
        **current,
    }


@pytest.mark.parametrize("code", list(HTTP_PROBLEMS))
def test_an_error_of_http_alone(code):
    told = encoded(HttpError(code, "what happened"))
    assert (told["status"], told["title"]) == tuple(HTTP_PROBLEMS[code])
    assert told.keys() == {"type", "title", "status", "detail", "code"}


def test_current_and_index():
    assert encoded(OutOfBounds("x", ENTRY, 3))["index"] == 3
    assert encoded(OutOfBounds("x", ENTRY, 0))["index"] == 0
    assert encoded(VersionMismatch("x", ENTRY))["current"]["version"] == "r.1"
    assert "current" not in encoded(NotFound("x", ENTRY))


def test_an_http_error_survives_pickling():
    error = pickle.loads(pickle.dumps(HttpError("too-large", "x", (("A", "b"),))))
    assert (error.code, error.detail, error.headers) == ("too-large", "x", (("A", "b"),))
