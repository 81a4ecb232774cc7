"""Values of ours that both ledgers keep as text."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..protocol.upload import ACCEPTED, Outcome, Verdict


def build_outcome(outcome: Outcome | None) -> str:
    """Return the outcome of a finish as JSON; '' for none."""
    return "" if outcome is None else json.dumps(asdict(outcome))


def parse_outcome(text: str) -> Outcome | None:
    """Return the outcome that build_outcome wrote; fields that a newer server added are left out."""
    if not text:
        return None
    found = json.loads(text)
    return Outcome(verdict=Verdict(found["verdict"]), status=found["status"], reason=found["reason"])


def build_object(value: Mapping[str, Any]) -> str:
    """Return a JSON object; '' for an empty one."""
    return json.dumps(dict(value)) if value else ""


def parse_object(text: str) -> dict[str, Any]:
    """Return the object that build_object wrote."""
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def settled_before(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record as they are meant, if a server of version 1 wrote them.

    It finished an upload by its offset alone. Servers of today record the outcome in the same step.
    """
    if values.get("outcome") is None and values["offset"] == values["length"]:
        return values | {"outcome": ACCEPTED}
    return values
