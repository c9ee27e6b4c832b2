-- ---
-- title        = "Instance Secrets Downloaded"
-- severity     = "high"
-- attack       = [
--   { id = "T1552", why = "start-up scripts hold passwords and keys, and the encrypted password of Windows is an administrator's" },
--   { id = "T1552.005", why = "what the instance's metadata service would tell is asked for through the API" },
--   { id = "T1580", why = "instance after instance is looked into" },
-- ]
-- about        = "Somebody asked for the administrator passwords or the start-up scripts (user data) of many instances within minutes, or tried to."
-- benign       = [
--   "Terraform reads user data, with the other attributes of the same instances: not counted",
--   "Administrators of many Windows machines: list them in trusted_principals",
-- ]
-- event_names  = ["GetPasswordData", "DescribeInstanceAttribute"]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "10m"
-- runbook      = """
-- 1. Which instances, and did it work? SELECT event_time, event_name, error_code, request_parameters FROM events WHERE principal = '…' AND event_name IN ('GetPasswordData', 'DescribeInstanceAttribute') ORDER BY event_time.
-- 2. Who is it? Ask the owner of the key or role; see where it came from before: SELECT DISTINCT source_net FROM activity WHERE principal = '…'.
-- 3. If it worked: read those start-up scripts yourself (aws ec2 describe-instance-attribute --attribute userData) and rotate every password and key in them; change the administrators' passwords.
-- 4. Cut the caller off, and look for sessions and sign-ins on the instances since.
-- 5. Move secrets out of user data into a secret store.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.credential-access.ec2-get-password-data/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.discovery.ec2-download-user-data/",
-- ]
--
-- [params.instances]
-- type    = "int"
-- default = 5
-- about   = "Different instances within ten minutes that are many"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.instanceId'),
      nullif(regexp_extract(error_message, 'instance/(i-[0-9a-z]+)', 1), '')) AS instance,
    event_name = 'GetPasswordData' AS of_password,
    -- Without parameters, as in some refusals, nobody knows which attribute it was.
    coalesce(json_extract_string(request_parameters, '$.attribute'), 'userData') = 'userData' AS telling
  FROM events
  WHERE event_source = 'ec2.amazonaws.com' AND event_name IN ('GetPasswordData', 'DescribeInstanceAttribute')
    AND actor_kind <> 'aws_service' AND (success OR denied)
),
-- Whoever asks for other attributes of the instance, too, takes stock of it as Terraform does.
asked AS (
  SELECT c.*
  FROM calls AS c
  WHERE c.telling AND c.instance IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM calls AS o
    WHERE NOT o.telling AND c.success AND NOT c.of_password
      AND o.account = c.account AND o.principal = c.principal AND o.instance = c.instance
      AND o.event_time BETWEEN c.event_time - INTERVAL 2 MINUTE AND c.event_time + INTERVAL 2 MINUTE)
),
minutes AS (
  SELECT
    account, principal, date_trunc('minute', event_time) AS minute,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    list(event_id ORDER BY event_time, event_id) AS ids,
    list(DISTINCT instance) AS instances,
    coalesce(list(DISTINCT instance) FILTER (success), []) AS got,
    bool_or(of_password) AS passwords
  FROM asked
  GROUP BY ALL
),
windows AS (
  SELECT
    * EXCLUDE (ids, instances, got, passwords),
    flatten(list(ids) OVER before) AS ids,
    list_distinct(flatten(list(instances) OVER before)) AS instances,
    list_distinct(flatten(list(got) OVER before)) AS got,
    bool_or(passwords) OVER before AS passwords
  FROM minutes
  WINDOW before AS (
    PARTITION BY account, principal ORDER BY minute RANGE BETWEEN INTERVAL 9 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  concat(len(instances), ' instances') AS target,
  concat(last_part(principal), CASE WHEN len(got) > 0 THEN ' asked for' ELSE ' was refused' END, ' the ',
    CASE WHEN passwords THEN 'passwords' ELSE 'user data' END, ' of ', len(instances), ' instances within ten minutes') AS summary,
  CASE
    WHEN list_contains(getvariable('instance_secrets_downloaded_trusted_principals'), principal) THEN 'low'
    WHEN len(got) > 0 THEN 'high'
    ELSE 'medium'
  END AS severity,
  ids AS event_ids
FROM windows
WHERE len(instances) >= getvariable('instance_secrets_downloaded_instances')
