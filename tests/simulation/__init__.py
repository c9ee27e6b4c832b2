"""A simulator of CloudTrail's delivery and of everything that can interrupt us, and what must hold afterwards.

    timeline    simulated time; processes take turns at every I/O step, in an order the seed decides
    process     one process of ours: where it is killed, where it pauses, which calls fail
    parts       the bucket, the lake's storage and the state database, a step before and after each call
    delivery    what CloudTrail delivers, when, and under which names
    notices     the queue that hears of some of it
    truth       what the lake must hold, by plain `json`
    schedule    one story: processes over a delivery, then the verdict
    kills       the same with real processes and SIGKILL
    soak        any number of both: `make soak`
    backfilling a backfill killed and resumed beside syncs
    serving     `kyra serve` with its schedule shortened and its processes killed

`python -m tests.simulation --help` tells how a failure is replayed.
"""
