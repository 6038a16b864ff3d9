"""The table of mistakes that can be planted, and for each the scenario that finds it.

A mistake is a function that replaces methods, in a manager (`planted_turns`, `planted_files`) or in its
clients (`planted_clients`); as a FAULT for `launcher`: `--plant faults.planted_files:ignore_marks`.
"""

from typing import NamedTuple

SEED = 1
FEW_SEEDS, SOME_SEEDS = 40, 800
"""Of the simulation, which stops at the first that shows the mistake."""


class Planted(NamedTuple):
    """A mistake, by module and name, and how it is found.

    Attributes:
        says: a regular expression for what the scenario then tells; of a simulation, that its judge said no.
    """

    mistake: str
    scenario: str
    runs: int
    says: str = "Violation: "
    durability: str = "everysec"

    @property
    def arguments(self):
        """Of the command line, without the mistake."""
        return self.scenario, "--runs", str(self.runs), "--seed", str(SEED), "--durability", self.durability

    @property
    def planting(self):
        """What the mistake adds to the arguments."""
        whose = "--plant-client" if self.mistake.startswith("planted_clients:") else "--plant"
        return whose, f"faults.{self.mistake}"


PLANTED = (
    # A turn
    Planted("planted_turns:forget_callers", "cut-replies", 800, "doubled"),
    Planted("planted_turns:forget_callers_early", "simulation", FEW_SEEDS),
    Planted("planted_turns:execute_late", "freeze", 2, "doubled"),
    Planted("planted_turns:answer_otherwise", "cut-replies", 800, "and then"),
    Planted("planted_turns:ignore_keys", "kill-workers", 8, "doubled"),
    Planted("planted_turns:merge_before_writing", "simulation", FEW_SEEDS),
    Planted("planted_turns:answer_before_the_turn_ends", "kill-manager", 2, "lost"),
    Planted("planted_turns:read_after_the_turn", "kill-manager", 2, "was told twice"),
    # What is written
    Planted("planted_files:answer_before_writing", "kill-manager", 2, "lost"),
    Planted("planted_files:write_no_callers", "kill-manager", 2, "doubled"),
    Planted("planted_files:write_no_keys", "kill-both", 4, "doubled"),
    Planted("planted_files:write_callers_apart", "simulation", FEW_SEEDS),
    Planted("planted_files:leave_what_was_cut", "simulation", SOME_SEEDS),
    Planted("planted_files:snapshots_without_callers", "simulation", FEW_SEEDS),
    Planted("planted_files:snapshots_without_keys", "simulation", FEW_SEEDS),
    # What is synced
    Planted("planted_files:names_of_logs_unsynced", "simulation", FEW_SEEDS),
    Planted("planted_files:names_of_snapshots_unsynced", "simulation", SOME_SEEDS),
    Planted("planted_files:logs_removed_first", "simulation", SOME_SEEDS),
    Planted("planted_files:snapshots_unsynced", "simulation", FEW_SEEDS),
    Planted("planted_files:sync_again", "simulation", SOME_SEEDS),
    Planted("planted_files:go_on_after_a_failed_sync", "simulation", SOME_SEEDS),
    Planted("planted_files:forget_a_failed_sync", "simulation", SOME_SEEDS),
    Planted("planted_files:sync_after_answering", "simulation", SOME_SEEDS),
    Planted("planted_files:serve_what_is_not_synced", "simulation", SOME_SEEDS),
    # What is read
    Planted("planted_files:ignore_checksums", "bit-flips", 60, "bit "),
    Planted("planted_files:ignore_marks", "bit-flips", 60, "not refused"),
    Planted("planted_files:write_no_marks", "bit-flips", 60, "not refused"),
    Planted("planted_files:ignore_what_follows", "bit-flips", 60, "not refused"),
    Planted("planted_files:take_all_for_this_boot", "reordered-pages", 60, "after a power cut"),
    Planted("planted_files:take_all_for_another_boot", "bit-flips", 60, "not refused"),
    Planted("planted_files:replay_up_to_a_limit", "simulation", FEW_SEEDS),
    Planted("planted_files:replay_adds", "simulation", FEW_SEEDS),
    # A client
    Planted("planted_clients:share_callers_after_a_fork", "forks", 3, "was told|seq goes up"),
    Planted("planted_clients:share_connections_after_a_fork", "forks", 3, "was told"),
    Planted("planted_clients:keep_interrupted_connections", "late-replies", 240, "was told"),
    Planted("planted_clients:repeat_as_another_request", "cut-replies", 800, "doubled"),
    Planted("planted_clients:read_in_a_second_step", "kill-manager", 2, "was told twice"),
)
LONG = ("freeze", "kill-workers", "kill-both", "forks", "late-replies")
"""Scenarios that take 5 seconds and more to find theirs."""
