"""Mistakes that a manager could make in a turn, or in what it remembers of callers and keys."""

import time

from msgspec.structs import replace

from counter import table
from counter.callers import CallersOverlay
from counter.connections import Connections
from counter.journal import Journal
from counter.keys import KeysOverlay
from counter.ops import Increment
from counter.results import Reply
from counter.server import ManagerServer
from counter.table import Turn
from counter.wire import decode_reply, encode_reply

EARLY_SECONDS = 1.0
GAP_SECONDS = 0.005
"""Between answering and writing, where a kill is to come: without the mistake it does no harm there."""


def forget_callers(_text):
    """A repeated request is executed again."""
    CallersOverlay.last = lambda callers, caller: None


def forget_callers_early(_text):
    """A caller is forgotten a second before its deadline."""
    real = Turn.sweep

    def sweep(turn, ticks, most=table.SWEEP):
        return real(turn, ticks + EARLY_SECONDS, most)

    Turn.sweep = sweep


def execute_late(_text):
    """A request is executed after its deadline."""
    real = Turn.settled

    def never_late(turn, request, ticks, seal):
        return real(turn, request, min(ticks, request.deadline - 1), seal)

    Turn.settled = never_late


def answer_otherwise(_text):
    """A repeated request is executed once, but its second answer is another one."""
    real = Turn._repeated_or_late

    def otherwise(turn, request, last, ticks, seal):
        return real(turn, request, last, ticks, seal).replace(b".", b",", 1)

    Turn._repeated_or_late = otherwise


def ignore_keys(_text):
    """An idempotency key means nothing."""
    KeysOverlay.get = lambda keys, key: None


def merge_before_writing(_text):
    """What came out of a turn is seen by all, and then it cannot be written down."""
    real = Turn.commit

    def commit(turn, append):
        outcomes, turn._outcomes = turn._outcomes, []
        real(turn, append)
        if outcomes:
            append(outcomes)

    Turn.commit = commit


def answer_before_the_turn_ends(_text):
    """Each answer is sent as soon as it is made; a kill then finds some told and nothing written."""
    asked, send, append = ManagerServer._asked, Connections.send, Journal.append
    sent = set()

    def answered_early(manager, connection, payload):
        found = asked(manager, connection, payload)
        if found is None:
            return None
        request, seal = found

        def seal_and_send(reply):
            sealed = seal(reply)
            send(manager._connections, connection, sealed)
            sent.add((connection, sealed))
            return sealed

        return request, seal_and_send

    def send_once(crowd, connection, payload):
        if (connection, payload) in sent:
            sent.remove((connection, payload))
        else:
            send(crowd, connection, payload)

    def append_later(journal, outcomes):
        time.sleep(GAP_SECONDS)
        append(journal, outcomes)

    ManagerServer._asked, Connections.send = answered_early, send_once
    Journal.append = append_later


def read_after_the_turn(_text):
    """An answer shows the counter as it is after the turn, with what others have made of it."""
    execute, send, told = Turn.execute, Connections.send, {}

    def note(turn, request, ticks, seal):
        sealed = execute(turn, request, ticks, seal)
        if isinstance(request.ops[0], Increment):
            told[sealed] = turn._table, request.ops
        return sealed

    def send_as_it_is_now(crowd, connection, sealed):
        if sealed in told:
            entries, ops = told[sealed][0].entries, told.pop(sealed)[1]
            change = decode_reply(sealed, ops).only()
            sealed = encode_reply(Reply([replace(change, value=entries[change.name].value)]))
        send(crowd, connection, sealed)

    Turn.execute, Connections.send = note, send_as_it_is_now
