"""How long work tells how far it has come, without knowing who listens."""

from collections.abc import Callable

Report = Callable[[int, int, str], None]  # done, total, a short note such as "loss 0.31"
