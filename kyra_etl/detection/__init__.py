"""Detections as values: what a file says (rule), what its rows become (alerts), what they are called (attack). Pure."""
