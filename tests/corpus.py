"""The built-in detections and all their cases, read once for every test of a process."""

from __future__ import annotations

from kyra_etl import resources
from kyra_etl.cases import load_cases
from kyra_etl.detection.rule import Corpus

CORPUS = Corpus.load([resources.detections_dir()])
CASES = load_cases([resources.cases_dir()])
