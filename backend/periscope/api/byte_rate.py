"""How long to wait for a slow client: as long as bytes keep coming at some rate, and not for ever. Pure."""

from __future__ import annotations


class ByteRate:
    """Owns one sender's credit: seconds that it may still keep us waiting.

    Waiting spends credit, bytes earn it back at `min_bytes_per_s`, and there is never more of it than `patience_s`. So
    a sender that stops is given up after `patience_s` however much it has sent before, one that trickles somewhat
    later, and one that is merely slow is never given up, however long it takes.
    """

    def __init__(self, patience_s: float, min_bytes_per_s: int) -> None:
        self._patience_s = patience_s
        self._min_bytes_per_s = min_bytes_per_s
        self.left_s = patience_s

    def spend(self, waited_s: float, num_bytes: int) -> None:
        """Take in that after `waited_s` seconds `num_bytes` have come."""
        earned_s = num_bytes / self._min_bytes_per_s
        self.left_s = min(self._patience_s, self.left_s - waited_s + earned_s)
