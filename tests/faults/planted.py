"""Mistakes that a manager could make, planted into a real one: some scenario must find each of them.

Each is a FAULT for `launcher`: `--plant faults.planted:forget_callers`.
"""

import time

from msgspec.structs import replace

from counter.journal import Journal
from counter.keys import KeysOverlay
from counter.table import Turn

GAP_SECONDS = 0.005
"""Between writing and answering, where a kill is to come: without the mistake it does no harm there."""
LATE_OUTCOMES = 50


def forget_callers(_text):
    """A repeated request is executed again."""
    Turn._last = lambda turn, caller: None


def execute_late(_text):
    """A request is executed after its deadline."""
    real = Turn._repeated_or_late

    def never_late(turn, request, caller, ticks, seal):
        return real(turn, request, caller, min(ticks, request.deadline - 1), seal)

    Turn._repeated_or_late = never_late


def answer_otherwise(_text):
    """A repeated request is executed once, but its second answer is another one."""
    real = Turn._repeated_or_late

    def otherwise(turn, request, caller, ticks, seal):
        reply = real(turn, request, caller, ticks, seal)
        return reply and reply.replace(b".", b",", 1)

    Turn._repeated_or_late = otherwise


def ignore_keys(_text):
    """An idempotency key means nothing."""
    KeysOverlay.get = lambda keys, key: None


def answer_before_writing(_text):
    """What is told is written somewhat later."""
    real, waiting = Journal.append, []

    def append(journal, outcomes):
        waiting.extend(outcomes)
        if len(waiting) >= LATE_OUTCOMES:
            real(journal, waiting)
            waiting.clear()

    Journal.append = append


def write_no_callers(_text):
    """Who asked is remembered, but not in the journal."""
    _write_without(caller=None)


def write_no_keys(_text):
    """What was asked under which key is remembered, but not in the journal."""
    _write_without(key=None)


def _write_without(**fields):
    real = Journal.append

    def append(journal, outcomes):
        real(journal, [replace(outcome, **fields) for outcome in outcomes])
        time.sleep(GAP_SECONDS)

    Journal.append = append
