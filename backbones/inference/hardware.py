"""The device that figures are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from backbones.inference.board.device import available_cores, device_facts

__all__ = ["available_cores", "device_name", "title"]

# By implementer: part numbers and names, as the MIDR_EL1 register of Arm's manuals has them, and
# as Linux's cputype.h lists those of others.
_ARM = {
    "0x41": "c07 Cortex-A7, c08 Cortex-A8, c09 Cortex-A9, c0e Cortex-A17, c0f Cortex-A15, "
    "d01 Cortex-A32, d02 Cortex-A34, d03 Cortex-A53, d04 Cortex-A35, d05 Cortex-A55, "
    "d06 Cortex-A65, d07 Cortex-A57, d08 Cortex-A72, d09 Cortex-A73, d0a Cortex-A75, "
    "d0b Cortex-A76, d0c Neoverse N1, d0d Cortex-A77, d0e Cortex-A76AE, d40 Neoverse V1, "
    "d41 Cortex-A78, d42 Cortex-A78AE, d43 Cortex-A65AE, d44 Cortex-X1, d46 Cortex-A510, "
    "d47 Cortex-A710, d48 Cortex-X2, d49 Neoverse N2, d4a Neoverse E1, d4b Cortex-A78C, "
    "d4c Cortex-X1C, d4d Cortex-A715, d4e Cortex-X3, d4f Neoverse V2, d80 Cortex-A520, "
    "d81 Cortex-A720, d82 Cortex-X4, d84 Neoverse V3, d85 Cortex-X925, d87 Cortex-A725, "
    "d8e Neoverse N3, d8f Cortex-A320",
    "0x48": "d01 Kunpeng 920",
    "0x4e": "003 Denver 2, 004 Carmel",
    "0x51": "001 Oryon, 800 Kryo 2xx Gold, 801 Kryo 2xx Silver, 802 Kryo 3xx Gold, "
    "803 Kryo 3xx Silver, 804 Kryo 4xx Gold, 805 Kryo 4xx Silver",
    "0xc0": "ac3 Ampere-1, ac4 Ampere-1A",
}
_PARTS = {
    f"{implementer} 0x{entry.partition(' ')[0]}": entry.partition(" ")[2]
    for implementer, entries in _ARM.items()
    for entry in entries.split(", ")
}


def device_name(device: str) -> str:
    """The processor or GPU that ``cpu`` or ``cuda`` stands for, in words that tell it from others.

    What a processor calls itself; an Arm processor calls itself nothing, and is named by its board
    and the kinds of its cores.
    """
    return torch.cuda.get_device_name() if device == "cuda" else title(device_facts())


def title(facts: Mapping[str, Any]) -> str:
    """A device in words.

    Args:
        facts: of :func:`backbones.inference.board.device.device_facts`, from whatever device.
    """
    if facts.get("gpu"):
        return str(facts["gpu"])
    parts = [_PARTS.get(part, f"Arm processor {part}") for part in facts.get("parts", ())]
    processor = facts.get("processor") or " + ".join(parts) or facts["machine"]
    return f"{facts['board']} ({processor})" if facts.get("board") else str(processor)
