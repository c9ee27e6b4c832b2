"""Flow `check`: Test Connection of every integration, so that `kyra status` tells what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import verbs
from flows.events import tell
from flows.outcome import alert_rows, error_of, probe_rows, told
from kyra_etl.model import Alert, Probe


@task(name="check integration", task_run_name="check {name}", cache_policy=NO_CACHE)
def check_integration(name: str) -> tuple[Sequence[Probe], Sequence[Alert]]:
    """What `kyra check NAME` does; the answers, and the alerts of what they found absent, or back."""
    return verbs.check(name)


@flow(name="check", flow_run_name=lambda: f"check {runtime.flow_run.scheduled_start_time:%H:%M}")
def check() -> State[Any]:
    """Ask AWS, for every integration, whether each permission kyra needs is still there."""
    states = {name: check_integration(name, return_state=True) for name in verbs.integration_names()}
    errors = {name: error for name, state in states.items() if (error := error_of(state))}
    found = {name: state.result() for name, state in states.items() if name not in errors}
    probes = {name: asked for name, (asked, _) in found.items()}
    alerts = [alert for _, changed in found.values() for alert in changed]
    if probes:
        create_table_artifact(probe_rows(probes), key="check-report")
    if alerts:
        create_table_artifact(alert_rows(alerts), key="check-alerts", description="What is absent, or back.")
    tell()
    lines = [told(error, name) for name, error in errors.items()]
    lines += [
        f"{name}: {probe.name}: {probe.detail} {probe.remedy}".rstrip()
        for name, asked in probes.items()
        for probe in asked
        if probe.passed is False
    ]
    return Failed(message="\n".join(lines)) if lines else Completed(message=f"{len(probes)} connected.")
