"""Turns of conversations that this server keeps for its clients, who go on from them by an id. Knows no dialect.

Public: `TurnStore`, `Turn`, `TurnMissing`, `TurnsTooLarge`.
"""

from periscope.turns.store import TurnStore
from periscope.turns.turn import Turn, TurnMissing, TurnsTooLarge

__all__ = ["Turn", "TurnMissing", "TurnStore", "TurnsTooLarge"]
