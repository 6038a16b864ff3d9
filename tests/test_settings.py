"""Every setting once: its names, its range, where it comes from."""

import pytest

from counter.errors import InvalidRequest
from counter.settings import SETTINGS, VERSION, host_names, number

CONTRACT = {  # name: (flag, default)
    "max_counters": ("--max-counters", 1_000_000),
    "max_frame": ("--max-frame", 1024 * 1024),
    "max_body": ("--max-body", 64 * 1024),
    "timeout": ("--timeout", 10),
    "threads": ("--threads", 8),
}
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


def test_the_limits_and_their_defaults_are_the_contracts():
    found = {name: (SETTINGS[name].flag, SETTINGS[name].default) for name in CONTRACT}
    assert found == CONTRACT


@every_setting
def test_a_setting_is_known_by_its_own_name(setting):
    assert SETTINGS[setting.name] is setting
    assert setting.variable == "COUNTER_" + setting.flag.removeprefix("--").replace("-", "_").upper()
    assert setting.help.endswith(".")


@every_setting
def test_the_range_is_closed_and_holds_the_default(setting):
    for value in (setting.least, setting.default, setting.most):
        assert setting.parse(str(value)) == value
        assert type(setting.parse(str(value))) is type(setting.default)


@every_setting
def test_what_lies_outside_or_is_no_number_is_refused_by_the_name_it_came_under(setting):
    step = 1 if isinstance(setting.default, int) else 0.001
    for text in (
        str(setting.least - step),
        str(setting.most + step),
        "",
        "many",
        "nan",
        "inf",
        "1e",
        "0x10",
        "-",
    ):
        with pytest.raises(InvalidRequest, match=setting.variable):
            setting.parse(text)
    with pytest.raises(InvalidRequest, match=f"{setting.flag} is a number from"):
        setting.parse("many", setting.flag)


@pytest.mark.parametrize("value", [8.5, float("inf"), float("nan"), True, None, [8], "8.0"], ids=repr)
def test_a_whole_number_is_never_made_of_something_else(value):
    """A Flask app's config holds Python objects."""
    with pytest.raises(InvalidRequest, match="COUNTER_THREADS"):
        SETTINGS["threads"].parse(value)


def test_a_number_that_is_one_already_is_taken():
    assert SETTINGS["threads"].parse(4) == 4
    assert SETTINGS["timeout"].parse(4) == 4.0
    assert SETTINGS["timeout"].parse("0.5") == 0.5


def test_the_environment_comes_before_the_default(monkeypatch):
    assert number("threads") == 8
    monkeypatch.setenv("COUNTER_THREADS", "3")
    assert number("threads") == 3
    assert number("threads", {}) == 8
    assert number("threads", {"COUNTER_THREADS": "5"}) == 5
    with pytest.raises(InvalidRequest, match="COUNTER_THREADS"):
        number("threads", {"COUNTER_THREADS": "0"})


@pytest.mark.parametrize(
    "given", ["A.example., b.example", "a.example\nb.example,", ["a.example", "B.example"]]
)
def test_names_of_hosts_are_a_list_or_one_text(given):
    assert host_names(given) == {"a.example", "b.example"}
    assert host_names("") == frozenset()


def test_what_is_no_name_of_a_host_is_refused_with_where_it_was_said():
    with pytest.raises(InvalidRequest, match=r"--allow-host takes names .* not 'a:80'"):
        host_names(["a:80"], "--allow-host")
    with pytest.raises(InvalidRequest, match="COUNTER_ALLOW_HOSTS takes names"):
        host_names("http://a/")


def test_the_version_is_one():
    assert [part.isdigit() for part in VERSION.split(".")] == [True] * 3
