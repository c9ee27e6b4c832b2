"""kyra-etl: AWS CloudTrail into a trustworthy, queryable lake, with detections that fire.

The road of the data, left to right; each stage is one verb with one report:

    discover keys ─▶ fetch ─▶ decode ─▶ stage Parquet ─▶ commit ─▶ publish ─▶ detect ─▶ alert ─▶ status
    cloudtrail.keys  aws.      cloudtrail.  lake.writer       state.     lake.       sql/        state.    status
    discover         bucket    decode       lake.layout       ledger     layout      detections  alerts

Journeys (`sync`, `backfill`, `load`) walk it; stages (`discover`, `batch`, `detect`, …) are its steps; adapters
(`aws`, `folder`, `lake`, `state`) touch the world; `cloudtrail` and `detection` are pure. Imports point down only.
"""

import os

# Arrow asks once, as it is loaded. An allocator of its own would keep what memory.give_back gives back.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
