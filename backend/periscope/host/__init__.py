"""The machine below the server: its memory pressure, its heat, its sleep, and keeping it awake. See `watch.py`."""

from periscope.host.awake import KeepAwake, caffeinate
from periscope.host.readings import HostReading, MemoryPressure, Sensors, ThermalState
from periscope.host.sensors import sensors_of
from periscope.host.watch import HostListener, HostWatch

__all__ = [
    "HostListener",
    "HostReading",
    "HostWatch",
    "KeepAwake",
    "MemoryPressure",
    "Sensors",
    "ThermalState",
    "caffeinate",
    "sensors_of",
]
