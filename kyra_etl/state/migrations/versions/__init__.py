"""One module a step, named by its number. A step, once released, is never edited."""
