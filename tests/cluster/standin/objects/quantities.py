"""Amounts of resources, as the API writes them: "500m", "1Gi", "2e3" (k8s.io/apimachinery/pkg/api/resource)."""

from __future__ import annotations

import re
from decimal import Decimal

PATTERN = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
"""What a quantity that cannot be read is compared with, in the server's words."""
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?\d+))")


def amount(text: str) -> Decimal | None:
    """The number that a quantity stands for; None if it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    number, binary, decimal, exponent = match.groups()
    if binary:
        return Decimal(number) * Decimal(1024 ** _BINARY[binary])
    return Decimal(number).scaleb(int(exponent) if exponent else _DECIMAL[decimal or ""])


def written(value: Decimal) -> str:
    """An amount as a quantity: whole, or in thousandths."""
    return str(int(value)) if value == int(value) else f"{int(value * 1000)}m"
