-- ---
-- title        = "CloudShell Used"
-- severity     = "medium"
-- attack       = [
--   { id = "T1059.009", why = "a command line inside the account works with the console's session, and from an address of AWS" },
-- ]
-- about        = "Somebody opened CloudShell for the first time, or changed identities from there within the hour."
-- benign       = ["An administrator who likes CloudShell: known after the first hour"]
-- event_names  = [
--   "CreateEnvironment", "StartEnvironment", "CreateSession", "GetFileDownloadUrls",
--   "CreateUser", "CreateAccessKey", "CreateLoginProfile", "UpdateLoginProfile", "AttachUserPolicy", "AttachRolePolicy",
--   "PutUserPolicy", "PutRolePolicy", "AddUserToGroup", "CreateRole", "UpdateAssumeRolePolicy", "CreatePolicyVersion",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was done from there? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND user_agent LIKE '%exec-env/CloudShell%' ORDER BY event_time.
-- 2. Ask the person. A thief with a stolen console session likes CloudShell: no key leaves the account.
-- 3. Files that left: SELECT * FROM events WHERE event_source = 'cloudshell.amazonaws.com' AND event_name = 'GetFileDownloadUrls'.
-- 4. Undo what was made: new users, keys, passwords, policies; then end the console session and change the password.
-- 5. Close CloudShell to whom it is not meant for: deny cloudshell:* in a service control policy.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/cloudshell/latest/userguide/logging-and-monitoring.html",
--   "https://attack.mitre.org/techniques/T1059/009/",
-- ]
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before opening it is new"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of people who work there: low"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_source = 'cloudshell.amazonaws.com' AS of_shell
  FROM events
  WHERE (
      event_source = 'cloudshell.amazonaws.com' AND event_name IN ('CreateEnvironment', 'StartEnvironment', 'CreateSession', 'GetFileDownloadUrls')
      OR event_source = 'iam.amazonaws.com' AND event_name IN (
        'CreateUser', 'CreateAccessKey', 'CreateLoginProfile', 'UpdateLoginProfile', 'AttachUserPolicy', 'AttachRolePolicy',
        'PutUserPolicy', 'PutRolePolicy', 'AddUserToGroup', 'CreateRole', 'UpdateAssumeRolePolicy', 'CreatePolicyVersion'))
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND success
),
-- From the shell, not from the browser beside it: another network than the one the shell was opened from.
changes AS (
  SELECT c.account, c.event_id, list(s.event_id ORDER BY s.event_time, s.event_id) AS shell_ids
  FROM calls AS c
  JOIN calls AS s
    ON s.of_shell AND s.account = c.account AND s.caller = c.caller
    AND s.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time
    AND (s.source_net IS DISTINCT FROM c.source_net OR coalesce(contains(c.user_agent, 'exec-env/CloudShell'), false))
  WHERE NOT c.of_shell
  GROUP BY c.account, c.event_id
),
habits AS MATERIALIZED (
  SELECT
    account, principal,
    min(first_seen) AS first_seen,
    min(first_seen) FILTER (success AND event_source = 'cloudshell.amazonaws.com') AS first_shell,
    min(first_seen) FILTER (success AND event_source = 'cloudshell.amazonaws.com' AND event_name = 'GetFileDownloadUrls') AS first_download
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM calls)
  GROUP BY ALL
),
judged AS (
  SELECT
    c.*,
    h.shell_ids,
    coalesce(CASE WHEN c.event_name = 'GetFileDownloadUrls' THEN a.first_download ELSE a.first_shell END < c.event_time - INTERVAL 1 HOUR, false) AS known,
    coalesce(a.first_seen > c.event_time - to_days(CAST(getvariable('cloudshell_used_learning_days') AS INT)), true) AS learning
  FROM calls AS c
  LEFT JOIN changes AS h USING (account, event_id)
  LEFT JOIN habits AS a USING (account, principal)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(
    json_extract_string(request_parameters, '$.userName'), json_extract_string(request_parameters, '$.roleName'),
    CASE WHEN of_shell THEN 'CloudShell' ELSE 'identities' END) AS target,
  CASE
    WHEN NOT of_shell THEN concat(last_part(caller), ' called ', event_name, ' from CloudShell')
    WHEN event_name = 'GetFileDownloadUrls' THEN concat(last_part(caller), ' took files out of CloudShell for the first time')
    ELSE concat(last_part(caller), ' opened CloudShell for the first time')
  END AS summary,
  CASE
    WHEN of_shell OR known OR list_contains(getvariable('cloudshell_used_trusted_principals'), principal) THEN 'low'
    ELSE 'medium'
  END AS severity,
  list_append(coalesce(shell_ids, []), event_id) AS event_ids,
  caller
FROM judged
WHERE shell_ids IS NOT NULL OR of_shell AND NOT known AND NOT learning
