"""The keys of the ledger in Redis. What is of one shard shares a hash tag, and so a slot of a Cluster."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The keys of one shard."""

    identity: str
    records: str  # and the upload id behind it
    expires: str
    outbox: tuple[str, str, str]  # events, due, deliveries
    buried: str
    turns: str  # and the name of a chore behind it

    @classmethod
    def named(cls, prefix: str, number: int) -> "Shard":
        start = f"{prefix}:{{{number}}}:"
        return cls(
            identity=start + "identity",
            records=start + "upload:",
            expires=start + "expires",
            outbox=(start + "events", start + "due", start + "deliveries"),
            buried=start + "buried",
            turns=start + "turn:",
        )
