-- ---
-- title        = "KMS Key Destruction"
-- severity     = "medium"
-- attack       = [
--   { id = "T1485", why = "without its key, everything encrypted with it is lost for good" },
--   { id = "T1486", why = "a key that only the intruder can bring back holds data to ransom" },
-- ]
-- about        = "An encryption key was scheduled for deletion, disabled, or lost its imported material."
-- benign       = [
--   "A key created within the last day by the same principal (low): infrastructure as code, applied and destroyed",
--   "A deletion that is cancelled, or a key that is enabled again, within the hour (low)",
-- ]
-- event_names  = [
--   "ScheduleKeyDeletion", "CancelKeyDeletion", "DisableKey", "EnableKey", "DeleteImportedKeyMaterial", "CreateKey",
--   "DisconnectCustomKeyStore", "DeleteCustomKeyStore",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "24h"
-- runbook      = """
-- 1. Stop it: aws kms cancel-key-deletion --key-id …; aws kms enable-key --key-id …. A deletion cannot be undone once its waiting time is over.
-- 2. What depends on the key? SELECT event_source, principal, count(*) FROM events WHERE account = '…' AND event_name IN ('Decrypt', 'GenerateDataKey') AND contains(resources, '…') GROUP BY ALL.
-- 3. Who is the actor, and what else did it destroy? SELECT event_time, event_source, event_name FROM events WHERE account = '…' AND principal = '…' AND is_write ORDER BY event_time.
-- 4. Deny kms:ScheduleKeyDeletion, kms:DisableKey and kms:DeleteImportedKeyMaterial to all but a break-glass role.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/kms/latest/developerguide/deleting-keys.html",
--   "https://traildiscover.cloud/#KMS-ScheduleKeyDeletion",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that retire keys as their work: at most low"
--
-- [params.short_wait_days]
-- type    = "int"
-- default = 7
-- about   = "A waiting time of so many days or fewer is high: the shortest that AWS allows is 7, the usual one 30"
--
-- [params.keys]
-- type    = "int"
-- default = 3
-- about   = "Keys lost within half an hour by one principal that are high"
-- ---
WITH calls AS (
  SELECT
    *,
    -- A key is named by its id or by its ARN.
    last_part(coalesce(json_extract_string(request_parameters, '$.keyId'), json_extract_string(request_parameters, '$.customKeyStoreId'))) AS key,
    last_part(json_extract_string(response_elements, '$.keyMetadata.keyId')) AS made,
    event_name IN ('ScheduleKeyDeletion', 'DisableKey', 'DeleteImportedKeyMaterial', 'DisconnectCustomKeyStore', 'DeleteCustomKeyStore') AS losing
  FROM events
  WHERE event_source = 'kms.amazonaws.com'
    AND event_name IN ('ScheduleKeyDeletion', 'CancelKeyDeletion', 'DisableKey', 'EnableKey', 'DeleteImportedKeyMaterial', 'CreateKey',
      'DisconnectCustomKeyStore', 'DeleteCustomKeyStore')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
lost AS (
  SELECT
    *,
    count(DISTINCT key) FILTER (success) OVER recent AS keys,
    -- A key that comes late makes those after it many.
    list(event_id) FILTER (success) OVER recent AS ids
  FROM calls
  WHERE losing
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
calmed AS (
  SELECT
    l.*,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE l.success AND c.success AND c.account = l.account AND c.key = l.key
        AND (l.event_name = 'ScheduleKeyDeletion' AND c.event_name = 'CancelKeyDeletion'
          OR l.event_name = 'DisableKey' AND c.event_name = 'EnableKey')
        AND c.event_time BETWEEN l.event_time AND l.event_time + INTERVAL 60 MINUTE) AS undone,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE l.success AND c.event_name = 'CreateKey'
        AND c.account = l.account AND c.principal = l.principal AND c.made = l.key
        AND c.event_time BETWEEN l.event_time - INTERVAL 24 HOUR AND l.event_time) AS created
  FROM lost AS l
),
judged AS (
  SELECT *, undone IS NULL AND created IS NULL AND success AND keys >= getvariable('kms_key_destruction_keys') AS many
  FROM calmed
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(key, 'a key') AS target,
  concat(
    CASE
      WHEN many THEN concat(keys, ' keys are to be lost within 30 minutes')
      WHEN event_name = 'ScheduleKeyDeletion' THEN concat('Key ', key, ' is to be deleted in ',
        coalesce(json_extract_string(request_parameters, '$.pendingWindowInDays'), '30'), ' days')
      ELSE concat(event_name, ' on ', coalesce(key, 'a key'))
    END,
    CASE WHEN undone IS NOT NULL THEN ', and was undone' WHEN created IS NOT NULL THEN ' by whoever had just created it'
      WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success OR undone IS NOT NULL OR created IS NOT NULL
      OR list_contains(getvariable('kms_key_destruction_trusted_principals'), principal) THEN 'low'
    WHEN many OR event_name IN ('DeleteImportedKeyMaterial', 'DeleteCustomKeyStore')
      OR TRY_CAST(json_extract_string(request_parameters, '$.pendingWindowInDays') AS INT) <= getvariable('kms_key_destruction_short_wait_days')
      THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_concat([event_id], coalesce(undone, []), coalesce(created, []), CASE WHEN many THEN ids ELSE [] END) AS event_ids
FROM judged
