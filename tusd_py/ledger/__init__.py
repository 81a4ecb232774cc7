"""Records, leases, expiry index and outbox: interchangeable modules behind ports.Ledger and ports.Outbox."""
