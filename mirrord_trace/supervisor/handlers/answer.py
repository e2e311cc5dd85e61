"""What a handler hands back."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from mirrord_trace.supervisor.delivery.base import Verdict

Answer = Verdict | Coroutine[Any, Any, Verdict]
"""A verdict, or a coroutine that ends in one: the call is held until then."""
