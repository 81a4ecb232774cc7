"""A chaos test: clients upload while every part of the deployment breaks: `python -m tests.chaos --seed 1`.

Three replicas, nginx, Redis and the pipeline of examples/ run as real processes. The clocks of two replicas are wrong
by days. A plan made from a seed kills, freezes and restarts the processes, fills the disk, unmounts the volume, and
makes Redis lose its newest data or all of it. Clients cut their own connections, ask for HTTP/2 and send chunked
bodies. Some send different bytes for the same place in a file. At the end every acknowledged byte must be in its file,
and the pipeline must have received one event for every finished upload.

    plan.py, seeds.py                    what happens in a run, made from a seed
    deployment.py, disk.py, ledger.py    the parts that break; losses.py: when the ledger had lost data
    replica.py, points.py                a replica with a wrong clock, which kills itself at a named point
    faults.py                            breaks the parts and repairs them
    clients.py, conflicting.py           the clients, on bare connections (connection.py)
    harness.py                           sends their requests and checks each answer
    tracking.py, figures.py              what was acknowledged, and what was counted
    final_checks.py                      compares what was acknowledged with what is stored
    scenarios.py                         a short run in which every fault happens once, without a random plan
"""
