"""`make evaluate`: print how well the detections do, and whether what is asked of them holds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from evaluation.parts import PARTS, WITHOUT_DATA, record, recorded, verified
from kyra_etl import resources
from kyra_etl.detection.rule import Corpus

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make evaluate", description="Measure the detections.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Any of {', '.join(PARTS)}; all without.")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="Public records; ../shared/data.")
    parser.add_argument("--write", action="store_true", help="Renew evaluation/verified.toml.")
    said = parser.parse_args()
    if unknown := set(said.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}: name any of {', '.join(PARTS)}")
    chosen = said.parts or list(PARTS)
    if not said.data.is_dir():
        chosen = [name for name in chosen if name in WITHOUT_DATA]
        print(f"{said.data} is not there: only what needs no public records is measured.")
        print("Where they are published: docs/evaluation.md.\n")

    corpus = Corpus.load([resources.detections_dir()])
    done, missed = [], 0
    for name in chosen:
        begun = perf_counter()
        part = PARTS[name](corpus, said.data)
        done.append(part)
        print(f"{part.title}, {perf_counter() - begun:.0f} seconds")
        for line in part.lines:
            print(f"  {line}")
        for what, holds in part.targets:
            print(f"  {'holds ' if holds else 'FAILS '} {what}")
            missed += not holds
        print(flush=True)

    fired = set().union(*(part.fired for part in done))
    silent = [each.id for each in corpus.detections if each.id not in fired]
    print(f"Never fired in these {len(done)} parts ({len(silent)} of {len(corpus.detections)}): {', '.join(silent)}\n")
    found = verified(done)
    if said.write:
        record(found)
    if found:
        named = {attack.id for each in corpus.detections for attack in each.attack}
        print(f"ATT&CK ids: {len(named)} named, {len(found)} verified by a detonation: {', '.join(found)}")
    if {"stratus", "invictus"} <= set(chosen) and said.data.is_dir() and found != recorded():
        print('evaluation/verified.toml says otherwise: make evaluate ARGS="--write stratus invictus", then make docs')
        missed += 1
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
