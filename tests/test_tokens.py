"""Tokens: the file that holds them, who may do what with which, and how the command makes one."""

import hashlib
import hmac
import logging
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import flask
import pytest
from click.testing import CliRunner
from web_client import Api, Client

from counter import tokens
from counter.cli import main
from counter.errors import InvalidRequest
from counter.tokens import PREFIX, Token, TokenFile, add, make
from counter.web import api_blueprint, authorization, create_app
from counter.web.app import OWN_ROUTES, ROUTES
from counter.web.openapi import document


def fixed(letter, name, scope):
    """A token as `make` makes them, but the same in each process: names of tests are made of it."""
    text = PREFIX + 43 * letter
    return text, Token(scope, name, hashlib.sha256(text.encode()).digest())


READ, READER = fixed("r", "watcher", "read")
WRITE, WRITER = fixed("w", "shop", "write")
OTHER, STRANGER = fixed("o", "stranger", "write")


@pytest.fixture
def file(tmp_path):
    """A file with a token for each scope."""
    path = tmp_path / "tokens"
    add(path, READER)
    add(path, WRITER)
    return path


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def written(path, content):
    path.write_text(content)
    path.chmod(0o600)
    return path


def settle(path):
    """Let *path* look as if it was changed long ago: what is told by its stamp is then what is tested."""
    stamp = TokenFile(path)._stamp
    end = time.monotonic() + 5
    while stamp() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


# -- a token


def test_a_token_is_long_random_plain_in_a_header_and_can_be_recognized():
    made = {make("a", "read")[0] for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"counter_[A-Za-z0-9_-]{43}", text) for text in made)


def test_its_line_has_its_scope_its_name_and_its_sha256():
    text, token = make("a.b-c_9", "write")
    assert str(token) == f"write a.b-c_9 {hashlib.sha256(text.encode()).hexdigest()}"


@pytest.mark.parametrize("name", ["", "a b", "a#", "a\n", "é", "a/b", "x" * 65])
def test_a_name_is_a_word(name):
    with pytest.raises(InvalidRequest, match="a token's name"):
        make(name, "read")


# -- the file


def test_each_token_of_the_file_is_found_and_no_other(file):
    known = TokenFile(file)
    assert (known.find(READ), known.find(WRITE)) == (READER, WRITER)
    for text in (
        OTHER,
        "",
        READ[:-1],
        READ + "=",
        READ.upper(),
        WRITER.digest.hex(),
        "\udcff\ud800",
        "é" * 9999,
    ):
        assert known.find(text) is None


def test_the_file_is_made_for_its_owner_alone_and_holds_no_token(file):
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == f"{READER}\n{WRITER}\n"
    assert READ not in file.read_text()


def test_white_space_comments_and_capitals_do_not_matter(tmp_path):
    content = (
        f"# ours\r\n\n  read\t watcher  {READER.digest.hex().upper()} # of the dashboard\r\n\t\n#{WRITER}"
    )
    known = TokenFile(written(tmp_path / "tokens", content))
    assert known.find(READ) == READER
    assert known.find(WRITE) is None


def test_one_that_lacks_its_last_newline_gets_it(file):
    written(file, str(READER))
    add(file, WRITER)
    assert TokenFile(file).find(READ) and TokenFile(file).find(WRITE)


def test_a_file_without_tokens_lets_nobody_in(tmp_path):
    assert TokenFile(written(tmp_path / "tokens", "# later\n")).find(READ) is None


@pytest.mark.parametrize(
    "line",
    [
        "read watcher",
        f"admin watcher {'0' * 64}",
        f"READ watcher {'0' * 64}",
        f"read watcher {'0' * 63}",
        f"read watcher {'g' * 64}",
        f"read watcher {'0' * 64} x",
        f"read a b {'0' * 64}",
        f"read watcher {WRITE}",
        WRITE,
        f"read {'x' * 65} {'0' * 64}",
        "\xff",
    ],
)
def test_a_line_that_is_none_is_named_by_its_number_and_not_shown(tmp_path, line):
    path = tmp_path / "tokens"
    path.write_bytes(f"# first\n{READER}\n{line}\n".encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(InvalidRequest, match=f"^{path}, line 3: not `read|write NAME SHA256HEX`") as told:
        TokenFile(path)
    assert line.split()[-1] not in str(told.value)
    with pytest.raises(InvalidRequest, match="line 3"):
        add(path, WRITER)


def test_a_token_that_stands_there_twice_is_a_mistake(file):
    with file.open("a") as opened:
        opened.write(f"read again {WRITER.digest.hex()}\n")
    with pytest.raises(InvalidRequest, match="line 3: this token stands in a line before"):
        TokenFile(file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_file_that_others_can_open_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(InvalidRequest, match=f"mode {mode:04o}.*chmod 600"):
        TokenFile(file)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        add(file, READER)
    file.chmod(0o400)
    assert TokenFile(file).find(READ)


def test_a_file_of_another_user_is_refused(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InvalidRequest, match=r"belongs to user .*chown"):
        TokenFile(file)


def test_what_is_no_file_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(
        InvalidRequest, match=r"cannot read the tokens in .*/none: `counter token NAME --scope"
    ):
        TokenFile(tmp_path / "none")
    with pytest.raises(InvalidRequest, match="is not a regular file"):
        TokenFile(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(InvalidRequest, match="is not a regular file"):
        TokenFile(tmp_path / "fifo")
    with pytest.raises(InvalidRequest, match=r"cannot write the tokens in .*: No such file or directory"):
        add(tmp_path / "none/tokens", READER)
    with pytest.raises(InvalidRequest, match="is larger than 65536 bytes"):
        TokenFile(written(tmp_path / "large", "#" * 65537))


def test_a_link_to_the_file_will_do(file, tmp_path):
    (tmp_path / "link").symlink_to(file)
    assert TokenFile(tmp_path / "link").find(READ) == READER


# -- a file that changes


def test_what_changes_in_the_file_counts_from_the_next_request(file):
    known = TokenFile(file)
    for _ in range(3):
        assert known.find(OTHER) is None
        add(file, STRANGER)
        assert known.find(OTHER) == STRANGER
        written(file, f"{READER}\n{WRITER}\n")
    new = written(file.with_name("new"), f"{STRANGER}\n")
    new.rename(file)
    assert known.find(OTHER) == STRANGER
    assert known.find(READ) is None
    written(file, "")
    assert known.find(OTHER) is None


def test_a_change_of_the_same_length_and_moment_counts(file, monkeypatch):
    real = Path.stat

    def coarse(path, **options):  # as a kernel tells it whose clock ticks a hundred times a second
        found, ns = real(path, **options), 10_000_000
        names = ("st_dev", "st_ino", "st_size", "st_ctime")
        values = {name: getattr(found, name) for name in names}
        return SimpleNamespace(**values, st_ctime_ns=found.st_ctime_ns // ns * ns)

    monkeypatch.setattr(Path, "stat", coarse)
    known = TokenFile(file)
    for _ in range(200):
        for text, token, other in ((READ, READER, OTHER), (OTHER, STRANGER._replace(scope="read"), READ)):
            file.write_text(str(token).ljust(100, " "))
            assert known.find(text) and not known.find(other)


def test_a_file_that_stays_is_not_read_again(file, monkeypatch):
    settle(file)
    known = TokenFile(file)
    monkeypatch.setattr(tokens, "_load", lambda _path: pytest.fail("it was read"))
    assert known.find(READ) == READER


BREAKS = {
    "gone": lambda path: path.unlink(),
    "open": lambda path: path.chmod(0o644),
    "broken": lambda path: path.write_text("what?\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "half written": lambda path: path.write_text(f"{READER}\n{WRITER}"[:-1]),
}


def test_a_token_that_was_removed_is_refused_once_the_file_can_be_read_again(file, monkeypatch):
    """As with no descriptor left for a moment: the file does not change when that is over."""
    monkeypatch.setattr(TokenFile, "_stamp", lambda tokens: (tokens.path.stat().st_ino,))  # as long after
    known = TokenFile(file)
    file.with_name("next").write_text(f"{WRITER}\n")
    file.with_name("next").chmod(0o600)
    file.with_name("next").replace(file)
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "open", lambda *_args, **_kwargs: (_ for _ in ()).throw(OSError(24, "no file left"))
        )
        assert known.find(READ) == READER
    assert known.find(READ) is None
    assert known.find(WRITE) == WRITER


@pytest.mark.parametrize("harm", BREAKS.values(), ids=BREAKS)
def test_a_file_that_cannot_be_read_any_more_keeps_the_tokens_and_is_logged_once(file, harm, caplog):
    known = TokenFile(file)
    harm(file)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert known.find(READ) == READER
            assert known.find(OTHER) is None
    (record,) = caplog.records
    assert record.getMessage().startswith("the tokens before stay in force: ")
    assert record.levelname == "ERROR"
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    add(file, STRANGER)
    with caplog.at_level(logging.INFO):
        assert known.find(OTHER) == STRANGER
    assert known.find(READ) is None
    assert caplog.records[-1].getMessage() == f"the tokens in {file} were read again: there are 1"


def test_a_token_is_compared_with_all_of_them_whichever_it_is(file, monkeypatch):
    add(file, STRANGER)
    known = TokenFile(file)
    compared, real = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    for text in (READ, WRITE, OTHER, "none"):
        compared.clear()
        known.find(text)
        assert compared == [READER.digest, WRITER.digest, STRANGER.digest]


# -- who may do what


@pytest.fixture
def api(file):
    api = Api(COUNTER_TOKENS=file)
    api.put("a", 10)
    return api


OPEN = {"/livez", "/readyz", "/openapi.json", "/problems/not-found"}
CLOSED = ["/", "/metrics", "/v1/counters", "/v1/counters/a", "/v1/changes", "/v1/events?limit=1", "/v1/info"]
CLOSED += [
    "/nope",
    "/v1/nope",
    "/v1/counters/%FF",
    "/v1/counters/a/increment",
    "/livez/",
    "/v1/batch",
]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "BREW"]


def test_every_address_is_either_open_or_closed_here():
    served = {re.sub("<.*>", "{}", path) for path in ROUTES | OWN_ROUTES}
    told = {re.sub(r"/(not-found|a|nope)\b", "/{}", path.partition("?")[0]) for path in [*OPEN, *CLOSED]}
    assert served - told == set()


@pytest.mark.parametrize("path", sorted(OPEN))
def test_probes_and_what_tells_how_to_ask_are_open(api, path):
    for headers in ({}, bearer(OTHER), bearer(READ)):
        assert api.ask("GET", path, headers=headers).status == 200
    for method in UNSAFE:
        assert api.ask(method, path).status == 405


@pytest.mark.parametrize("path", CLOSED)
def test_all_else_is_closed_before_it_is_looked_at(api, path):
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", *UNSAFE):
        answer = api.refuse(401, "unauthorized", method, path)
        assert answer.headers["www-authenticate"] == 'Bearer realm="counter"'
        answer = api.refuse(401, "unauthorized", method, path, headers=bearer(OTHER))
        assert answer.headers["www-authenticate"] == 'Bearer realm="counter", error="invalid_token"'
        if method in UNSAFE:
            answer = api.refuse(403, "forbidden", method, path, headers=bearer(READ))
            challenge = 'Bearer realm="counter", error="insufficient_scope", scope="write"'
            assert answer.headers["www-authenticate"] == challenge
        else:
            for text in (READ, WRITE):
                assert Client.ask(api, method, path, headers=bearer(text)).status in (200, 400, 404, 405)
    assert api.seen()["a"].value == 10


def test_a_token_that_may_write_changes_and_reads(api):
    assert api.ask("POST", "/v1/counters/a/increment", headers=bearer(WRITE)).value == 11
    assert api.ask("GET", "/v1/counters/a", headers=bearer(WRITE)).value == 11
    ops = {"ops": [{"op": "increment", "name": "a"}]}
    assert api.ask("POST", "/v1/batch", ops, bearer(WRITE)).json["results"][0]["value"] == 12
    assert api.ask("DELETE", "/v1/counters/a", headers=bearer(WRITE)).status == 200


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        ("", ""),
        ("Bearer", ', error="invalid_token"'),
        ("Bearer ", ', error="invalid_token"'),
        (f"Basic {WRITE}", ""),
        (WRITE, ""),
        (f"Bearer{WRITE}", ""),
        (f"Bearer\t{WRITE}", ""),
        (f'Bearer "{WRITE}"', ', error="invalid_token"'),
        (f"Bearer {WRITE}, Bearer {WRITE}", ', error="invalid_token"'),
        (f"Bearer {OTHER}, Bearer {WRITE}", ', error="invalid_token"'),
        (f"Bearer {WRITE} x", ', error="invalid_token"'),
        (f"Bearer {WRITE}\xff", ', error="invalid_token"'),
        (f"Bearer {WRITER.digest.hex()}", ', error="invalid_token"'),
        ("Bearer " + "x" * 30000, ', error="invalid_token"'),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_token(api, header, challenge):
    answer = api.refuse(
        401, "unauthorized", "POST", "/v1/counters/a/increment", headers={"Authorization": header}
    )
    assert answer.headers["www-authenticate"] == f'Bearer realm="counter"{challenge}'
    assert WRITE.encode() not in answer.body


@pytest.mark.parametrize("kind", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_has_any_case(api, kind):
    headers = {"Authorization": kind + WRITE}
    assert api.ask("POST", "/v1/counters/a/increment", headers=headers).status == 200


def test_a_token_in_the_url_or_in_the_body_is_none(api):
    for name in ("token", "access_token", "_token"):
        api.refuse(401, "unauthorized", "GET", f"/v1/counters/a?{name}={WRITE}")
        api.refuse(401, "unauthorized", "POST", "/v1/counters/a/increment", {"access_token": WRITE})
        assert api.ask("GET", f"/v1/counters/a?{name}={WRITE}", headers=bearer(READ)).status == 400


def test_host_and_site_come_before_the_token_and_the_token_before_all_else(api):
    path = "/v1/counters/%FF/increment?x=1"
    bad = {"Host": "evil.example", "Sec-Fetch-Site": "cross-site", "Idempotency-Key": "\x7f"}
    sent = {"Content-Type": "text/plain", "Content-Length": "x"}
    api.refuse(421, "host-not-allowed", "POST", path, b"{", bad | sent)
    del bad["Host"]
    api.refuse(403, "cross-site", "POST", path, b"{", bad | sent)
    del bad["Sec-Fetch-Site"]
    api.refuse(401, "unauthorized", "POST", path, b"{", bad | sent)
    api.refuse(403, "forbidden", "POST", path, b"{", bad | sent | bearer(READ))
    api.refuse(400, "invalid-request", "POST", path, b"{", bad | sent | bearer(WRITE))


def test_a_token_does_not_open_the_door_to_pages_of_other_sites(api):
    headers = bearer(WRITE) | {"Sec-Fetch-Site": "cross-site"}
    api.refuse(403, "cross-site", "POST", "/v1/counters/a/increment", headers=headers)


def test_what_needs_a_token_does_not_ask_the_store_without_one(file):
    class Untouched:
        def execute(self, request, timeout=None):
            raise AssertionError("it was asked")

    client = Client(Untouched(), app=create_app(Untouched(), COUNTER_TOKENS=file))
    for path in CLOSED:
        for method in ("GET", *UNSAFE):
            assert client.ask(method, path).status == 401
            assert client.ask(method, path, headers=bearer(OTHER)).status == 401


def test_metrics_can_be_opened(file):
    open_ = Api(COUNTER_TOKENS=file, COUNTER_OPEN_METRICS=True)
    assert open_.ask("GET", "/metrics").status == 200
    open_.refuse(401, "unauthorized", "GET", "/v1/counters")
    api = Api(COUNTER_TOKENS=file, COUNTER_OPEN_METRICS="0")
    api.refuse(401, "unauthorized", "GET", "/metrics")
    assert api.ask("GET", "/metrics", headers=bearer(READ)).status == 200
    with pytest.raises(InvalidRequest, match="COUNTER_OPEN_METRICS is 1 or 0, not 'perhaps'"):
        create_app(COUNTER_OPEN_METRICS="perhaps")


def test_each_name_has_idempotency_keys_of_its_own_and_keeps_them_when_its_token_is_replaced(api, file):
    renewed, token = make(WRITER.name, "write")
    add(file, token)
    add(file, STRANGER)
    path, key = "/v1/counters/paid/increment", {"Idempotency-Key": "evt_1"}
    assert api.ask("POST", path, headers=key | bearer(WRITE)).value == 1
    again = api.ask("POST", path, headers=key | bearer(renewed))
    assert (again.value, again.headers["idempotent-replayed"]) == (1, "true")
    other = api.ask("POST", path, headers=key | bearer(OTHER))
    assert (other.value, "idempotent-replayed" in other.headers) == (2, False)


def test_without_tokens_a_token_does_no_harm_and_keys_have_no_scope():
    api = Api()
    path, key = "/v1/counters/paid/increment", {"Idempotency-Key": "evt_1"}
    assert api.ask("POST", path, headers=key | bearer("whatever")).value == 1
    assert api.ask("POST", path, headers=key).headers["idempotent-replayed"] == "true"


# -- the settings


def test_the_file_is_named_by_the_config_or_the_environment(file, monkeypatch, tmp_path):
    path = "/v1/counters"
    for given in (file, str(file)):
        assert Client(app=create_app(COUNTER_TOKENS=given)).ask("GET", path).status == 401
    monkeypatch.setenv("COUNTER_TOKENS", str(file))
    monkeypatch.setenv("COUNTER_OPEN_METRICS", "yes")
    app = create_app(COUNTER_URL="memory://")
    assert Client(app=app).ask("GET", path).status == 401
    assert Client(app=app).ask("GET", "/metrics").status == 200
    assert Client(app=create_app(COUNTER_URL="memory://", COUNTER_TOKENS="")).ask("GET", path).status == 200
    monkeypatch.chdir(tmp_path)
    app = create_app(COUNTER_TOKENS="tokens")
    monkeypatch.chdir("/")
    add(file, STRANGER)
    assert app.extensions["counter_api"].config.tokens.find(OTHER) == STRANGER


@pytest.mark.parametrize("given", [5, ["a"], True])
def test_what_is_no_path_is_a_mistake_of_the_config(given):
    with pytest.raises(InvalidRequest, match="COUNTER_TOKENS is the path of a file"):
        create_app(COUNTER_TOKENS=given)


def test_an_app_without_its_file_does_not_start(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot read the tokens in"):
        create_app(COUNTER_TOKENS=tmp_path / "none")


def test_a_blueprint_goes_by_the_config_of_its_app_which_keeps_its_own_rules(file):
    app = flask.Flask("shop")
    app.config |= {"COUNTER_URL": "memory://tokens", "COUNTER_TOKENS": str(file)}
    app.register_blueprint(api_blueprint(), url_prefix="/counts")
    app.add_url_rule("/", view_func=lambda: "welcome")
    client = Client(app=app)
    assert client.ask("GET", "/").body == b"welcome"
    assert client.ask("GET", "/counts/livez").status == 200
    path = "/counts/v1/counters/a/increment"
    assert [client.ask("POST", path, headers=h).status for h in ({}, bearer(READ), bearer(WRITE))] == [
        401,
        403,
        200,
    ]


def test_a_blueprint_whose_file_is_missing_answers_nobody(tmp_path, caplog):
    app = flask.Flask("shop")
    app.config |= {"COUNTER_URL": "memory://tokens", "COUNTER_TOKENS": str(tmp_path / "none")}
    app.register_blueprint(api_blueprint())
    client = Client(app=app)
    for _ in range(2):
        assert client.ask("GET", "/v1/counters").status == 500
    assert "cannot read the tokens" in caplog.text


# -- the document


def test_the_document_says_which_token_each_operation_needs(file, api):
    plain = document()
    assert not [part for item in plain["paths"].values() for part in item.values() if "security" in part]
    told = api.ask("GET", "/openapi.json").json
    assert told == document(has_tokens=True)
    scheme = told["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, item in told["paths"].items():
        address = (
            path.replace("{name}", "a").replace("{code}", "not-found").replace("events", "events?limit=1")
        )
        for method in item.keys() - {"parameters"}:
            answer = api.ask(method.upper(), address)
            needs = item[method].get("security")
            assert (answer.status == 401) == (needs is not None), path
            if needs:
                (scopes,) = [scopes for need in needs for scopes in need.values()]
                status = Client.ask(api, method.upper(), address, headers=bearer(READ)).status
                assert (status == 403) == (scopes == ["write"])
                assert {"401", *(["403"] if scopes == ["write"] else [])} <= item[method]["responses"].keys()


def test_the_document_knows_of_open_metrics():
    needs = document(has_tokens=True, open_metrics=True)["paths"]
    assert "security" not in needs["/metrics"]["get"]
    assert "security" in needs["/v1/info"]["get"]
    assert needs.keys() >= authorization.OPEN


# -- the command


def run(*arguments, **environ):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environ)


def test_the_command_prints_the_token_once_and_adds_its_line_to_the_file(file):
    result = run("token", "deploy", "--scope", "write", "--tokens", file)
    assert result.exit_code == 0
    text = result.stdout.strip()
    assert TokenFile(file).find(text)[:2] == ("write", "deploy")
    assert result.stderr == f"this is the only time that it is shown; its line is in {file}\n"
    assert text not in file.read_text()
    assert file.read_text().startswith(f"{READER}\n{WRITER}\n")


def test_the_command_makes_the_file(tmp_path):
    path = tmp_path / "new"
    result = run("token", "a", "--scope", "read", COUNTER_TOKENS=str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert TokenFile(path).find(result.stdout.strip())[:2] == ("read", "a")


def test_without_a_file_the_command_tells_the_line(tmp_path):
    result = run("token", "a", "--scope", "read")
    line = result.stderr.partition("for the file of --tokens: ")[2]
    assert TokenFile(written(tmp_path / "tokens", line)).find(result.stdout.strip()).name == "a"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a"], "Missing option '--scope'"),
        (["a", "--scope", "admin"], "'admin' is not one of 'read', 'write'"),
        (["a b", "--scope", "read"], "a token's name has"),
        (["a", "--scope", "read", "--tokens", "/"], "cannot write the tokens in /"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, sentence):
    result = run("token", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_the_command_adds_nothing_to_a_file_that_is_none(tmp_path):
    path = written(tmp_path / "notes", "remember the milk\n")
    assert run("token", "a", "--scope", "read", "--tokens", path).exit_code == 2
    assert path.read_text() == "remember the milk\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tokens", "none"], "cannot read the tokens in"),
        (["--tokens", ""], "--tokens takes the path of a file"),
        (["--bind", "0.0.0.0"], "add --tokens FILE, which `counter token` makes, or --insecure if"),
        (["--bind", "::"], "--bind :: lets everyone in who can reach this host"),
        (["app:app", "--bind", "0.0.0.0"], "add --insecure if that is meant; who may ask app:app is its own"),
        (["app:app", "--bind", "0.0.0.0", "--tokens", "tokens"], "who may ask app:app is its own"),
    ],
)
@pytest.mark.parametrize("name", ["run", "workers"])
def test_what_others_can_reach_does_not_start_without_tokens(file, monkeypatch, name, arguments, sentence):
    monkeypatch.chdir(file.parent)
    result = run(name, *arguments, "--port", "0", "--workers", "1", "--home", file.parent / "home")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_the_environment_names_the_file_too_and_what_is_wrong_with_it_is_told_at_once(file):
    file.chmod(0o644)
    result = run("run", "--port", "0", "--home", file.parent / "home", COUNTER_TOKENS=str(file))
    assert result.exit_code == 2
    assert "chmod 600" in result.stderr
