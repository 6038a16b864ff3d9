"""Says whether what was acknowledged and what is there in the end can both be true.

Every call adds 1 to one counter. It imports nothing of the package, so a mistake there cannot hide here.

The acknowledged calls on one counter with the final value f must have been told different numbers out of
1 … f. Each that was not is lost: it was told a number that another call has, or that the counter no longer
reaches. Each number that was told to nobody needs a call of unknown outcome; one more is doubled. So a loss
and a double show, although their sum is right. And in real time no call that began after another had ended
may have got a smaller number.
"""

from collections import defaultdict
from heapq import heappop, heappush
from operator import attrgetter
from typing import NamedTuple

ACKNOWLEDGED, UNKNOWN, REFUSED = "acknowledged", "unknown", "refused"
"""What became of a call; *refused*: its caller was told that nothing was applied."""


SENTENCES = 2
"""How many are told of one kind and one counter."""


class Call(NamedTuple):
    """One call of one client. Times are nanoseconds of CLOCK_MONOTONIC, one clock for all processes."""

    who: str
    name: str
    begun: int
    ended: int | None = None
    outcome: str = UNKNOWN
    value: int | None = None
    said: str = ""
    """What went wrong, of a call that failed."""
    refused_connections: int = 0
    broken_connections: int = 0

    @property
    def failed(self):
        """Whether its caller was told of an error."""
        return self.ended is not None and self.outcome != ACKNOWLEDGED

    def spans(self, begin, end):
        """Whether it was under way from *begin* to *end*."""
        return self.begun < begin and (self.ended is None or self.ended > end)


def in_flight(moments, calls):
    """Of the pairs (begin, end) in *moments*, how many are spanned by a call."""
    shortest = min((end - begin for begin, end in moments), default=0)
    long = [call for call in calls if call.ended is None or call.ended - call.begun > shortest]
    return sum(any(call.spans(*moment) for call in long) for moment in moments)


def slowest(calls):
    """The longest time that an outcome took, in seconds."""
    return round(max((call.ended - call.begun for call in calls if call.ended), default=0) / 1e9, 3)


class Verdict(NamedTuple):
    """What the calls and the final values come to; the *violations* are sentences."""

    acknowledged: int
    unknown: int
    lost: list[Call]
    doubled: int
    violations: list[str]


def check(calls, finals):
    """The verdict on all *calls* ever made and the final value of each counter, by name.

    A counter that is not in *finals* is 0.
    """
    by_name = defaultdict(list)
    for call in calls:
        by_name[call.name].append(call)
    verdicts = [_check_counter(name, by_name[name], finals.get(name, 0)) for name in sorted(by_name)]
    verdicts += [_from_nowhere(name, finals[name]) for name in sorted(finals.keys() - by_name.keys())]
    return Verdict(
        sum(verdict.acknowledged for verdict in verdicts),
        sum(verdict.unknown for verdict in verdicts),
        [call for verdict in verdicts for call in verdict.lost],
        sum(verdict.doubled for verdict in verdicts),
        [sentence for verdict in verdicts for sentence in verdict.violations],
    )


def _from_nowhere(name, final):
    sentence = f"{name}: the final value is {final}, and nobody ever counted there"
    return Verdict(0, 0, [], abs(final), [sentence])


def _check_counter(name, calls, final):
    told = [call for call in calls if call.outcome == ACKNOWLEDGED]
    unknown = sum(call.outcome == UNKNOWN for call in calls)
    holders, lost, violations = {}, [], []
    for call in sorted(told, key=attrgetter("ended")):
        if not 1 <= call.value <= final:
            lost.append(call)
            violations.append(f"{call.who} was told {call.value}, and the final value is {final}: lost")
        elif (other := holders.get(call.value)) is not None:
            lost.append(other)  # the later one is in the counter now, if any is
            violations.append(f"{call.value} was told twice, to {other.who} and {call.who}: one is lost")
            holders[call.value] = call
        else:
            holders[call.value] = call
    untold = max(final, 0) - len(holders)
    doubled = max(0, untold - unknown)
    violations = few(violations)
    if doubled:
        violations.append(
            f"{untold} of the numbers 1 to {final} were told to nobody, "
            f"and {unknown} calls have an unknown outcome: {doubled} doubled"
        )
    if final < 0:
        violations.append(f"the final value is {final}, and nobody ever subtracted")
    violations += few(_impossible(calls))
    violations += few(_stale(told))
    return Verdict(len(told), unknown, lost, doubled, [f"{name}: {sentence}" for sentence in violations])


def few(sentences):
    """The first of many sentences of one kind, and how many more there are."""
    sentences = [*sentences]
    more = len(sentences) - SENTENCES
    return [*sentences[:SENTENCES], f"and {more} more like this"] if more > 0 else sentences


def _impossible(calls):
    """Numbers that were told before so many calls had begun."""
    begun = sorted(call.begun for call in calls)
    at = 0
    for call in sorted((c for c in calls if c.outcome == ACKNOWLEDGED), key=attrgetter("ended")):
        while at < len(begun) and begun[at] < call.ended:
            at += 1
        if call.value > at:
            yield f"{call.who} was told {call.value} when {at} calls had begun: it came from nowhere"


def _stale(told):
    """Calls that began after another had ended, and got a smaller number."""
    ended = []  # a heap of those that began before, by their end
    greatest = None  # of those that have ended
    for call in sorted(told, key=attrgetter("begun")):
        while ended and ended[0][0] < call.begun:
            _, value, who = heappop(ended)
            if greatest is None or value > greatest[0]:
                greatest = value, who
        if greatest is not None and call.value < greatest[0]:
            value, who = greatest
            yield f"{call.who} was told {call.value} after {who} had been told {value}: stale"
        heappush(ended, (call.ended, call.value, call.who))
