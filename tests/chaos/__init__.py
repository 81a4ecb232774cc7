"""Everything that can break, breaks at once, over and over, while clients upload: `python -m tests.chaos --seed 1`.

Three replicas, nginx, Redis and the pipeline of examples/ run for real. A plan made from a seed kills and freezes them
and fills the disk; clients cut their own connections, and some lie. In the end every acknowledged byte must be there.

plan.py says what shall happen, stage.py has the parts, faults.py breaks them, clients.py upload on bare connections
(wire.py), witness.py notes what they were told, and verdict.py compares it with what is there.
"""
