"""`make soak`: play schedules and kill processes for as long as asked, and say what came of it.

    make soak                                            2,000 schedules, 100 kills on a local lake, 45 on S3
    make soak ARGS="--minutes 600 --seed 7"              as many schedules as fit into ten hours, others than seed 1's
    make soak ARGS="--jobs 8"                            eight schedules at the same time
    make soak ARGS="--replay 1000023+commit.after.1"     one schedule, as a failure printed it
    make soak ARGS="serve --minutes 15 --period 30"      `kyra serve`, its processes killed while a bucket fills
    make soak ARGS="backfill"                            two million events, killed three times, beside syncs

Ends with 1 when anything was lost, doubled or amiss.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from itertools import count, islice
from pathlib import Path

from tests.simulation.backfilling import Backfilled, backfill_under_fire
from tests.simulation.kills import Killed, kill, s3_for_the_lake
from tests.simulation.process import Point
from tests.simulation.schedule import Case, play
from tests.simulation.serving import Served, serve_under_fire
from tests.simulation.soak import Total, cases, soak, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Prove that nothing is lost.")
    parser.add_argument("--schedules", type=int, help="how many to play (2,000, or as many as fit into --minutes)")
    parser.add_argument("--minutes", type=float, help="how long to play schedules")
    parser.add_argument("--kills", type=int, default=100, help="rounds of SIGKILL on a local lake (100)")
    parser.add_argument("--s3-kills", type=int, default=45, help="rounds of SIGKILL on an S3 lake (45)")
    parser.add_argument("--seed", type=int, default=1, help="which schedules and kills (1)")
    parser.add_argument("--jobs", type=int, default=1, help="how many schedules to play at the same time (1)")
    parser.add_argument("--replay", metavar="CASE", help="play one schedule")
    others = parser.add_subparsers(dest="what", title="instead")
    for_serve = others.add_parser("serve", help="kill processes of `kyra serve` while a bucket fills")
    for_serve.add_argument("--minutes", type=float, default=15, help="how long (15)")
    for_serve.add_argument("--period", type=int, default=30, help="seconds between two syncs (30)")
    for_serve.add_argument("--seed", type=int, default=1, help="which kills (1)")
    for_backfill = others.add_parser("backfill", help="kill a backfill three times beside syncs")
    for_backfill.add_argument("--events", type=int, default=2_000_000, help="of 30 days and 20 accounts (2,000,000)")
    for_backfill.add_argument("--period", type=int, default=30, help="seconds between two syncs (30)")
    for_backfill.add_argument("--seed", type=int, default=1, help="which log files (1)")
    for_backfill.add_argument("--detections", action="store_true", help="run all of the detections, not one")
    options = parser.parse_args()
    _leave_the_environment_alone()
    if options.what == "serve":
        return _serve(options)
    if options.what == "backfill":
        return _backfill(options)
    if options.replay:
        return _replay(options.replay)
    amiss = _schedules(options)
    for name, rounds, on_s3 in (("a local lake", options.kills, False), ("an S3 lake", options.s3_kills, True)):
        if rounds:
            amiss |= _kills(name, rounds, options.seed, on_s3=on_s3)
    return int(amiss)


def _leave_the_environment_alone() -> None:
    """Neither the caller's AWS configuration nor KYRA_* settings reach us."""
    for name in list(os.environ):
        if name.startswith(("KYRA_", "AWS_")):
            del os.environ[name]
    fake = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "testing")
    os.environ.update(fake, AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")


def _serve(options: argparse.Namespace) -> int:
    with s3_for_the_lake() as endpoint, tempfile.TemporaryDirectory(prefix="kyra-serve-") as folder:
        served = serve_under_fire(options.minutes, options.period, options.seed, endpoint, Path(folder))
    return _tell(served)


def _backfill(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="kyra-backfill-") as folder:
        done = backfill_under_fire(
            options.events, options.period, options.seed, Path(folder), detections=options.detections
        )
    return _tell(done)


def _tell(came_to: Served | Backfilled) -> int:
    amiss = came_to.complaints()
    print("\n".join([*came_to.told(), *(f"AMISS {complaint}" for complaint in amiss)]))
    return int(bool(amiss))


def _schedules(options: argparse.Namespace) -> bool:
    wanted = options.schedules if options.schedules is not None else None if options.minutes else 2000
    until = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    total, known, begun, shown = Total(), Counter[Point](), time.monotonic(), 0
    playing = soak(islice(cases(options.seed, known), wanted), total, known, options.jobs)
    for number in count(1):
        if time.monotonic() >= until or (outcome := next(playing, None)) is None:
            break
        if outcome.complaints:
            print(f"{_few(outcome.complaints)}\n      replay with: --replay {outcome.case}", flush=True)
        if number % 50 == 0:
            shown = _progress(number, total, time.monotonic() - begun, shown)
    _clear(shown)
    if total.schedules:
        print("\n".join(told(total, time.monotonic() - begun)), flush=True)
    return bool(total.complaints)


def _kills(name: str, rounds: int, seed: int, *, on_s3: bool) -> bool:
    begun = time.monotonic()
    if on_s3:
        with s3_for_the_lake() as endpoint:
            killed = kill(rounds, seed, s3=endpoint)
    else:
        killed = kill(rounds, seed)
    verdict = killed.verdict
    print(
        f"\n{rounds} rounds of SIGKILL on {name} in {(time.monotonic() - begun) / 60:.0f} minutes:"
        f" {killed.killed} processes killed, {verdict.events:,} events, {verdict.alerts:,} alerts"
    )
    print(
        f"events lost: {verdict.lost}, events doubled: {verdict.doubled}, other complaints: {len(verdict.complaints)}"
    )
    print("killed at: " + _counted(killed), flush=True)
    if verdict.complaints:
        print(f"{_few(verdict.complaints)}\n      repeat with: --schedules 0 --seed {seed}", flush=True)
    return bool(verdict.complaints)


def _counted(killed: Killed) -> str:
    aimed = killed.steps()
    others = killed.at.total() - sum(aimed.values())
    return ", ".join(f"{step} {times}" for step, times in aimed.items()) + f", elsewhere {others}"


def _replay(text: str) -> int:
    outcome = play(Case.parse(text))
    print(_few(outcome.complaints) or f"Nothing amiss: {outcome.events} events, {outcome.alerts} alerts.")
    return int(bool(outcome.complaints))


def _few(complaints: list[str]) -> str:
    """The first of them: one fault often has many consequences."""
    lines = [f"AMISS {complaint}"[:400] for complaint in complaints[:5]]
    return "\n".join([*lines, *([f"      and {len(complaints) - 5} more"] if len(complaints) > 5 else [])])


def _progress(number: int, total: Total, seconds: float, shown: int) -> int:
    line = f"{number:,} schedules, {seconds / number:.2f} s each, lost {total.lost}, doubled {total.doubled}"
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return 0
    print(f"\r{line.ljust(shown)}", end="", file=sys.stderr, flush=True)
    return len(line)


def _clear(shown: int) -> None:
    if shown:
        print(f"\r{' ' * shown}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
