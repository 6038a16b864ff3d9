"""The error table: codes, statuses, exit codes and builtins, and errors that survive every journey."""

import copy
import pickle
from datetime import UTC, datetime

import pytest

import counter
from counter import errors
from counter.errors import HTTP_PROBLEMS, STORE_ERRORS, CounterError, builtin_of
from counter.results import Entry, Problem

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ENTRY = Entry("a", 5, "run.1", NOON, NOON, max=5)

TABLE = {  # code: (class, builtin, HTTP status, exit code)
    "invalid-request": (errors.InvalidRequest, ValueError, 400, 2),
    "not-found": (errors.NotFound, KeyError, 404, 1),
    "out-of-bounds": (errors.OutOfBounds, ValueError, 409, 1),
    "version-mismatch": (errors.VersionMismatch, RuntimeError, 412, 1),
    "key-reused": (errors.KeyReused, ValueError, 422, 1),
    "unsupported": (errors.Unsupported, NotImplementedError, 501, 1),
    "limit-exceeded": (errors.LimitExceeded, RuntimeError, 507, 1),
    "store-unavailable": (errors.StoreUnavailable, ConnectionError, 503, 3),
    "journal-full": (errors.JournalFull, ConnectionError, 503, 3),
    "outcome-unknown": (errors.OutcomeUnknown, TimeoutError, 504, 4),
}
HTTP_ONLY = {
    "unauthorized": 401,
    "forbidden": 403,
    "cross-site": 403,
    "no-such-route": 404,
    "method-not-allowed": 405,
    "too-large": 413,
    "media-type": 415,
    "host-not-allowed": 421,
    "rate-limited": 429,
    "overloaded": 503,
    "internal": 500,
}
every_error = pytest.mark.parametrize(
    "kind", [CounterError, *STORE_ERRORS.values()], ids=lambda kind: kind.code
)


def test_the_table_is_the_contracts():
    found = {
        code: (kind, builtin_of(kind("why")), kind.status, kind.exit_code)
        for code, kind in STORE_ERRORS.items()
        if code in TABLE
    }
    assert found == TABLE


def test_a_full_journal_is_an_unavailable_store():
    assert issubclass(errors.JournalFull, errors.StoreUnavailable)


def test_http_alone_knows_only_the_contracts_codes():
    assert {code: problem.status for code, problem in HTTP_PROBLEMS.items()}.items() <= HTTP_ONLY.items()
    assert not HTTP_PROBLEMS.keys() & STORE_ERRORS.keys()


def test_503_always_means_that_nothing_was_applied():
    assert {code for code, kind in STORE_ERRORS.items() if kind.status == 503} == {
        "store-unavailable",
        "journal-full",
    }


def test_every_error_has_a_title():
    titles = [kind.title for kind in STORE_ERRORS.values()] + [
        problem.title for problem in HTTP_PROBLEMS.values()
    ]
    assert all(titles)
    assert len({*titles}) == len(titles)


@pytest.mark.parametrize("kind", STORE_ERRORS.values(), ids=STORE_ERRORS)
def test_every_error_is_caught_as_the_builtin_it_stands_for(kind):
    error = kind("why")
    assert isinstance(error, builtin_of(error))
    assert isinstance(error, CounterError)


def test_the_base_stands_for_a_runtime_error_where_the_package_is_missing():
    assert builtin_of(CounterError("why")) is RuntimeError


@every_error
def test_an_error_says_its_sentence_and_nothing_else(kind):
    assert str(kind("there is no 'a'", ENTRY, 3)) == "there is no 'a'"


@every_error
@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_every_error_survives_copying_and_pickling_with_its_data(kind, travel):
    there = travel(kind("why", ENTRY, 3))
    assert type(there) is kind
    assert (there.detail, there.current, there.index) == ("why", ENTRY, 3)
    assert str(there) == "why"


@pytest.mark.parametrize("kind", STORE_ERRORS.values(), ids=STORE_ERRORS)
def test_every_store_error_travels_as_a_problem_and_comes_back_the_same(kind):
    error = kind("why", ENTRY, 3)
    problem = Problem.of(error)
    assert problem == (kind.code, "why", ENTRY, 3)
    back = problem.error()
    assert type(back) is kind
    assert (back.detail, back.current, back.index) == ("why", ENTRY, 3)


def test_a_problem_of_an_unknown_code_is_still_an_error_of_ours():
    error = Problem("from-the-future", "why").error()
    assert type(error) is CounterError
    assert str(error) == "why"


def test_the_package_exports_every_store_error():
    assert {kind.__name__ for kind in STORE_ERRORS.values()} <= {*counter.__all__}
    assert all(getattr(counter, name) is not None for name in counter.__all__)
