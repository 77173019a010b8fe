"""How long to wait for a slow client: as long as its bytes arrive at some rate. Pure."""

from __future__ import annotations


class ByteRate:
    """Owns the credit of one sender: the seconds that the server will still wait for it.

    Waiting spends credit, bytes earn it back at `min_bytes_per_s`, and there is never more of it than `patience_s`. So
    a sender that stops times out after `patience_s` however much it has sent before, one that trickles somewhat
    later, and one that is merely slow never times out.
    """

    def __init__(self, patience_s: float, min_bytes_per_s: int) -> None:
        self._patience_s = patience_s
        self._min_bytes_per_s = min_bytes_per_s
        self.left_s = patience_s

    def spend(self, waited_s: float, num_bytes: int) -> None:
        """Note that `num_bytes` have arrived after `waited_s` seconds."""
        earned_s = num_bytes / self._min_bytes_per_s
        self.left_s = min(self._patience_s, self.left_s - waited_s + earned_s)
