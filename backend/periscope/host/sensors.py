"""Sensors of macOS and of Linux. Each asks its system by a call that takes microseconds; nothing is cached.

Sources: xnu, `sys/kern_memorystatus.h` (levels of memory pressure) and `sys/resource.h` (`rusage_info_v0`);
`OSThermalNotification.h` (levels of heat); proc(5).
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from periscope.host.readings import HostReading, MemoryPressure, Sensors, ThermalState

_PRESSURE = {1: MemoryPressure.NORMAL, 2: MemoryPressure.WARNING, 4: MemoryPressure.CRITICAL}
_THERMAL = dict(enumerate(ThermalState))
_RUSAGE_INFO_V0 = 0
_ANONYMOUS = re.compile(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)


def sensors_of(platform: str) -> Sensors:
    """The sensors for `sys.platform`."""
    return MacSensors(ctypes.CDLL(None)) if platform == "darwin" else LinuxSensors()


class _ResourceUsage(ctypes.Structure):
    """macOS's `struct rusage_info_v0`, which `proc_pid_rusage` fills."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user_time", "system_time", "idle_wakeups", "interrupt_wakeups")),
        *((name, ctypes.c_uint64) for name in ("pageins", "wired_size", "resident_size", "phys_footprint")),
        *((name, ctypes.c_uint64) for name in ("start_time", "exit_time")),
    )


class MacSensors:
    """Owns the registration for the thermal state.

    Args:
        system: the functions of libSystem, which every process on a Mac has loaded.
    """

    def __init__(self, system: Any) -> None:
        self._system = system
        self._thermal_token = ctypes.c_int(0)
        name = b"com.apple.system.thermalpressurelevel"
        self._has_thermal = system.notify_register_check(name, ctypes.byref(self._thermal_token)) == 0

    def read(self) -> HostReading:
        return HostReading(self._pressure(), self._thermal(), self._footprint_bytes())

    def _pressure(self) -> MemoryPressure | None:
        level, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        name = b"kern.memorystatus_vm_pressure_level"
        failed = self._system.sysctlbyname(name, ctypes.byref(level), ctypes.byref(size), None, ctypes.c_size_t(0))
        return None if failed else _PRESSURE.get(level.value)

    def _thermal(self) -> ThermalState | None:
        level = ctypes.c_uint64(0)
        if not self._has_thermal or self._system.notify_get_state(self._thermal_token, ctypes.byref(level)):
            return None
        return _THERMAL.get(level.value)

    def _footprint_bytes(self) -> int | None:
        usage = _ResourceUsage()
        failed = self._system.proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V0, ctypes.byref(usage))
        return None if failed else int(usage.phys_footprint)


class LinuxSensors:
    """Reads this process's own memory, in RAM and swapped; Linux has no levels of pressure or heat that compare."""

    def __init__(self, status: Path = Path("/proc/self/status")) -> None:
        self._status = status

    def read(self) -> HostReading:
        try:
            found = _ANONYMOUS.findall(self._status.read_text())
        except OSError:
            return HostReading()
        return HostReading(footprint_bytes=sum(map(int, found)) * 1024 if found else None)
