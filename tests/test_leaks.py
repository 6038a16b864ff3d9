"""A secret in any log of a run of tests fails that run, and is not shown."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import leaks
import pytest

from counter import tokens

TOKEN = tokens.PREFIX + "Planted-token_" + "0123456789" * 3  # of the form of what `tokens.make` makes
KEY = bytes(range(100, 132))
FORMS = {
    "token": TOKEN.encode(),
    "marker": leaks.MARKERS[0],
    "hex": KEY.hex().encode(),
    "HEX": KEY.hex().upper().encode(),
    "base64": base64.b64encode(KEY),
    "base64 for URLs": base64.urlsafe_b64encode(KEY),
    "raw": KEY,
    "latin-1": KEY.decode("latin-1").encode(),
    "repr": repr(KEY).encode(),
    "repr in JSON": repr(KEY).replace("\\", "\\\\").encode(),
}


def folder_with(tmp_path, data, name="log"):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "authkey").write_bytes(KEY)
    (tmp_path / name).write_bytes(data)
    found = leaks.search_folder(tmp_path)
    (tmp_path / name).unlink()  # or the run that this is part of would find it
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_a_secret_is_found_and_not_shown(tmp_path, form):
    (finding,) = folder_with(tmp_path, b"first\nit said " + form + b" here\n")
    assert (finding.line, finding.beginning.removesuffix("b'")) == (2, "it said ")
    assert str(tmp_path / "log") in str(finding)
    assert form.decode("latin-1") not in str(finding)


@pytest.mark.parametrize(
    "data",
    [
        b"counter_that_ended_is_gone_for_everyone_who_asks_for_it_later",
        b"counter_" + b"A" * 42,
        bytes(range(1, 33)).hex().encode(),
        b"x" * 100,
        b"",
        b"\0" + TOKEN.encode(),
    ],
)
def test_what_is_none_is_not(tmp_path, data):
    assert folder_with(tmp_path, data) == []


def test_a_key_file_a_journal_and_what_is_very_large_are_no_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "MOST_BYTES", 1000)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1.log").write_bytes(leaks.MARKERS[0])
    (tmp_path / "link").symlink_to("nowhere")
    assert folder_with(tmp_path, TOKEN.encode() + b"x" * 1000) == []


PLANTED = {
    "print": "print(SECRET)",
    "log": "logging.getLogger('a').warning(SECRET)",
    "file": "(tmp_path / 'stderr').write_text(SECRET)",
    "piped": "subprocess.run(['sh', '-c', f'echo {SECRET} >&2'], capture_output=True)",
    "nothing": "pass",
    "key": "(tmp_path / 'authkey').write_bytes(KEY); print(KEY.hex())",
}


@pytest.mark.process
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_run_in_which_it_happens_fails_and_says_where(tmp_path, workers):
    (tmp_path / "conftest.py").write_text(
        "import leaks\ndef pytest_configure(config): config.pluginmanager.register(leaks.Leaks(config))\n"
    )
    head = f"import logging, subprocess, sys\nSECRET = {TOKEN!r}\nKEY = {KEY!r}\n"
    tests = [f"def test_{name}(tmp_path):\n    {line}\n" for name, line in PLANTED.items()]
    (tmp_path / "test_it.py").write_text(head + "\n".join(tests))
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.getcwd()])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, "--basetemp", tmp_path / "base", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=tmp_path,
        timeout=100,
    )
    told = done.stdout
    assert done.returncode == 1, told
    assert "6 passed" in told
    assert TOKEN not in told
    for name in PLANTED.keys() - {"nothing"}:
        (line,) = [line for line in told.splitlines() if f"test_{name}" in line]
        assert ("the key of a home" if name == "key" else "a token") in line
    assert "test_nothing" not in told
    for path in (tmp_path / "base").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()
    (tmp_path / "test_it.py").unlink()
