"""What is read of a Mac, whose system is played, and of this machine."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from periscope.host import HostReading, MemoryPressure, ThermalState, sensors_of
from periscope.host.sensors import LinuxSensors, MacSensors


@dataclass
class FakeSystem:
    """libSystem's functions, which write through pointers and return 0, or something else when they fail."""

    pressure: int | None = 1
    thermal: int | None = 0
    footprint: int | None = 123_456_789
    has_notifications: bool = True

    def sysctlbyname(self, name: bytes, value: Any, size: Any, _new: None, _new_size: Any) -> int:
        assert (name, size._obj.value) == (b"kern.memorystatus_vm_pressure_level", 4)
        value._obj.value = self.pressure or 0
        return -1 if self.pressure is None else 0

    def notify_register_check(self, name: bytes, token: Any) -> int:
        assert name == b"com.apple.system.thermalpressurelevel"
        token._obj.value = 77
        return 0 if self.has_notifications else 1

    def notify_get_state(self, token: Any, state: Any) -> int:
        assert token.value == 77
        state._obj.value = self.thermal or 0
        return 1 if self.thermal is None else 0

    def proc_pid_rusage(self, pid: int, flavour: int, usage: Any) -> int:
        assert (pid, flavour) == (os.getpid(), 0)
        if self.footprint is None:
            return -1
        assert ctypes.sizeof(usage._obj) == 96  # of `struct rusage_info_v0`, whose ri_phys_footprint is at 72
        ctypes.memmove(ctypes.addressof(usage._obj) + 72, self.footprint.to_bytes(8, "little"), 8)
        return 0


def test_a_mac_tells_all_three() -> None:
    """Pressure, heat and footprint, in the system's own numbers."""
    system = FakeSystem()
    sensors = MacSensors(system)
    assert sensors.read() == HostReading(MemoryPressure.NORMAL, ThermalState.NOMINAL, 123_456_789)
    system.pressure, system.thermal = 4, 2
    assert sensors.read() == HostReading(MemoryPressure.CRITICAL, ThermalState.HEAVY, 123_456_789)
    system.pressure, system.thermal = 2, 1
    assert sensors.read() == HostReading(MemoryPressure.WARNING, ThermalState.MODERATE, 123_456_789)


@pytest.mark.parametrize(
    "system",
    [FakeSystem(None, None, None), FakeSystem(0, 99, None), FakeSystem(None, 0, None, has_notifications=False)],
    ids=["all fail", "unknown numbers", "no notifications"],
)
def test_what_a_system_does_not_say_is_none(system: FakeSystem) -> None:
    """An older or a newer macOS costs figures, never the server."""
    assert MacSensors(system).read() == HostReading()


def test_memory_on_linux_is_this_process_alone(tmp_path: Path) -> None:
    """What is in RAM and not a file's, and what was swapped out; what cannot be read is None."""
    status = tmp_path / "status"
    status.write_text("VmRSS:\t  9000 kB\nRssAnon:\t  2000 kB\nRssFile:\t 7000 kB\nVmSwap:\t   24 kB\n")
    assert LinuxSensors(status).read() == HostReading(footprint_bytes=2024 * 1024)
    status.write_text("Name:\tpython\n")
    assert LinuxSensors(status).read() == LinuxSensors(tmp_path / "none").read() == HostReading()


def test_this_machine_can_be_read() -> None:
    """By its own sensors, whatever it is."""
    footprint = sensors_of(sys.platform).read().footprint_bytes
    assert footprint is not None
    assert footprint > 1_000_000
