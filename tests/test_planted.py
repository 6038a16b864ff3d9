"""Each mistake that can be planted in a manager or its clients is found, and nothing is found without it.

And the mistakes that `scripts/mutants` makes in the code are what they say.
"""

import ast
import re
from inspect import isfunction

import pytest
from faults import mutants, planted_clients, planted_files, planted_turns
from faults.mistakes import made, mistakes_in
from faults.planted import LONG, PLANTED, SOME_SEEDS
from faults.scenarios import SCENARIOS
from support import ROOT
from test_faults import run_faults


def long_if(true):
    return [pytest.mark.long] if true else []


def by_mistake():
    for each in PLANTED:
        yield pytest.param(each, marks=long_if(each.scenario in LONG), id=each.mistake.partition(":")[2])


def by_arguments():
    for arguments in dict.fromkeys(each.arguments for each in PLANTED):
        takes_long = arguments[0] in LONG or arguments[2] == str(SOME_SEEDS)
        yield pytest.param(arguments, marks=long_if(takes_long), id="-".join(arguments[:3:2]))


@pytest.mark.process
@pytest.mark.parametrize("each", [*by_mistake()])
def test_a_mistake_is_found(tmp_path, each):
    code, figures = run_faults(tmp_path, *each.arguments, *each.planting)
    assert code == 1
    assert figures["planted"] == [each.planting[1]]
    assert any(re.search(each.says, violation) for violation in figures["violations"]), figures


@pytest.mark.process
@pytest.mark.parametrize("arguments", [*by_arguments()])
def test_without_a_mistake_nothing_is_found(tmp_path, arguments):
    code, figures = run_faults(tmp_path, *arguments)
    assert (code, figures["violations"]) == (0, [])


def test_every_mistake_is_planted():
    written = {
        f"{module.__name__.rpartition('.')[2]}:{name}"
        for module in (planted_turns, planted_files, planted_clients)
        for name, value in vars(module).items()
        if isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }
    assert written == {each.mistake for each in PLANTED}
    assert {each.scenario for each in PLANTED} <= {*SCENARIOS}


# Mistakes in the code

CODE = """
'Docs.'
LIMIT: int = 2

def f(a, *, b: str = 'c'):
    'Docs.'
    logger.info('so and so', a)
    with lock:
        a = g(a, b)
    if not a and a < LIMIT:
        raise ValueError(f'no {a + 1}')
    try:
        return a
    except OSError:
        return None
"""
MADE = {
    "LIMIT: int = 3": "LIMIT: int = 2",
    "LIMIT: int = 1": "LIMIT: int = 2",
    "if True:": "with lock:",
    "a = g(b, a)": "a = g(a, b)",
    "pass": "a = g(a, b)",
    "if not a or a < LIMIT:": "if not a and a < LIMIT:",
    "if a and a < LIMIT:": "if not a and a < LIMIT:",
    "if not a and a <= LIMIT:": "if not a and a < LIMIT:",
    "if not a and a >= LIMIT:": "if not a and a < LIMIT:",
    "if False:": "if not a and a < LIMIT:",
    "return None": "return a",
    "raise": "return None",
}
"""A line, and in place of which."""


@pytest.fixture
def small_clone(tmp_path):
    (tmp_path / "counter").mkdir()
    (tmp_path / "counter" / "small.py").write_text(CODE)
    return tmp_path


def test_mistakes_are_made_in_what_the_code_does(small_clone):
    texts = [made(each, small_clone) for each in mistakes_in("small", small_clone)]
    lines = [told for _, told in texts]
    assert len({text for text, _ in texts}) == len(texts)
    for text, _ in texts:
        ast.parse(text)
        assert text != ast.unparse(ast.parse(CODE))
        assert "Docs." in text
        assert "so and so" in text
        assert "no {a + 1}" in text or "raise" not in text
    for mistaken, right in MADE.items():
        assert any(told.endswith(f": - {right}  + {mistaken}") for told in lines), mistaken


def test_the_tests_of_each_module_exist():
    for module, names in mutants.TESTS.items():
        assert (ROOT / "counter" / f"{module}.py").exists()
        assert [name for name in names if not (ROOT / "tests" / name).exists()] == []


@pytest.mark.long
@pytest.mark.process
def test_a_mistake_in_the_code_is_made_judged_and_told(capsys):
    lines = (ROOT / "counter" / "records.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "if crc != " in line)
    code = mutants.main(["records", "--line", f"{number}", "--seed", "1", "--count", "2", "--verbose"])
    said = capsys.readouterr().out
    assert code == 0
    assert said.count(f"killed: records.py:{number}: ") == 2
    assert "2 killed, 0 killed by time, 0 survived, 0 not run" in said
