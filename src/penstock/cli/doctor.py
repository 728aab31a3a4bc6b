"""`penstock doctor`: hardware, installed engines, and how to install missing ones."""

from __future__ import annotations

import msgspec

from penstock.cli import output
from penstock.cli.machine import Component, MachineReport, examine
from penstock.cli.options import AsJson
from penstock.units import byte_size


def doctor(*, json_: AsJson = False) -> int:
    """Show hardware, installed engines, and the command that installs each missing one. Changes nothing."""
    machine = examine()
    if json_:
        output.json_data(msgspec.to_builtins(machine))
    else:
        output.data(describe(machine))
    return 0


def describe(machine: MachineReport) -> str:
    """The report as text, several lines."""
    lines = [f"penstock {machine.penstock}, Python {machine.python}, {machine.platform}", "", "machine"]
    hardware = [
        ("cores", f"{machine.usable_cores} usable of {machine.cores}"),
        ("memory", f"{byte_size(machine.free_memory_bytes)} free of {byte_size(machine.memory_bytes)}"),
    ]
    hardware += [
        (f"GPU {gpu.index}", f"{gpu.name}, {byte_size(gpu.used_bytes)} used of {byte_size(gpu.memory_bytes)}")
        for gpu in machine.gpus
    ]
    if not machine.gpus:
        hardware.append(("GPUs", f"none ({machine.no_gpu_reason})" if machine.no_gpu_reason else "none"))
    lines += [output.table(hardware), "", "engines", output.table([_part(part) for part in machine.engines])]
    lines += ["", "executors", output.table([_part(part) for part in machine.executors])]
    if machine.advice:
        lines += ["", "to do", *(f"  {advice}" for advice in machine.advice)]
    return "\n".join(lines)


def _part(part: Component) -> tuple[str, str, str]:
    if not part.installed:
        return part.name, "missing", part.install or ""
    return part.name, "ready", ", ".join(f"{name} {version}" for name, version in part.versions.items())
