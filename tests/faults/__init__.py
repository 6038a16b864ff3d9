"""Hurts a real service on purpose, and compares what it acknowledged with what it kept.

    scripts/faults kill-manager --runs 200 --durability always

- `scenarios` is the table of names; each names a module with a function `run(trial)`.
- `trial` is one run of a scenario: its folder, its chance, its figures, its violations.
- `service` is the service under test; `load` are client processes (`client`) that count on it.
- Every call is in a client's `diary`, before it is made and after it is answered; `oracle` joins the diaries
  with what the service says at the end. Both know nothing of the package.
- `launcher` runs the command with some of its methods replaced; the package has no hooks for that.
- `planted` is the table of mistakes that can be planted so, and of the scenarios that find them.
- `mutants` makes small mistakes in the code itself (`scripts/mutants`), and runs the tests of each module.

A new scenario is a module, a line in the table and a short run in `test_faults.py`.
"""
