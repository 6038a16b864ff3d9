"""The end of a log is torn off at every byte: the whole records before it are there, and nothing else is.

Each journal has three logs, every second one a snapshot in place of the first. The last log, and the one
before it, are cut at each byte, for a reader in the same boot and in another. If this can be the end of an
interrupted write, the whole records before it are there, and a manager opens the journal and goes on. If a
header is cut, or what is lost is known to have been on the disk, it is refused, with file and byte.
"""

from faults.written import BOOT, NEXT_BOOT, REFUSED, is_vital, written, wrong, wrong_when_opened


def run(trial):
    trial.figures |= {"cuts": 0, "prefixes": 0, "refused": 0, "opened": 0}
    for number in range(trial.runs):
        journal = written(trial.folder / f"journal.{number}", trial.chance, (3, 4, 5), number % 2 == 1, 9)
        files = journal.files()
        *_, before, last = sorted(name for name in files if name.endswith(".log"))
        for name in (before, last):
            for size in range(len(files[name])):
                for boot in (BOOT, NEXT_BOOT):
                    cut(trial, journal, files, (name, size, boot))


def cut(trial, journal, files, where):
    """Cut one file, and see what is found."""
    name, size, boot = where
    torn = files | {name: files[name][:size]}
    named = name
    if is_vital(name, size):
        due = REFUSED
    else:
        lost = [place for place in journal.places if place.file == name and place.end > size]
        due = journal.last_after(lost, boot)
        if size == lost[0].begin:
            named = None  # as if a whole file were missing before the next one
    trial.figures["cuts"] += 1
    trial.figures["refused" if due == REFUSED else "prefixes"] += 1
    said = wrong(journal, torn, boot, due, named)
    trial.require(said is None, f"{name} cut at {size} ({boot}): {said}")
    if due != REFUSED:
        trial.figures["opened"] += 1
        said = wrong_when_opened(journal, torn, boot, due, trial.folder / "opened")
        trial.require(said is None, f"{name} cut at {size} and opened ({boot}): {said}")
