"""What a program does that has nothing of this project: a client of multiprocessing.managers.

Run as `python stock_client.py SOCKET KEYFILE TASK [ARGS]`, by any Python from 3.9 on; it prints the result of
the task as JSON.
"""

import json
import multiprocessing.managers
import multiprocessing.pool
import sys


class Manager(multiprocessing.managers.BaseManager):
    """As the README tells it."""


Manager.register("counters")


def connect(address, key_file):
    with open(key_file, "rb") as file:
        manager = Manager(address=address, authkey=file.read())
    manager.connect()
    return manager.counters()


def raised(call, *args, **kwds):
    """The name and the text of the exception that the call ends with."""
    try:
        return ["returned", call(*args, **kwds)]
    except Exception as error:  # noqa: BLE001  whatever it is is told
        return [type(error).__name__, str(error.args[0])]


def verbs(c):
    """Each verb, in its plainest use."""
    done = {"empty": [len(c), list(c), c.keys(), c.items(), "a" in c, c["a"], c.get("a"), c.get("a", 7)]}
    done["increment"] = [c.increment("a"), c.increment("a", 5), c.increment("a", -1)]
    done["decrement"] = [c.decrement("a"), c.decrement("a", 2), c.decrement("a", delta=2)]
    done["increment by name"] = [c.increment("a", delta=9), c.get("a")]
    done["set"] = [c.set("b", 5), c.set("b", -(2**63)), c.set("b", 2**63 - 1)]
    c["c"] = 5
    done["items"] = [c["c"], c["nope"], "c" in c, "nope" in c]
    done["delete"] = [c.delete("b"), "b" in c]
    del c["c"]
    del c["c"]  # silent
    done["del"] = ["c" in c]
    c.update({"x": 2, "y": -3})
    c.update(["x", "x", "z"])
    c.update(("z",))
    c.update(x=10, w=1)
    c.update({"v": 1}, v=1)
    c.update({})
    c.update()
    done["listings"] = [
        len(c),
        list(c),
        sorted(c, reverse=True),
        c.keys(),
        c.items(),
        dict(c.items()),
    ]
    done["text"] = [str(c), f"{c}", repr(c).count("\n"), bool(c)]
    for name in ("\u00fc\u00f1\u00ee \u2603", "\U0001f600", "a/b?c=d", "x" * 250):
        c[name] = 1
    done["unicode"] = [
        c.increment("\U0001f600"),
        c.get("\u00fc\u00f1\u00ee \u2603"),
        "x" * 250 in c,
        list(c)[-1],
    ]
    return done


def errors(c):
    """What is refused, as the exceptions that arrive."""
    c["a"] = 1
    return {
        "missing": raised(c.delete, "nope"),
        "overflow": raised(c.increment, "a", 2**63 - 1),
        "too large": raised(c.increment, "a", 2**63),
        "no int": raised(c.increment, "a", 1.5),
        "bool": raised(c.set, "a", True),
        "no name": raised(c.increment, ""),
        "control": raised(c.set, "a\nb", 1),
        "number as name": raised(c.get, 1),
        "too long": raised(c.increment, "x" * 251),
        "unknown option": raised(c.increment, "a", colour="red"),
        "too few": raised(c.set, "a"),
        "too many": raised(c.get, "a", 1, 2),
        "an object": raised(c.update, multiprocessing.managers.Namespace()),
        "a set": raised(c.update, {"a"}),
        "half an update": raised(c.update, {"b": 1, "a": 2**63 - 1}),
        "bad update": raised(c.update, {"b": 1, "a": "x"}),
        "after all": [c.get("a"), c.get("b"), len(c)],
    }


def options(c):
    """The options of increment and decrement, as keywords."""
    return {
        "max": [c.increment("m", max=2), c.increment("m", max=2), raised(c.increment, "m", max=2)],
        "min": raised(c.decrement, "n", min=0),
        "clamp": [
            c.increment("c", 10, max=4, on_bound="clamp"),
            c.decrement("c", 10, min=1, on_bound="clamp"),
        ],
        "reject": raised(c.increment, "c", 10, max=4, on_bound="reject"),
        "fixed": c.increment("f", ttl=60),
        "sliding": c.increment("s", 2, ttl=60, ttl_mode="sliding"),
        "no mode": raised(c.increment, "t", ttl=60, ttl_mode="rolling"),
        "no seconds": raised(c.increment, "t", ttl=0),
    }


def threads(c, count):
    """The values that four threads of this process were given by one proxy."""
    with multiprocessing.pool.ThreadPool(4) as pool:
        return pool.map(lambda _: c.increment("threads"), range(int(count)))


def count_in_child(c, queue):
    queue.put([c.increment("child"), c.get("child") >= 1])


def children(c):
    """What children were given that got the proxy as an argument, by start method."""
    done = {}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=count_in_child, args=(c, queue))
        child.start()
        done[method] = queue.get(timeout=30)
        child.join(30)
        done[method].append(child.exitcode)
    return done


def many(c):
    """The listings, with more counters than they list."""
    return {
        "len": len(c),
        "keys": raised(c.keys),
        "items": raised(c.items),
        "list": raised(list, c),
        "sorted": raised(sorted, c),
        "text": str(c),
    }


def count(c, number):
    """The values of *number* calls, made once somebody has said go."""
    while "go" not in c:
        pass
    return [c.increment("together") for _ in range(int(number))]


if __name__ == "__main__":
    address, key_file, task, *arguments = sys.argv[1:]
    print(json.dumps(globals()[task](connect(address, key_file), *arguments)))
