"""Housekeeping of the lake: `compact`, `retain`, `check`, `rebuild` and `restore`, a module each.

    files of a partition ─▶ make others in staging ─▶ swap (one transaction) ─▶ retire the old ─▶ publish the new

A swap requires that everything it read is still live; so nothing rests on there being one maintainer only.
"""
