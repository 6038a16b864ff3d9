"""One bit of a journal is another: what is read is a prefix, or it is refused, and never another number.

Of three journals one was never synced, one is logs alone, one has a snapshot too. For every bit it is known
whether it can be the end of an interrupted write, for a reader in the same boot and in another; else the
file and the byte must be named.
"""

from faults.written import BOOT, NEXT_BOOT, REFUSED, is_vital, written, wrong, wrong_when_opened

EACH_OPENED = 10
"""Of so many, one is opened by a manager too."""


def run(trial):
    logs = 20, 20, 15, 15
    journals = [
        written(trial.folder / "never-synced", trial.chance, logs, with_snapshot=False, synced=0),
        written(trial.folder / "logs", trial.chance, logs, with_snapshot=False),
        written(trial.folder / "snapshot", trial.chance, logs, with_snapshot=True),
    ]
    trial.figures |= {"flips": 0, "prefixes": 0, "refused": 0}
    for number in range(trial.runs):
        flip(trial, journals[number % len(journals)], number)


def flip(trial, journal, number):
    """Flip one bit, and see what is found in both boots."""
    files = journal.files()
    name = trial.chance.choices([*files], [len(data) for data in files.values()])[0]
    bit = trial.chance.randrange(8 * len(files[name]))
    data = bytearray(files[name])
    data[bit // 8] ^= 1 << bit % 8
    files[name] = bytes(data)
    lost = [each for each in journal.places if each.file == name and each.begin <= bit // 8 < each.end]
    for boot in (BOOT, NEXT_BOOT):
        due = REFUSED if is_vital(name, bit // 8) else journal.last_after(lost, boot)
        trial.figures["flips"] += 1
        trial.figures["refused" if due == REFUSED else "prefixes"] += 1
        said = wrong(journal, files, boot, due, name)
        trial.require(said is None, f"bit {bit} of {name} ({boot}): {said}")
        if number % EACH_OPENED == 0:
            said = wrong_when_opened(journal, files, boot, due, trial.folder / "opened")
            trial.require(said is None, f"bit {bit} of {name}, opened ({boot}): {said}")
