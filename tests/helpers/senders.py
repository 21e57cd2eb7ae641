"""Senders by pynetdicom whose answers always arrive.

An association of pynetdicom 3.0.4 has a thread that looks for messages, too, and is to pause while
one is sent and its answer awaited. Between waking and saying that it is awake it counts as paused:
on a busy machine it then takes the answer away, and the sender waits for it in vain.
"""

import threading
from typing import Any

PATIENCE_S = 5.0  # the thread ends with its association


class Checkpoint(threading.Event):
    """Where that thread pauses; closed only once it does."""

    def __init__(self) -> None:
        super().__init__()
        self._changed, self._paused = threading.Condition(), False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            self._paused = True
            self._changed.notify_all()
            opened = self._changed.wait_for(self.is_set, timeout)
            self._paused = False
        return opened

    def set(self) -> None:
        with self._changed:
            super().set()
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            super().clear()
            self._changed.wait_for(lambda: self._paused, PATIENCE_S)


def associated(entity: Any, port: int, **how: Any) -> Any:
    """An association of a pynetdicom AE with a listener on loopback."""
    association = entity.associate("127.0.0.1", port, **how)
    checkpoint = Checkpoint()
    checkpoint.set()
    association._reactor_checkpoint = checkpoint
    return association
