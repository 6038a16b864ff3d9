"""What durability costs: throughput, CPU, a restart, and how long the manager stalls for a snapshot."""

from .command import command

__all__ = ["command"]
