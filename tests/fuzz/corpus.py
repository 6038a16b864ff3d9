"""The inputs in `corpus/`: which there are, and which of many are worth keeping."""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import counter

FOLDER = Path(__file__).parent / "corpus"
MOST_BYTES = 40_000
"""Of all inputs of a target."""
_OFTEN = 4  # eight times or eighty are one
_PACKAGE = str(Path(counter.__file__).parent)


def inputs(name):
    """The inputs of the target *name*, in the same order each time."""
    return [path.read_bytes() for path in sorted((FOLDER / name).glob("*"))]


def save(name, target, found):
    """Keep, in place of what is there, real inputs, then those of *found* that reach more."""
    chosen = choose(target.one_input, [*in_order(target.seeds()), *in_order(found)])
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for data in chosen:
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return chosen


def in_order(inputs):
    """The small ones first."""
    return sorted({*inputs}, key=lambda data: (len(data), data))


def choose(one_input, candidates):
    """Those that reach a step that none before them did, in so many bytes."""
    reached, chosen, size = set(), [], 0
    for data in candidates:
        steps = steps_of(one_input, data)
        if not steps <= reached and size + len(data) <= MOST_BYTES:
            reached |= steps
            chosen.append(data)
            size += len(data)
    return chosen


def steps_of(one_input, data):
    """Which lines of the package follow which when *data* is handed in, and about how often."""
    steps = Counter()

    def trace(caller, _event, _argument):
        code = caller.f_code
        if not code.co_filename.startswith(_PACKAGE):
            return None
        last = 0

        def line(frame, event, _argument):
            nonlocal last
            here = frame.f_lineno if event == "line" else -1
            steps[code.co_filename, code.co_firstlineno, last, here] += 1
            last = here
            return line

        return line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        one_input(data)
    finally:
        sys.settrace(before)
    return {(*step, min(count.bit_length(), _OFTEN)) for step, count in steps.items()}
