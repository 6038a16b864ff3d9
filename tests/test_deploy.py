"""The files in `deploy/`: what they say, that this clone's commands take it, and that it works.

Neither systemd nor Docker runs here. The commands of units and services are started as they stand there, with
another folder, home and port.
"""

import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import click
import pytest
import yaml
from service_manager import service_manager
from support import COMMAND, ROOT, clean_environ, free_port, start_process, wait_until

from counter.cli import main
from counter.errors import InvalidRequest, StoreUnavailable
from counter.family import KILL_SECONDS
from counter.manager import DISK_FAILED

DEPLOY = ROOT / "deploy"
UNITS = ("counter.service", "counter-manager.service", "shop-web.service")
BIN = "/opt/shop/.venv/bin/"
HARDENING = "UMask"
"""The directive with which a unit's hardening begins."""


def unit(name):
    """The directives of a unit, by section; one that is given twice is an error."""
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def service(name):
    return unit(name)["Service"]


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def dockerfile():
    """The instructions of the Dockerfile: pairs of a word and the rest."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [tuple(line.split(maxsplit=1)) for line in text.replace("\\\n", "").splitlines() if line]


def instruction(word):
    (rest,) = [rest for found, rest in dockerfile() if found == word]
    return rest


def check_accepted(name, *args):
    """`counter NAME ARGS` is a command line of ours; nothing is run."""
    main.get_command(click.Context(main), name).make_context(name, list(args))


# -- systemd


@pytest.mark.parametrize("name", ["counter.service", "counter-manager.service"])
def test_our_command_takes_what_a_unit_starts(name):
    program, *args = shlex.split(service(name)["ExecStart"])
    assert program == BIN + "counter"
    check_accepted(*args)


def test_a_command_line_that_is_wrong_would_be_found():
    with pytest.raises(click.UsageError):
        check_accepted("run", "--worker", "0")
    with pytest.raises(InvalidRequest):
        check_accepted("workers", "app.py")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_waits_for_readiness_and_leaves_ending_to_the_main_process(name):
    found = service(name)
    assert (found["Type"], found["KillMode"], found["OOMPolicy"]) == ("notify", "mixed", "continue")
    assert int(found["TimeoutStopSec"]) >= 2 * KILL_SECONDS
    assert found["Restart"] == "on-failure"


@pytest.mark.parametrize("name", ["counter.service", "counter-manager.service"])
def test_a_unit_is_not_started_again_for_what_somebody_has_to_correct(name):
    codes = {int(code) for code in service(name)["RestartPreventExitStatus"].split()}
    assert codes == {InvalidRequest.exit_code, StoreUnavailable.exit_code}
    assert DISK_FAILED not in codes
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == "0"


def test_whoever_counts_is_the_same_user_with_the_same_home():
    assert len({service(name)["User"] for name in UNITS}) == 1
    assert len({service(name)["Environment"] for name in UNITS}) == 1
    assert not any("DynamicUser" in service(name) for name in UNITS)


@pytest.mark.parametrize("name", ["counter.service", "counter-manager.service"])
def test_the_home_is_the_folder_for_state_and_for_its_owner_alone(name):
    found = service(name)
    assert found["Environment"] == f"COUNTER_HOME=/var/lib/{found['StateDirectory']}"
    assert (found["StateDirectoryMode"], found["UMask"]) == ("0700", "0077")


def test_the_web_unit_wants_the_manager_and_does_not_fall_with_it():
    found = unit("shop-web.service")["Unit"]
    assert found["Wants"] == "counter-manager.service"
    assert "counter-manager.service" in found["After"].split()
    assert not found.keys() & {"Requires", "BindsTo", "PartOf"}


def test_all_units_are_hardened_alike():
    def hardening(name):
        items = [*service(name).items()]
        return dict(items[[key for key, _ in items].index(HARDENING) :])

    family, manager, web = map(hardening, UNITS)
    assert family == web
    assert len(family) > 20
    stricter = {key: value for key, value in manager.items() if family.get(key) != value}
    assert stricter == {
        "MemoryDenyWriteExecute": "yes",
        "PrivateNetwork": "yes",
        "RestrictAddressFamilies": "AF_UNIX",
    }
    assert family.keys() <= manager.keys()


def test_the_commands_of_the_page_install_what_is_there():
    page = (ROOT / "docs/deploying.md").read_text()
    blocks = dict(
        re.findall(r"^<!-- test: file ([\w-]+\.sh) -->\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    files = re.findall(r"(?<=[ ])deploy/\S+", " ".join(blocks.values()))
    assert {path.name for path in DEPLOY.iterdir() if path.is_file()} == {Path(name).name for name in files}
    for name, units in {"one-unit.sh": UNITS[:1], "two-units.sh": UNITS[1:]}.items():
        (started,) = re.findall(r"^systemctl enable --now (.*)$", blocks[name], re.MULTILINE)
        assert [f"{each}.service" for each in started.split()] == list(units)
        assert all(f" deploy/{each} " in blocks[name] for each in units)
    for program in re.findall(rf"{BIN}(\w+)", "".join(service(name)["ExecStart"] for name in UNITS)):
        assert program == "counter" or f"{BIN}pip install {program}\n" in blocks["two-units.sh"]


def analyze(folder, *args):
    """What `systemd-analyze` says to the units in *folder*, whose programs are those of a small system."""
    if not shutil.which("systemd-analyze"):
        assert not os.environ.get("CI"), "systemd-analyze is missing"
        pytest.skip("systemd-analyze is missing")
    environ = clean_environ(SYSTEMD_UNIT_PATH=f"{folder}:", SYSTEMD_COLORS="0")
    command = ["systemd-analyze", *args, *(str(folder / name) for name in UNITS)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def units(tmp_path):
    """A folder with the units; verify asks for programs that exist."""
    for name in UNITS:
        text = re.sub(rf"^ExecStart={BIN}\w+", "ExecStart=/bin/sh", (DEPLOY / name).read_text(), flags=re.M)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.process
def test_systemd_finds_nothing_to_object_to(units):
    assert analyze(units, "verify", "--man=no") == (0, "")
    with (units / "counter.service").open("a") as file:
        file.write("[Service]\nKillMod=mixed\n")
    assert "KillMod" in analyze(units, "verify", "--man=no")[1]


@pytest.mark.process
def test_systemd_calls_the_hardening_good(units):
    """Exposure 2.0 of 10 at most; a unit without any hardening has 9.6."""
    code, said = analyze(units, "security", "--offline=true", "--threshold=20", "--no-pager")
    assert code == 0, said


# -- Docker


@pytest.mark.parametrize("name", SERVICES)
def test_our_command_takes_what_a_service_starts(name):
    program, *args = SERVICES[name]["command"]
    assert program == "counter"
    check_accepted(*args)


def test_our_command_takes_what_the_image_starts():
    program, *args = json.loads(instruction("CMD"))  # this form hands signals to the program, not to a shell
    assert program == "counter"
    check_accepted(*args)


def test_the_health_check_is_a_command_of_ours():
    kind, program, name, *args = SERVICES["manager"]["healthcheck"]["test"]
    assert (kind, program, name) == ("CMD", "counter", "ping")
    check_accepted(name, *args)
    seconds = float(args[args.index("--timeout") + 1])
    assert seconds < float(SERVICES["manager"]["healthcheck"]["timeout"].removesuffix("s"))


def test_both_services_are_the_same_user_in_the_same_volume():
    """The server and its client check each other's user; a socket is found through one folder."""
    for word in ("image", "build", "user", "volumes", "environment"):
        assert SERVICES["manager"][word] == SERVICES["web"][word]
    (volume,) = SERVICES["web"]["volumes"]
    name, _, path = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert path == SERVICES["web"]["environment"]["COUNTER_HOME"]
    assert path == instruction("VOLUME") == dict([instruction("ENV").split("=")])["COUNTER_HOME"]


def test_the_image_has_that_user_and_a_home_for_it_alone():
    user = SERVICES["web"]["user"]
    uid, _, gid = user.partition(":")
    assert instruction("USER") == user and uid == gid
    (made,) = [rest for word, rest in dockerfile() if word == "RUN" and "useradd" in rest]
    assert f"--uid {uid} " in made
    assert re.search(r"install --directory --owner (\w+) --group \1 --mode 0700 /var/lib/shop$", made)
    words = [word for word, _ in dockerfile()]
    assert words.index("VOLUME") > words.index("RUN") and words.index("USER") < words.index("CMD")


def test_what_the_image_copies_is_there():
    copies = [rest.split() for word, rest in dockerfile() if word == "COPY"]
    assert [source for *sources, _ in copies for source in sources if not (ROOT / source).exists()] == []
    build = SERVICES["manager"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little_and_has_time_to_end(name):
    found = SERVICES[name]
    assert found["read_only"] and found["init"] and found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert float(found["stop_grace_period"].removesuffix("s")) >= 2 * KILL_SECONDS


def test_only_this_host_reaches_the_web_service_which_waits_for_the_manager():
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["web"]["ports"])
    assert SERVICES["web"]["depends_on"] == {"manager": {"condition": "service_healthy"}}
    assert SERVICES["manager"]["network_mode"] == "none"


# -- for real


@pytest.fixture
def place(tmp_path):
    """A folder for the app, and for the state a folder as systemd makes it: empty, and its owner's alone."""
    (tmp_path / "app").mkdir()
    shutil.copy(DEPLOY / "app.py", tmp_path / "app")
    (tmp_path / "state").mkdir(0o700)
    return tmp_path


def start(place, command, environ=None):
    """*command* in its folder; a program is this clone's."""
    program, *args = command
    programs = {"counter": COMMAND, "gunicorn": [sys.executable, "-m", "gunicorn"]}
    environ = {"COUNTER_HOME": str(place / "state"), "HOME": "/nonexistent"} | (environ or {})
    return start_process([*programs[program.removeprefix(BIN)], *args], environ, place / "app")


def exec_start(name):
    return shlex.split(service(name)["ExecStart"])


def hit(where):
    with urllib.request.urlopen(urllib.request.Request(f"{where}/hit", method="POST"), timeout=20) as answer:
        return json.load(answer)["hits"]


@pytest.mark.process
def test_the_family_unit_gets_ready_reloads_ends_and_goes_on_where_it_was(place):
    command = [*exec_start("counter.service"), "--port", "0"]
    with service_manager() as told, start(place, command, told.environ) as process:
        told.wait_for("READY")
        where = process.line("ready").split()[1]
        assert [hit(where), hit(where)] == [1, 2]
        reload = service("counter.service")["ExecReload"].replace("$MAINPID", str(process.pid))
        subprocess.run(shlex.split(reload), check=True)
        told.wait_for("READY", "RELOADING", "READY")
        assert hit(where) == 3
        assert process.stop() == 0
        told.wait_for("READY", "RELOADING", "READY", "STOPPING")
    with start(place, command) as process:
        assert hit(process.line("ready").split()[1]) == 4
        assert process.stop() == 0
    assert stat.S_IMODE((place / "state").stat().st_mode) == 0o700


@pytest.mark.process
def test_the_two_units_count_together_and_the_manager_can_be_restarted_alone(place):
    port = free_port()
    gunicorn = [arg.replace(":8000", f":{port}") for arg in exec_start("shop-web.service")]
    where = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        of_manager, of_web = (stack.enter_context(service_manager()) for _ in range(2))
        command = exec_start("counter-manager.service")
        manager = stack.enter_context(start(place, command, of_manager.environ))
        of_manager.wait_for("READY")
        web = stack.enter_context(start(place, gunicorn, of_web.environ))
        wait_until(lambda: "READY" in of_web.states)
        assert [hit(where) for _ in range(3)] == [1, 2, 3]
        assert manager.stop() == 0
        stack.enter_context(start(place, command)).line("ready")
        assert [hit(where) for _ in range(3)] == [4, 5, 6]
        assert web.stop() == 0


HEADERS_APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    names = "REMOTE_ADDR wsgi.url_scheme HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_PROTO HTTP_X_REAL_IP".split()
    return [repr([environ.get(name) for name in names]).encode()]
"""


@pytest.mark.process
def test_of_what_a_proxy_adds_an_app_sees_x_real_ip_alone(place):
    """As the page on deploying says."""
    (place / "app/app.py").write_text(HEADERS_APP)
    with start(place, ["counter", "run", "app:app", "--workers", "1", "--port", "0"]) as process:
        added = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Real-IP": "192.0.2.7"}
        request = urllib.request.Request(process.line("ready").split()[1], headers=added)
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.read().decode() == repr(["127.0.0.1", "http", None, None, "192.0.2.7"])


@pytest.mark.process
def test_the_services_of_compose_count_together_and_the_health_check_tells_the_truth(place):
    def is_healthy():
        with start(place, SERVICES["manager"]["healthcheck"]["test"][1:]) as ping:
            return ping.wait() == 0

    loopback = {"0.0.0.0": "127.0.0.1"}
    web = [loopback.get(arg, arg) for arg in SERVICES["web"]["command"]]
    assert not is_healthy()
    with start(place, SERVICES["manager"]["command"]) as manager:
        wait_until(is_healthy)
        with start(place, [*web, "--port", "0"]) as process:
            where = process.line("ready").split()[1]
            assert [hit(where), hit(where)] == [1, 2]
            assert process.stop() == 0
        assert manager.stop() == 0
    assert not is_healthy()
