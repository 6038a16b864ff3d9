"""What things cost: each benchmark is a module or package here, and `scripts/bench NAME` runs it.

Machines are noisy, so everything is compared in turns that follow each other closely, several rounds of them,
and told as the median of the rounds with the lowest and the highest. No figure here fails anything.
"""
