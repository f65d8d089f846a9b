"""What the kernel says about processes: CPU time and resident memory, of a process with all its descendants."""

from __future__ import annotations

import os
import pathlib

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024


def with_descendants(process: int) -> list[int]:
    """Process ids: some programs work in a child."""
    found = [process]
    for one in found:
        for task in pathlib.Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(process: int | None) -> float:
    """User and system time in seconds since the start, of all threads, in steps of a scheduler tick; 0 where there is no process."""
    total = 0
    for one in with_descendants(process) if process else []:
        # Behind the command's closing parenthesis: state is field 3, utime and stime are fields 14 and 15.
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def _status_bytes(process: int | None, field: str) -> int:
    total = 0
    for one in with_descendants(process) if process else []:
        lines = pathlib.Path(f"/proc/{one}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) * KIB for line in lines if line.startswith(f"{field}:"))
    return total


def rss_bytes(process: int | None) -> int:
    """Resident memory now."""
    return _status_bytes(process, "VmRSS")


def rss_peak_bytes(process: int | None) -> int:
    """The most resident memory since `forget_rss_peak`, or since the start."""
    return _status_bytes(process, "VmHWM")


def forget_rss_peak(process: int | None) -> None:
    for one in with_descendants(process) if process else []:
        pathlib.Path(f"/proc/{one}/clear_refs").write_text("5")


class Watch:
    """CPU that processes use from here on, by name: `Watch(redis=pid, proxy=None).used_s()`."""

    def __init__(self, **processes: int | None):
        self.processes = processes
        self.before = {name: cpu_s(process) for name, process in processes.items()}

    def used_s(self) -> dict[str, float]:
        return {name: cpu_s(process) - self.before[name] for name, process in self.processes.items()}
