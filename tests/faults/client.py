"""One client process: threads that count, each with a diary, until stdin ends or they have counted enough.

    client URL FOLDER NAME THREADS CALLS PAUSE SEED FORKS FAULT …

A `counter://` URL is counted on with the library, an `http://` one with POSTs. By turns a thread counts on a
counter of its own, where a single loss shows, and on one that all share, where every number is told once.
PAUSE is the longest between two calls, in seconds. While the threads count, so many FORKS of the process
count a little, too, one after the other, with what it had opened. A FAULT is as `launcher` takes it.
"""

import os
import random
import sys
import threading

from faults.diary import Diary
from faults.http_caller import HttpCaller

SHARED = ("shared.0", "shared.1", "shared.2")
CALLS_OF_A_FORK = 20


class LibraryCaller:
    """Counts with the library; one for a process."""

    def __init__(self, url):
        import counter  # here, because a client by HTTP needs nothing of it

        self._counters = counter.connect(url)
        self._errors = counter.CounterError
        self._unknown = counter.OutcomeUnknown

    def increment(self, name, diary):
        """Make one call, and write into *diary* how it ended."""
        try:
            value = self._counters.increment(name)
        except self._unknown as error:
            diary.unknown(repr(error))
        except self._errors as error:
            diary.refused(repr(error))
        else:
            diary.acknowledged(value)


def count(caller, diary, own, calls, pause, chance, stop):
    for number in range(calls):
        if stop.is_set():
            return
        name = chance.choice(SHARED) if number % 2 else own
        diary.intend(name)
        try:
            caller.increment(name, diary)
        except Exception as error:  # noqa: BLE001  whatever a caller may meet is a finding, and the next call is due
            diary.unknown(repr(error))
        stop.wait(pause * chance.random())


def wait_for_end(stop):
    os.read(0, 1)
    stop.set()


def count_in_forks(caller, folder, name, forks, pause, seed):
    for number in range(forks):
        who = f"{name}.fork.{number}"
        child = os.fork()
        if not child:
            try:
                chance = random.Random(f"{seed} {who}")
                count(
                    caller,
                    Diary(folder, who),
                    f"own.{who}",
                    CALLS_OF_A_FORK,
                    pause,
                    chance,
                    threading.Event(),
                )
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"{who} ended with {status}"


def main(url, folder, name, threads, calls, pause, seed, forks, *faults):
    if faults:
        from faults.launcher import plant

        plant(faults)
    stop = threading.Event()
    threading.Thread(target=wait_for_end, args=[stop], daemon=True).start()
    library = None if url.startswith("http:") else LibraryCaller(url)
    crowd = []
    for number in range(int(threads)):
        who = f"{name}.{number}"
        caller = library or HttpCaller(url)
        chance = random.Random(f"{seed} {who}")
        arguments = [caller, Diary(folder, who), f"own.{who}", int(calls), float(pause), chance, stop]
        crowd.append(threading.Thread(target=count, args=arguments))
    for thread in crowd:
        thread.start()
    count_in_forks(library, folder, name, int(forks), float(pause), seed)
    for thread in crowd:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
