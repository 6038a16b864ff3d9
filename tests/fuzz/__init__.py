"""Fuzzing: bytes that nobody expects, by the million, for whatever reads bytes of others.

Each target is a module with

- `one_input(data)`: hand *data* to the code, and assert what must hold whatever it is;
- `seeds()`: real inputs, to begin with;
- `WORDS`: pieces that real inputs are made of.

`corpus/NAME/` has the inputs that are worth trying each time; `python -m fuzz` looks for others.
"""

from importlib import import_module

TARGETS = ("wire", "pickles", "handshake", "journal", "web")


def load(name):
    """The target *name*."""
    return import_module(f"{__name__}.{name}")
