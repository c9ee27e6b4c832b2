-- The lake as `events` and `activity`, for any DuckDB shell. Say where it is first: SET VARIABLE lake = '/…/lake';
-- Files are found by name, so a batch that was committed a moment ago may be missing until it is published.

CREATE OR REPLACE VIEW events AS SELECT * FROM read_parquet(getvariable('lake') || '/events/*/*/*.parquet',
  hive_partitioning = true, hive_types = {'account': VARCHAR, 'date': DATE}, union_by_name = true);

CREATE OR REPLACE VIEW activity AS SELECT * FROM read_parquet(getvariable('lake') || '/activity/*/*/*.parquet',
  hive_partitioning = true, hive_types = {'account': VARCHAR, 'date': DATE}, union_by_name = true);

-- What the last check saw, and the alerts, are in the state database; here these are empty, unless you fill them.
CREATE OR REPLACE TABLE trails (
  integration VARCHAR, name VARCHAR, arn VARCHAR, bucket VARCHAR, prefix VARCHAR, home_region VARCHAR,
  multi_region BOOLEAN, organization BOOLEAN, logging BOOLEAN, latest_delivery_at TIMESTAMP,
  latest_delivery_error VARCHAR, kms_key_id VARCHAR, checked_at TIMESTAMP);
CREATE OR REPLACE TABLE accounts (account VARCHAR, integration VARCHAR);
CREATE OR REPLACE TABLE alerts (
  alert_id VARCHAR, detection VARCHAR, title VARCHAR, severity VARCHAR, status VARCHAR, account VARCHAR, region VARCHAR,
  actor VARCHAR, source_ip VARCHAR, target VARCHAR, summary VARCHAR, first_seen TIMESTAMP, last_seen TIMESTAMP,
  event_count BIGINT, historical BOOLEAN, attack VARCHAR[], event_ids VARCHAR[]);
CREATE OR REPLACE TABLE alert_events (alert_id VARCHAR, event_id VARCHAR, event_time TIMESTAMP, historical BOOLEAN);
