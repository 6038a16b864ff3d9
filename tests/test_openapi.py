"""The OpenAPI document: it tells exactly what the API does, and each of its examples is what happens."""

import json
import re
from functools import cache

import flask
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from web_client import Api, Client

from counter.errors import HTTP_PROBLEMS, STORE_ERRORS, InvalidRequest, OutcomeUnknown, StoreUnavailable
from counter.fields import MAX_NAME, check_name
from counter.store import Store
from counter.stores.memory import MemoryStore
from counter.web import api_blueprint, create_app
from counter.web.app import OWN_ROUTES, ROUTES
from counter.web.conditions import parse_tags
from counter.web.counters import _VERBS
from counter.web.idempotency import parse_key
from counter.web.openapi import document
from counter.web.schemas import KEY, TAGS

METHODS = ("get", "put", "post", "patch", "delete")
MADE_UP = {"version", "created_at", "updated_at"}
DOCUMENT = document()
OPERATIONS = [
    (path, method, item[method])
    for path, item in DOCUMENT["paths"].items()
    for method in METHODS
    if method in item
]
every_operation = pytest.mark.parametrize(
    ("path", "method", "operation"),
    OPERATIONS,
    ids=[operation["operationId"] for *_, operation in OPERATIONS],
)


def resolved(part):
    """*part*, or what it refers to."""
    while "$ref" in part:
        found = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def walk(part):
    """Every object in the document below *part*."""
    if isinstance(part, dict):
        yield part
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from walk(child)


def address(path):
    """*path* with the examples of its parameters."""
    return path.replace("{name}", "page").replace("{code}", "not-found")


@cache
def validator(schema):
    return OAS31Validator(json.loads(schema) | {"components": DOCUMENT["components"]})


def check(value, schema):
    validator(json.dumps(schema)).validate(value)


def api_with_a_page():
    api = Api()
    api.put("page", 41)
    return api


# -- the document as such


@pytest.mark.slow
def test_it_is_valid():
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_operations_have_names_of_their_own():
    names = [operation["operationId"] for *_, operation in OPERATIONS]
    assert sorted(names) == sorted(set(names))


def test_whatever_it_refers_to_is_there_and_is_used():
    referred = {part["$ref"] for part in walk(DOCUMENT) if isinstance(part.get("$ref"), str)}
    for reference in referred:
        resolved({"$ref": reference})
    kinds = DOCUMENT["components"].keys() - {"securitySchemes"}  # which are named, not referred to
    there = {f"#/components/{kind}/{name}" for kind in kinds for name in DOCUMENT["components"][kind]}
    mapped = {place for part in walk(DOCUMENT) for place in part.get("mapping", {}).values()}
    # what every address answers to a method that it does not have, or the store never says over HTTP
    unused = {"#/components/responses/Problem405", "#/components/responses/Problem501"}
    assert there - referred - mapped == unused


def test_links_lead_to_operations():
    names = {operation["operationId"]: path for path, _, operation in OPERATIONS}
    links = [link for part in walk(DOCUMENT) for link in part.get("links", {}).values()]
    assert links
    for link in links:
        assert all(f"{{{parameter}}}" in names[link["operationId"]] for parameter in link["parameters"])


def test_it_is_served_as_it_is():
    answer = Api().ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == DOCUMENT == document()
    assert answer.body == Api().ask("GET", "/openapi.json").body


@pytest.mark.parametrize("prefix", ["/shop", "/deep/er"])
def test_mounted_in_another_app_it_tells_where(prefix):
    app = flask.Flask("shop")
    app.config["COUNTER_URL"] = "memory://openapi"
    app.register_blueprint(api_blueprint(), url_prefix=prefix)
    told = Client(app=app).ask("GET", f"{prefix}/openapi.json").json
    assert told["servers"] == [{"url": prefix}]
    assert set(DOCUMENT["paths"]) - set(told["paths"]) == {"/"}
    assert told | {"servers": DOCUMENT["servers"], "paths": DOCUMENT["paths"]} == DOCUMENT
    for path in told["paths"]:
        assert Client(app=app).ask("OPTIONS", prefix + address(path)).status == 200, path


# -- the same addresses and methods as the app's


def served():
    """The paths of the app's url_map, as the document writes them, without those where nothing is."""
    nowhere = {path for path, handler in (ROUTES | OWN_ROUTES).items() if handler.__name__ == "_nowhere"}
    rules = {rule.rule for rule in create_app(MemoryStore()).url_map.iter_rules()}
    assert rules == set(ROUTES | OWN_ROUTES)
    for rule in rules - nowhere:
        if rule.startswith("/v1/counters/"):
            yield from ("/v1/counters/{name}", *(f"/v1/counters/{{name}}/{verb}" for verb in _VERBS))
        else:
            yield re.sub("<.*>", "{code}", rule)


def test_it_has_the_addresses_of_the_app_and_no_others():
    assert sorted(DOCUMENT["paths"]) == sorted(set(served()))


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_it_has_the_methods_of_each_address_and_no_others(path):
    answer = api_with_a_page().ask("OPTIONS", address(path))
    assert answer.status == 200
    allowed = {method.strip().lower() for method in answer.headers["allow"].split(",")}
    told = {method for method in DOCUMENT["paths"][path] if method != "parameters"}
    assert told == allowed - {"head"}
    assert ("head" in allowed) == ("get" in told)
    for method in {*METHODS, "trace", "brew"} - told:
        refused = api_with_a_page().ask(method.upper(), address(path))
        assert (refused.status, refused.headers["allow"]) == (405, answer.headers["allow"])


# -- what is answered is what is told


def ask(api, path, method, operation, body=None, headers=(), query=""):
    sent = dict(headers)
    content = b""
    if body is not None:
        kind, content = body
        sent["Content-Type"] = kind
    if path == "/v1/events":
        query = query or "?limit=1"
    answer = Client.ask(api, method.upper(), address(path) + query, content, sent)
    check_told(answer, operation)
    return answer


def check_told(answer, operation):
    """The answer's status, headers, type and body are in the document."""
    assert str(answer.status) in operation["responses"], answer
    told = resolved(operation["responses"][str(answer.status)])
    for name, header in told.get("headers", {}).items():
        header = resolved(header)
        assert name.lower() in answer.headers or not header["required"], name
        if name.lower() in answer.headers:
            check(answer.headers[name.lower()], header["schema"])
    special = {"etag", "location", "vary", "allow", "retry-after", "idempotent-replayed"}
    assert special & set(answer.headers) <= {name.lower() for name in told.get("headers", {})}
    if "content" not in told:
        assert not answer.body
        return
    kind = answer.headers["content-type"].partition(";")[0]
    schema = told["content"][kind]["schema"]
    if kind.endswith("json"):
        check(answer.json, schema)
    elif kind == "text/event-stream":
        message = dict(re.findall(rb"^(id|data): (.*)$", answer.body, re.MULTILINE))
        event = {name.decode(): value.decode() for name, value in message.items()}
        check(event, schema)
        check(json.loads(event["data"]), schema["properties"]["data"]["contentSchema"])
    else:
        check(answer.body.decode(), schema)


def bodies(operation):
    """Each media type with its example, as it is sent."""
    content = operation.get("requestBody", {}).get("content", {})
    return [(kind, told["example"]) for kind, told in content.items()] or [None]


@every_operation
def test_each_example_is_what_happens(path, method, operation):
    for body in bodies(operation):
        if body is not None:
            check(body[1], operation["requestBody"]["content"][body[0]]["schema"])
        answer = ask(api_with_a_page(), path, method, operation, body)
        assert answer.status == 200
        content = operation["responses"]["200"]["content"]
        told = content.get(answer.headers["content-type"].partition(";")[0], {})
        if "example" in told:
            check(told["example"], told["schema"])
            assert plain(answer.json) == plain(told["example"])


def plain(value):
    """Without what is made up in examples."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in MADE_UP}
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", DOCUMENT["components"]["parameters"])
def test_each_example_of_a_parameter_is_valid(name):
    parameter = DOCUMENT["components"]["parameters"][name]
    if "example" in parameter:
        check(parameter["example"], parameter["schema"])


@every_operation
def test_each_answer_has_the_fields_that_are_told_and_no_others(path, method, operation):
    answer = ask(api_with_a_page(), path, method, operation, bodies(operation)[0])
    schema = (
        operation["responses"]["200"]["content"].get(answer.headers["content-type"], {}).get("schema", {})
    )
    if path != "/openapi.json" and answer.headers["content-type"] == "application/json":
        check_fields(answer.json, schema)


def check_fields(value, schema):
    schema = resolved(schema)
    options = [resolved(option) for option in schema.get("anyOf", [])]
    if isinstance(value, list):
        for item in value:
            check_fields(item, schema["items"])
    elif isinstance(value, dict):
        fitting = [
            option for option in options or [schema] if value.keys() <= option.get("properties", {}).keys()
        ]
        assert fitting, (value.keys(), schema)
        for name, part in value.items():
            check_fields(part, fitting[0]["properties"][name])


class Failing(Store):
    def __init__(self, error):
        self.error = error

    def execute(self, request, timeout=None):
        raise self.error

    def close(self):
        pass


@every_operation
@pytest.mark.parametrize("error", [StoreUnavailable("gone"), OutcomeUnknown("late")], ids=["503", "504"])
def test_a_store_that_fails_is_told(path, method, operation, error):
    api = Client(Failing(error))
    ask(api, path, method, operation, bodies(operation)[0], {"Idempotency-Key": "k"})
    ask(api, path, method, operation, bodies(operation)[0])


@every_operation
def test_whatever_is_refused_is_told(path, method, operation):
    api = api_with_a_page()
    body = bodies(operation)[0]
    ask(api, path, method, operation, body, {"Host": "elsewhere.example"})
    ask(api, path, method, operation, body, {"Sec-Fetch-Site": "cross-site"})
    ask(api, path, method, operation, body, {"If-Match": '"never"'})
    ask(api, path, method, operation, body, {"If-Match": "?"})
    ask(api, path, method, operation, body, {"If-None-Match": "*"})
    ask(api, path, method, operation, body, query="?colour=red&limit=1")
    ask(api, path, method, operation, ("text/plain", b"x"))
    ask(api, path, method, operation, ("application/json", b"x" * 2**21))
    for _ in range(2):
        ask(api, path, method, operation, body, {"Idempotency-Key": "again"})
    ask(api, path, method, operation, ("application/json", b"[]"), {"Idempotency-Key": "again"})
    missing = Api()
    ask(missing, path, method, operation, body)
    full = Client(MemoryStore(max_counters=0))
    ask(full, path, method, operation, body)


def test_every_error_is_told_with_its_codes():
    told = {}
    for response in DOCUMENT["components"]["responses"].values():
        _, narrowed = response["content"]["application/problem+json"]["schema"]["allOf"]
        for code in narrowed["properties"]["code"]["enum"]:
            told[code] = narrowed["properties"]["status"]["const"]
            assert f"`{code}`" in response["description"]
    assert told == {code: error.status for code, error in (STORE_ERRORS | HTTP_PROBLEMS).items()}


# -- patterns say what the code checks


def agrees(pattern, parse, text):
    try:
        parse(text)
    except InvalidRequest:
        accepted = False
    else:
        accepted = True
    assert accepted == (re.fullmatch(pattern, text) is not None)


@given(st.text('*"W/, \tab\xe4') | st.from_regex(TAGS["pattern"], fullmatch=True))
@example('"a", "b"')
@example(',\t,"a" ,W/"b"\t, ')
@example('"a" "b"')
@example("*, *")
def test_the_pattern_of_tags_is_what_the_parser_takes(text):
    agrees(TAGS["pattern"], lambda text: parse_tags("If-Match", text), text)


@given(st.text('"\\, ab\xe4', max_size=8) | st.from_regex(KEY["pattern"], fullmatch=True))
def test_the_pattern_of_keys_is_what_the_parser_takes(text):
    if text == text.strip(" \t"):  # no server hands those on
        agrees(KEY["pattern"], parse_key, text)


def test_the_patterns_have_the_same_characters_as_the_parsers():
    for character in map(chr, range(0x20, 0x180)):
        agrees(TAGS["pattern"], lambda text: parse_tags("If-Match", text), f'"a{character}"')
        agrees(KEY["pattern"], parse_key, f"a{character}b")
        agrees(KEY["pattern"], parse_key, f'"{character}"')


def test_the_schema_of_names_is_what_the_code_takes():
    schema = DOCUMENT["components"]["parameters"]["Name"]["schema"]
    assert (schema["minLength"], schema["maxLength"]) == (1, MAX_NAME)
    for text in [*map(chr, range(0x300)), "a b", "a\x9fb", "\x80a", "\U0001f600"]:
        agrees(schema["pattern"], check_name, text)
