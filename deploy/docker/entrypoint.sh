#!/bin/sh
# Prefect's Helm chart starts its workers through this file; an image of Prefect's installs packages here, ours has them.
exec "$@"
