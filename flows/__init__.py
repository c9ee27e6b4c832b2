"""Prefect and nothing but Prefect: schedules, runs and artifacts around the verbs of kyra_etl.

    sync        every five minutes, and on demand       kyra_etl.sync
    backfill    on demand, a range of dates             kyra_etl.backfill
    check       hourly                                  kyra_etl.check
    maintain    nightly                                 kyra_etl.maintain
    serve       `kyra serve`: a Prefect server of our own, and a runner that works off the deployments

No flow holds logic, and none guards anything: leases and the commit decide, so a run that dies, runs twice or runs late
does no harm. There is no Prefect concurrency limit for that reason: its slots outlive a killed process, ours expire.
"""

from __future__ import annotations

import logging
import os

# Prefect reads these when it is imported, so they are set before anything here imports it.
_SWITCHES = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "kyra_etl",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
for _name, _value in _SWITCHES.items():
    os.environ.setdefault(_name, _value)

# kyra's own lines from INFO on, into Prefect's page of the run (by the switch above) and its log.
logging.getLogger("kyra_etl").setLevel(logging.INFO)
