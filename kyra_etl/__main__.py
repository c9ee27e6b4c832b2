"""`python -m kyra_etl` is `kyra`."""

from kyra_etl.cli import main

main()
