"""Everything that can break, breaks at once, over and over, while clients upload: `python -m tests.chaos --seed 1`.

Three replicas, nginx, Redis and the pipeline of examples/ run for real, two of the replicas with clocks that are days
off. A plan made from a seed kills, freezes and restarts them, fills the disk, unmounts the volume, and lets Redis
forget what is newest or everything; clients cut their own connections, ask for HTTP/2, send chunked bodies, and some
lie. In the end every acknowledged byte must be there, and every finished upload reported once.

    plan.py, seeds.py                  what shall happen
    stage.py, disk.py, ledger.py       the parts; amnesia.py: when the ledger had lost something
    replica.py, points.py              a replica with a wrong clock, which kills itself at a named point
    faults.py                          breaks the parts
    clients.py, adversary.py           upload, on bare connections (wire.py); theatre.py judges each answer
    witness.py, figures.py             what clients were told, and what was counted
    verdict.py                         compares it with what is there
    rehearsal.py                       a short run in which everything happens once, and nothing by the clock
"""
