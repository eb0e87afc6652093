"""What the clients of a run saw: the only evidence the checkers have besides the log."""

import attrs


@attrs.define
class Observations:
    """Payloads are unique in a run, so they name items across produce and delivery."""

    attempted: dict[bytes, str] = attrs.Factory(dict)
    """Payload to queue: some client tried to produce it."""
    acknowledged: dict[bytes, tuple[int, int]] = attrs.Factory(dict)
    """Payload to (partition, item) of a positive answer."""
    refused: dict[bytes, str] = attrs.Factory(dict)
    """Payload to the code of a definite refusal."""
    delivered: dict[bytes, int] = attrs.Factory(dict)
    """Payload to how often somebody received it."""
    completed: dict[bytes, int] = attrs.Factory(dict)
    """Payload to how many complete calls were answered positively for it."""
    settled: int = 0
    stale_refused: int = 0
    stale_accepted: list[str] = attrs.Factory(list)
    """A holder that was not one any more was believed."""
    duplicates_recognised: int = 0
