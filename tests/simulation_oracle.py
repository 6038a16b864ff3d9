"""The judge of a simulation: it sees each answer as plain data, and shares no code with what it judges.

After each turn it keeps the whole state that the answers add up to. What a manager finds when it starts must
be one of those: the last after a kill, any that was not yet safe after a power cut.
"""

from typing import NamedTuple

NOTHING_DONE = {"store-unavailable", "journal-full", "outcome-unknown", "key-reused", "invalid-request"}
"""Codes under which nothing is executed and nothing is remembered."""


class Violation(AssertionError):
    """A promise that was not kept."""


class State(NamedTuple):
    """What was told, added up."""

    values: dict  # name: (value, when it ends)
    callers: dict  # caller: (seq, answer, latest deadline)
    keys: dict  # key: answer without its last byte, the mark

    def copy(self):
        return State(dict(self.values), dict(self.callers), dict(self.keys))


def must(condition, sentence):
    if not condition:
        raise Violation(sentence)


class Oracle:
    """`history` has the state after each turn, the first is empty; those up to `safe` may not be lost."""

    def __init__(self, always):
        self._always = always
        self.history = [State({}, {}, {})]
        self.safe = 1
        self._shown = 1  # states of which somebody was told
        self._draft = None
        self._power = False
        self._unsure = 0  # whether the last state may have been written down, or not
        self._in_turn = []
        self._acknowledged = set()
        self._answers = {}  # what an answer is part of: the length of history with it
        self.lost = 0

    # -- a turn

    def begin(self):
        """A turn begins."""
        self._draft = self.history[-1].copy()
        self._in_turn = []
        self._refused = False

    def answered(self, caller, seq, deadline, key, ticks, now, sealed, plain, code, replayed, steps):
        """Judge one answer; it is told after `committed`."""
        draft = self._draft
        self._in_turn.append(sealed)
        last = draft.callers.get(caller) if caller else None
        if last is not None and seq <= last[0]:
            if seq == last[0]:
                kept, what = sealed == last[1], f"another answer to the same request {seq}"
            else:
                kept, what = (
                    code == "invalid-request",
                    f"request {seq} after {last[0]} is answered with {code}",
                )
            if kept:
                return
            must(ticks >= last[2], what)  # then it may be forgotten
        if caller and deadline <= ticks:
            must(code == "outcome-unknown", f"past its deadline, and answered with {code}")
            return
        must(not caller or code != "outcome-unknown", "refused before its deadline")
        if code in NOTHING_DONE:
            if code == "key-reused":
                must(key in draft.keys, "a key was not used before")
            return
        if caller:
            latest = max(deadline, last[2]) if last else deadline
            draft.callers[caller] = (seq, sealed, latest)
        if key in draft.keys:
            must(replayed and plain == draft.keys[key], f"another answer under the key {key}")
            return
        must(not replayed, f"an answer under the key {key} that nobody got before")
        if key:
            draft.keys[key] = plain
        for step in steps:
            self._apply(draft.values, now, *step)

    def _apply(self, values, now, kind, name, extra, result, end):
        value, ends = values.get(name, (0, None))
        if ends is not None and ends <= now:
            value = 0
        expected = {"Increment": lambda: value + extra, "Set": lambda: extra}.get(kind, lambda: value)()
        must(result == expected, f"{kind} of {name}: {result}, and {expected} is right")
        must(not name.startswith("op:") or result == 1, f"{name} is counted twice")
        if kind == "Delete":
            del values[name]
        elif kind != "Get":
            values[name] = (result, end)

    def refused(self):
        """The turn was not written down: nothing of it happened, and nothing told now is remembered."""
        self.begin()
        self._refused = True

    def committed(self):
        """What was answered since `begin` is as safe as the mode makes it, and may be told."""
        if not self._refused:
            self.history.append(self._draft)
        self._draft = None
        for sealed in self._in_turn:
            self._answers[sealed] = len(self.history)
        if self._always:
            self.safe = len(self.history)

    def is_safe(self, length):
        """The first *length* states can be lost no more."""
        self.safe = max(self.safe, length)

    def told(self, names, done, sealed):
        """A caller has an answer."""
        self._shown = max(self._shown, self._answers.get(sealed, 0))
        if done:
            self._acknowledged.update(name for name in names if name.startswith("op:"))

    # -- an end and what is found

    def ended(self, power):
        self._power = self._power or power
        if self._draft is not None:
            self.history.append(self._draft)
            self._draft = None
            self._unsure = 1

    def found(self, values, callers, keys, now, ticks):
        """Judge what a start has found."""
        least = self.safe if self._power else len(self.history) - self._unsure
        must(not callers or not self._power, "callers of another boot are remembered")
        seen = _alive(values, now)
        plain = {key: sealed[:-1] for key, sealed in keys.items()}
        for length in range(len(self.history), 0, -1):
            expected = self._expected(self.history[length - 1], now, ticks)
            if (seen, callers, plain) == expected:
                break
        else:
            last = self._expected(self.history[-1], now, ticks)
            pairs = zip(("counters", "callers", "keys"), (seen, callers, plain), last, strict=True)
            told = [
                f"{what}: {found}, and last were {there}" for what, found, there in pairs if found != there
            ]
            raise Violation(f"a state that never was: {'; '.join(told)}")
        must(length >= least, f"state {length} of {len(self.history)} is found, and {least} were safe")
        if self._always or not self._power:
            must(length >= self._shown, f"state {length} is found, and {self._shown} was shown")
        self._forget(length)

    def _expected(self, state, now, ticks):
        """What a start finds of *state*."""
        callers = {
            caller: (seq, sealed)
            for caller, (seq, sealed, end) in state.callers.items()
            if end > ticks and not self._power
        }
        return _alive(state.values, now), callers, state.keys

    def _forget(self, length):
        """What a power cut took, nobody may hold us to."""
        gone = {name for state in self.history[length:] for name in state.values} - set(
            self.history[length - 1].values
        )
        self._acknowledged -= gone
        self.lost += len(gone)
        del self.history[length:]
        if self._power:
            self.history[-1].callers.clear()
        self.safe = length
        self._shown = min(self._shown, length)
        self._power = False
        self._unsure = 0

    def finish(self):
        """Judge the whole, by what callers were told alone."""
        values = self.history[-1].values
        missing = sorted(self._acknowledged - set(values))
        must(not missing, f"acknowledged and not there: {missing}")


def _alive(values, now):
    return {name: (value, end) for name, (value, end) in values.items() if end is None or end > now}
