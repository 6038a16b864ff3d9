"""Feed a target with inputs that cover more and more of the package, by atheris.

    PYTHONPATH=tests .venv/bin/python -m fuzz NAME [--runs N] [--seconds S] [--seed S] [--folder DIR] [--save]

It ends after so many runs or seconds, whichever comes first, and prints its figures as one line of JSON. The
first input that fails, takes over a second or makes the process grow by 32 MiB ends it with exit code 1 and
is kept in DIR (an empty folder if left out), as are the inputs that reached something new. With --save the
best of them go to `corpus/`: look at them, and commit them.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import atheris

from fuzz import TARGETS, load
from fuzz.watch import Watch

MOST_BYTES = 4096
"""Of one input: the mistakes that longer ones find are those of quantity, which other tests are for."""
STUCK_SECONDS = 20
"""An input that has not ended by then ends the process."""


def main(arguments):
    options = parse(arguments)
    folder = Path(options.folder or tempfile.mkdtemp(prefix=f"fuzz-{options.name}-"))
    found = folder / "found"
    found.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["counter"], enable_loader_override=False):
        target = load(options.name)
    from fuzz import corpus  # it imports the package, which was to be instrumented

    for number, data in enumerate([*target.seeds(), *corpus.inputs(options.name)]):
        if len(data) <= MOST_BYTES:
            (found / f"seed-{number:04}").write_bytes(data)
    words = folder / "words"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in target.WORDS))

    def leave(code):
        if options.save and not code:
            sys.stdout.flush()
            files = [path.read_bytes() for path in found.iterdir()]
            kept = corpus.save(options.name, target, files)
            print(f"of {len(files)} inputs {len(kept)} were kept, {sum(map(len, kept))} bytes")
        sys.stdout.flush()
        os._exit(code)  # libFuzzer never gives control back

    watch = Watch(options.name, target.one_input, folder, options.runs, options.seconds, leave)
    flags = [
        f"-max_len={MOST_BYTES}",
        f"-timeout={STUCK_SECONDS}",
        f"-artifact_prefix={folder}/",
        f"-dict={words}",
        "-verbosity=0",
        *([f"-seed={options.seed}"] if options.seed else []),
    ]
    atheris.Setup([sys.argv[0], *flags, str(found)], watch)
    atheris.Fuzz()


def escaped(word):
    return "".join(f"\\x{byte:02x}" for byte in word)


def parse(arguments):
    parser = argparse.ArgumentParser(
        "python -m fuzz", description="Feed a target with inputs nobody expects."
    )
    parser.add_argument("name", choices=TARGETS, metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--folder", metavar="DIR", help="where inputs are kept")
    parser.add_argument("--save", action="store_true", help="choose the inputs of the corpus anew")
    options = parser.parse_args(arguments)
    if options.runs is None and options.seconds is None:
        parser.error("say how long: --runs or --seconds")
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
