"""A counter's value as it was read by `counters[name]`, which remembers what is added to it."""

from __future__ import annotations


class Reading(int):
    """The value of *name* in a `SharedCounter`; `+=` and `-=` on it remember what is added.

    Assigned back to the same counter and name it sends that delta, once; anywhere else it is a plain number.
    """

    _counter: object  # who is asked for the same one again, and nothing else
    _name: str
    _delta: int | None

    @classmethod
    def of(cls, value: int, counter: object, name: str, delta: int | None = None) -> Reading:
        """*value*, read from *name* of *counter*, with *delta* added since."""
        reading = cls(value)
        reading._counter, reading._name, reading._delta = counter, name, delta
        return reading

    def __iadd__(self, delta: int) -> Reading:
        if not isinstance(delta, int):  # a bool counts, as for every int
            return NotImplemented
        total = int(delta) + (self._delta or 0)
        return Reading.of(int(self) + int(delta), self._counter, self._name, total)

    def __isub__(self, delta: int) -> Reading:
        if not isinstance(delta, int):
            return NotImplemented
        return self.__iadd__(-int(delta))

    def take_delta(self, counter: object, name: str) -> int | None:
        """What is to be added to *name* of *counter* for it; None if it is a plain value there."""
        if counter is not self._counter or name != self._name:
            return None
        delta, self._delta = self._delta, None
        return delta

    def give_back(self, delta: int) -> None:
        """*delta*, once taken, was not applied."""
        self._delta = delta

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)
