-- ---
-- title  = "Activity that differs from the events"
-- about  = "The daily roll-up says something else than the events it was made of; first-seen detections compare with it."
-- remedy = "Run `kyra maintain rebuild` for these accounts and days."
-- ---
-- Days with files that are broken or missing are told by other checks.
WITH sound AS (
  SELECT account, date FROM files WHERE kind IN ('events', 'activity')
  GROUP BY ALL HAVING bool_and(problem IS NULL AND found_size IS NOT NULL AND found_rows = rows)
), told AS (
  SELECT account, date, principal, actor_kind, access_key, source_net, region, event_source, event_name, is_write, success,
    min(first_seen) AS first_seen, max(last_seen) AS last_seen, sum(count)::BIGINT AS count
  FROM activity SEMI JOIN sound USING (account, date) GROUP BY ALL
), happened AS (
  SELECT account, date, principal, actor_kind,
    CASE WHEN access_key_kind = 'AKIA' THEN user_access_key_id END AS access_key, source_net, aws_region AS region,
    event_source, event_name, is_write, success,
    min(event_time) AS first_seen, max(event_time) AS last_seen, count(*) AS count
  FROM events SEMI JOIN sound USING (account, date) GROUP BY ALL
), differing AS (
  (SELECT 'only in activity' AS what, * FROM (FROM told EXCEPT ALL FROM happened))
  UNION ALL
  (SELECT 'only in events' AS what, * FROM (FROM happened EXCEPT ALL FROM told))
)
SELECT account, date, what, count(*) AS rows, min(event_name) AS for_example FROM differing
GROUP BY account, date, what ORDER BY ALL
