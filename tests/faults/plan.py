"""What the managers of one service are to suffer, one after the other, and what they tell of it.

Two files in a folder: each manager that starts takes the next line of `plan`, and appends lines to `told`,
each by one write, so that its own kill -9 takes nothing away.
"""

import os


class Plan:
    """The plan in *folder*; one manager at a time reads it."""

    def __init__(self, folder):
        self.folder = folder
        self._plan = os.path.join(folder, "plan")
        self._told = os.path.join(folder, "told")

    def write(self, lines):
        """Let the first manager suffer the first of *lines*, and so on."""
        with open(self._plan, "w") as file:
            file.writelines(f"{line}\n" for line in lines)

    def take(self):
        """The words of the next line; none are left when all were taken."""
        with open(self._plan) as file:
            first, *rest = file.read().splitlines() or [""]
        self.write(rest)
        return first.split()

    def tell(self, *words):
        """Append a line: the pid of this process, and *words*."""
        line = " ".join(str(word) for word in (os.getpid(), *words))
        with open(self._told, "a") as file:
            file.write(line + "\n")

    def told(self):
        """The lines there are, each as its words, the pid being a number."""
        if not os.path.exists(self._told):
            return []
        with open(self._told) as file:
            lines = [line.split() for line in file if line.endswith("\n")]
        return [(int(pid), *words) for pid, *words in lines]
