"""What things cost: each row is a module in `rows`, and `scripts/bench NAME` measures it.

Machines are noisy, so everything is compared in turns that follow each other closely, several rounds of them,
and told as the median of the rounds with the lowest and the highest. No figure here fails anything.
"""
