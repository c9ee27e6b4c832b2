"""`kyra metrics`: Prometheus' text format, once or over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import emit, say, show
from kyra_etl.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from kyra_etl.wiring import Parts

HOST = "127.0.0.1"
FRESH = 5.0
"""Seconds for which an answer is given again: many scrapers, one look at the state."""


def metrics(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Answer on this port of this machine until stopped.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to answer on; others reach this machine's by 0.0.0.0.")] = HOST,
    json: Json = False,
) -> None:
    """Figures for Prometheus, from the state: for a scrape, or for the textfile collector.

    `kyra serve` answers with them by itself, on the setting metrics_port.
    """
    from kyra_etl.metrics import collect

    with opened() as parts:
        if port is not None:
            _answer(parts, host, port)
        elif json:
            found = collect(parts.state, parts.clock())
            emit({metric.name: [_plain(metric.labels, one) for one in some] for metric, some in found})
        else:
            from prometheus_client import generate_latest

            show(generate_latest(_registry(parts)).decode().rstrip("\n"))


def _plain(names: tuple[str, ...], sample: Any) -> dict[str, Any]:
    return {**dict(zip(names, sample.labels, strict=True)), "value": sample.value}


def _registry(parts: Parts) -> CollectorRegistry:
    """A registry that asks the state each time, at most every few seconds."""
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    from kyra_etl.metrics import collect as ask

    class FromState:
        asked_at, families = float("-inf"), list[Metric]()

        def describe(self) -> list[Metric]:
            return []  # nothing is asked before the first scrape

        def collect(self) -> Iterator[Metric]:
            if time.monotonic() - self.asked_at > FRESH:
                self.families = [_family(metric, some) for metric, some in ask(parts.state, parts.clock())]
                self.asked_at = time.monotonic()
            yield from self.families

    def _family(metric: Any, samples: Any) -> Metric:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.about, labels=metric.labels)
        for one in samples:
            family.add_metric(one.labels, one.value)
        return family

    registry = CollectorRegistry()
    registry.register(FromState())
    return registry


def _answer(parts: Parts, host: str, port: int) -> None:
    from prometheus_client import start_http_server

    registry = _registry(parts)
    _ = parts.state  # opened here: what is wrong with it is told now, not to a scraper
    try:
        _, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"Port {port} cannot be used on {host} ({error}).", "Choose another.") from None
    say(f"Metrics are at http://{host}:{port}/metrics")
    thread.join()
