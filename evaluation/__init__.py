"""How well the detections do, measured where anyone can repeat it: `make evaluate`, `make mutate`, docs/evaluation.md.

road.py           records → load → detections → alerts, every user agent replaced
detonations.py    recorded attacks: is each technique caught, on the calls that identify it?
labelled.py       cases that others labelled: do we say yes and no where they do?
truths/           what identifies a technique, which rules we answer for; ours, by id
"""
