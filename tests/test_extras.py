"""An import that fails: told by its extra if the package is missing, and as it is if it is broken."""

import subprocess
import sys

import pytest
from support import ROOT

from counter.extras import extra


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A package `brokenpackage`, whose own import fails as its text says."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "brokenpackage.py"
    sys.modules.pop("brokenpackage", None)


def test_a_missing_package_is_told_by_its_extra():
    with pytest.raises(ImportError) as caught, extra("nosuchpackage", needed_by="counter.odd"):
        import nosuchpackage  # noqa: F401
    needs = "counter.odd needs the package nosuchpackage, the extra counterd[nosuchpackage]"
    assert str(caught.value) == f"{needs}: pip install nosuchpackage"
    assert caught.value.name == "nosuchpackage"
    cause = caught.value.__cause__
    assert isinstance(cause, ModuleNotFoundError)
    assert cause.name == "nosuchpackage"


@pytest.mark.parametrize("text", ["import nosuchpackage", "from os import nothing", "import os.nothing"])
def test_a_package_that_is_there_and_broken_is_not_missing(broken, text):
    broken.write_text(text)
    with pytest.raises(ImportError) as caught, extra("brokenpackage", needed_by="counter.odd"):
        import brokenpackage  # noqa: F401
    assert "pip install" not in str(caught.value)
    assert caught.value.name != "brokenpackage"


def test_a_name_that_an_installed_package_does_not_have_is_not_the_package(broken):
    broken.write_text("")
    missing = pytest.raises(ImportError, match="cannot import name 'part'")
    with missing, extra("brokenpackage", needed_by="counter.odd"):
        from brokenpackage import part  # noqa: F401


def test_a_part_that_an_installed_package_does_not_have_is_not_the_package(broken):
    broken.write_text("")
    missing = pytest.raises(ModuleNotFoundError, match=r"brokenpackage\.part")
    with missing as caught, extra("brokenpackage", needed_by="counter.odd"):
        import brokenpackage.part  # noqa: F401
    assert "pip install" not in str(caught.value)


def test_what_can_be_imported_is():
    with extra("json", needed_by="counter.odd"):
        import json
    assert json.dumps(1) == "1"


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, *_):
        if name == "{0}":
            raise ModuleNotFoundError("No module named '{0}'", name=name)

sys.meta_path.insert(0, Without())
import counter.{0}
"""


@pytest.mark.parametrize("module", ["limits"])
def test_a_module_says_which_extra_it_needs(module):
    code = WITHOUT.format(module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    needs = f"counter.{module} needs the package {module}, the extra counterd[{module}]"
    assert done.stderr.splitlines()[-1] == f"ImportError: {needs}: pip install {module}"
