"""One HTTP request as the API reads it, strictly: path, query, body; and the answer it gets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args
from urllib.parse import parse_qsl, quote

import msgspec

from .. import request_ids, strict_json
from ..errors import InvalidRequest, StoreUnavailable, VersionMismatch
from ..fields import HIDDEN, OnBound, Sort, TtlMode
from ..ops import AnyOp, CounterOp, Request
from ..problems import HttpError
from ..results import Problem, Reply, Result
from ..settings import SETTINGS
from .body import read_body
from .config import Api
from .security import DATA_POLICY, SAFE_METHODS

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

T = TypeVar("T", bound=msgspec.Struct)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_SOON = 0.1  # seconds: as good as at once
_UTF8_ONLY = ("", "charset=utf-8")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_CHOICES = {
    "sort": get_args(Sort),
    "on_bound": get_args(OnBound),
    "ttl_mode": get_args(TtlMode),
    "op": tuple(kind.__struct_config__.tag for kind in get_args(CounterOp)),
}
_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)


class Answer(NamedTuple):
    """What goes back: the body, which may be a stream, and what differs from the usual."""

    body: bytes | Iterable[bytes]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    policy: str = DATA_POLICY


def json_answer(content: object, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """*content* as JSON and a newline."""
    return Answer(msgspec.json.encode(content) + b"\n", status, headers)


class Call:
    """One request to the API.

    Attributes:
        environ: what the WSGI server says.
        api: the config and the store.
        prefix: the path that the API is mounted under, inside the app.
        name: the counter that the path names, where it names one.
        method: as in the request line.
        key: its idempotency key, None where there is none or nothing is to be changed. The store is asked
            once at the most under it: what it answers is the outcome of the whole request.
        id: the request's; see `request_ids`.
        headers: what its answer has besides, whatever that is.
        token: the name of the token that it came with, empty where it needed none. Each has keys of its own.
        replayed: whether the store's answer is one that it gave before, under that key.
    """

    __slots__ = (
        "_rest",
        "_waited",
        "api",
        "environ",
        "headers",
        "id",
        "key",
        "method",
        "name",
        "prefix",
        "replayed",
        "token",
    )

    def __init__(self, environ: WSGIEnvironment, api: Api, prefix: str = "", rest: str = "") -> None:
        self.environ = environ
        self.api = api
        self.prefix = prefix
        self.method: str = environ["REQUEST_METHOD"]
        self.name = ""
        self.key: str | None = None
        self.token = ""
        self.replayed = False
        self._rest = rest
        self.id: str = request_ids.of(environ)
        self.headers: tuple[tuple[str, str], ...] = ((request_ids.HEADER, self.id),)
        arrived = environ.get("counter.arrived")
        self._waited = 0.0 if arrived is None else time.monotonic() - arrived

    @property
    def unsafe(self) -> bool:
        """Whether its method may change something."""
        return self.method not in SAFE_METHODS

    def header(self, name: str) -> str | None:
        """A request header by its WSGI name, such as IF_MATCH."""
        value: str | None = self.environ.get("HTTP_" + name)
        return value

    def report(self) -> None:
        """Have the worker that serves this, if any, report, so that its figures are in the answer."""
        if (report := self.environ.get("counter.report")) is not None:
            report()

    @property
    def base(self) -> str:
        """The path before `/v1`, percent-encoded."""
        script: str = self.environ.get("SCRIPT_NAME", "")
        return quote(script.encode("latin-1")) + quote(self.prefix)

    @property
    def site(self) -> str:
        """Scheme and Host that the request came by."""
        return f"{self.environ['wsgi.url_scheme']}://{self.environ['HTTP_HOST']}"

    def curl(self, options: str) -> str:
        """A line for a shell that asks for this very address."""
        path = self.environ.get("SCRIPT_NAME", "") + self.environ["PATH_INFO"]
        return f"curl {options} '{self.site}{quote(path.encode('latin-1'))}'"

    def rest(self) -> str:
        """What the route left open at the end of the path.

        Flask replaces bytes that are no UTF-8, so two bad names would meet; this reads them anew. The number
        of slashes in it is the same both ways, which finds the place where it begins.

        Raises:
            InvalidRequest: it is not UTF-8.
        """
        if self._rest.isascii():  # then there was nothing to replace
            return self._rest
        path = self.environ["PATH_INFO"].encode("latin-1")
        tail: bytes = path.split(b"/", path.count(b"/") - self._rest.count("/"))[-1]
        try:
            return tail.decode()
        except UnicodeDecodeError:
            raise InvalidRequest("the path is percent-encoded UTF-8, and this one is not") from None

    def query(self, *known: str) -> dict[str, str]:
        """The query's parameters, each at most once.

        Raises:
            InvalidRequest: one is unknown or given twice, or it is malformed.
        """
        text = self.environ.get("QUERY_STRING", "")
        if not text:
            return {}
        try:
            text = text.encode("latin-1").decode()
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
        except ValueError:
            raise InvalidRequest(
                "the query is name=value pairs of percent-encoded UTF-8, joined by &"
            ) from None
        for name, _ in pairs:
            if name not in known:
                knows = ", ".join(known) or "none"
                raise InvalidRequest(f"there is no query parameter {name[:50]!r} here (there is: {knows})")
        if len(parameters := dict(pairs)) < len(pairs):
            raise InvalidRequest("a query parameter is given twice")
        return parameters

    def json_object(self, example: str, most: int | None = None) -> dict[str, Any] | None:
        """The JSON object in the body, None if the body is empty.

        Args:
            example: a body that this address takes, for whoever sent something else.
            most: bytes; if left out, what the config says.

        Raises:
            HttpError: `too-large`, or `media-type`: it is not said to be JSON.
            InvalidRequest: it is no JSON object.
        """
        body = self.body(most)
        if not body:
            return None
        kind, _, parameter = self.environ.get("CONTENT_TYPE", "").lower().partition(";")
        known = (JSON, MERGE_PATCH) if self.method == "PATCH" else (JSON,)
        if kind.strip() not in known or parameter.strip().replace('"', "") not in _UTF8_ONLY:
            raise HttpError("media-type", f"send JSON and say so: {self.curl_json(example)}")
        value = strict_json.decode(body)
        if type(value) is not dict:
            raise InvalidRequest(f"the body is a JSON object, such as {example}")
        return value

    def body(self, most: int | None = None) -> bytes:
        """The body as it came, of *most* bytes or what the config says."""
        return read_body(self.environ, self.api.config.max_body if most is None else most)

    def curl_json(self, example: str) -> str:
        """The line that sends *example* here."""
        method = "" if self.method == "POST" else f"-X {self.method} "
        return self.curl(f"{method}--json '{example}'")

    def ask(self, op: AnyOp) -> Any:  # noqa: ANN401  (ops.RESULT_TYPES tells by the op)
        """What the store answers to *op*.

        Raises:
            CounterError: as the store says.
        """
        return self.execute([op]).only()

    def ask_any(self, ops: Sequence[AnyOp]) -> Any:  # noqa: ANN401  (as ask)
        """What the store answers to the one of *ops*, alike but for their `if_version`, whose version it is.

        No version is given twice, so when one of them was done, those after it cannot be.

        Raises:
            CounterError: as the store says; `VersionMismatch` if it is none of these versions.
        """
        if len(ops) == 1:
            return self.ask(ops[0])
        answers = self.execute([*ops], atomic=False).unwrap()
        decided = next((answer for answer in answers if not _is_mismatch(answer)), answers[0])
        if isinstance(decided, Problem):
            raise decided.error()
        return decided

    @property
    def left(self) -> float:
        """Seconds that the store may take: the timeout, without what the request has waited for a thread."""
        return self.api.config.timeout - self._waited

    def _seconds(self) -> float | None:
        """What the store is told: nothing, where nothing was waited, so that a timeout in its URL counts.

        Raises:
            StoreUnavailable: the time was over before the store could be asked.
        """
        if self._waited < _SOON:
            return None
        if self.left < SETTINGS["timeout"].least:
            raise StoreUnavailable("the time for a request was over before a thread was free for it")
        return self.left

    def execute(self, ops: list[AnyOp], atomic: bool = True) -> Reply:
        """What the store replies to *ops*, in one request."""
        for op in ops:  # a generator in any() takes three times as long
            if op.on_counter and op.name.startswith(HIDDEN):  # type: ignore[union-attr]
                raise InvalidRequest("names that begin with U+FDD0 are the service's own; take another name")
        request = Request(ops, atomic, idempotency_key=self.key, scope=self.token, request_id=self.id)
        reply = self.api.store.execute(request, self._seconds())
        self.replayed = reply.replayed
        return reply


def _is_mismatch(answer: Result) -> bool:
    return isinstance(answer, Problem) and answer.code == VersionMismatch.code


Handler = Callable[[Call], Answer]


def by_method(call: Call, methods: Mapping[str, Handler], hint: str = "") -> Answer:
    """What the handler of the request's method answers; *methods* are all that this address has.

    Raises:
        HttpError: `method-not-allowed`, with the `Allow` header and *hint*.
    """
    handler = methods.get("GET" if call.method == "HEAD" else call.method)
    if handler is not None:
        return handler(call)
    allow = ", ".join(f"{name}, HEAD" if name == "GET" else name for name in methods)
    headers = (("Allow", allow),)
    if call.method == "OPTIONS":
        return Answer(b"", 200, headers, "text/plain; charset=utf-8")
    raise HttpError("method-not-allowed", hint or f"this address takes {allow}", headers)


def integer(field: str, text: str) -> int:
    """The integer that *text*, a query parameter, stands for.

    Raises:
        InvalidRequest: naming *field*.
    """
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest(f"{field} is an integer such as 5 or -5, not {text[:30]!r}")
    return int(text)


def build(kind: type[T], fields: object) -> T:
    """*fields*, plain objects of a body, as what they are meant to be.

    Raises:
        InvalidRequest: saying where and why they are not.
    """
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(_sentence(str(exc), kind)) from exc


def _sentence(complaint: str, kind: type[msgspec.Struct]) -> str:
    """What msgspec says of fields for *kind*: the place in front, for people, with what there is."""
    match = _COMPLAINT.fullmatch(complaint)
    what, where = (match["what"], match["where"]) if match else (complaint, None)
    what = (
        what.replace("`", "").replace("Object contains", "there is an").replace("Object missing", "missing")
    )
    what = what[:1].lower() + what[1:200]
    if not where and "unknown field" in what:
        what += f" (there is: {', '.join(field for field in kind.__struct_fields__ if field != 'name')})"
    elif where and what.startswith("invalid") and (choices := _CHOICES.get(where.rpartition(".")[2])):
        what += f"; it is {', '.join(choices[:-1])} or {choices[-1]}"
    return f"{where}: {what}" if where else what
