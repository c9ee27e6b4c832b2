-- ---
-- title         = "MFA Disabled"
-- severity      = "high"
-- attack        = [
--   { id = "T1556.006", why = "the account signs in without its second factor from now on" },
--   { id = "T1098.005", why = "somebody else registered a device in its place" },
--   { id = "T1556", why = "the way this user authenticates was changed" },
-- ]
-- about         = "A user's MFA device was deactivated or deleted, so a password alone opens the account."
-- benign        = [
--   "A lost or new phone: the same user enables another device from the same address within the hour (info)",
--   "Off-boarding: the user is deleted soon after (low)",
--   "A help desk: list its role in trusted_principals",
-- ]
-- event_names   = [
--   "DeactivateMFADevice", "DeleteVirtualMFADevice", "EnableMFADevice", "DeleteUser", "ConsoleLogin",
--   "DeleteMfaDeviceForUser", "PutMfaDeviceManagementForDirectory", "UpdateSsoConfiguration",
-- ]
-- group_by      = ["account", "actor"]
-- group_window  = "6h"
-- only_named    = true
-- lookback      = "60m"
-- runbook       = """
-- 1. Call the user: was this them, or the help desk on their request?
-- 2. Did that user sign in without MFA since? SELECT event_time, source_ip_address, additional_event_data FROM events WHERE event_name = 'ConsoleLogin' AND user_name = '…' ORDER BY event_time.
-- 3. Enable MFA again; rotate the user's password and access keys.
-- 4. Review everything the actor did that day.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeactivateMFADevice.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/mfa-configure.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that reset devices as their work: at most low, unless a stranger registers a device"
--
-- [params.admin_users]
-- type    = "list[str]"
-- default = []
-- about   = "Users whose MFA is critical to lose"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.serialNumber') AS serial,
    coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(request_parameters, '$.userId'),
      refused_user(error_message),
      -- A key of FIDO2 is u2f/user/alice/name-…, a virtual device mfa/alice.
      nullif(regexp_extract(json_extract_string(request_parameters, '$.serialNumber'), ':u2f/user/([^/]+)/', 1), ''),
      nullif(regexp_extract(json_extract_string(request_parameters, '$.serialNumber'), ':mfa/(?:.*/)?([^/]+)$', 1), '')
    ) AS user_named
  FROM events
  WHERE NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn) AND (
    event_source = 'iam.amazonaws.com'
      AND event_name IN ('DeactivateMFADevice', 'DeleteVirtualMFADevice', 'EnableMFADevice', 'DeleteUser')
    OR event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin'
    OR event_source IN ('sso-directory.amazonaws.com', 'sso.amazonaws.com', 'identitystore.amazonaws.com')
      AND event_name IN ('DeleteMfaDeviceForUser', 'PutMfaDeviceManagementForDirectory', 'UpdateSsoConfiguration'))
),
disabled AS (
  SELECT
    *,
    lower(user_named) AS user_key,
    regexp_matches(serial, 'root-account|:u2f/root') OR user_named = 'AWS ROOT USER'
      OR (actor_kind = 'root' AND user_named IS NULL) AS of_root
  FROM calls
  WHERE event_name IN ('DeactivateMFADevice', 'DeleteVirtualMFADevice', 'DeleteMfaDeviceForUser') AND (success OR denied)
),
-- What happened to the same user or device around it.
around AS (
  SELECT d.account, d.event_id, a.*
  FROM disabled AS d
  LEFT JOIN LATERAL (
    SELECT
      list(c.event_id) FILTER (c.event_name = 'DeactivateMFADevice' AND c.serial = d.serial) AS deactivated,
      list(c.event_id) FILTER (
        c.event_name = 'EnableMFADevice' AND lower(c.user_named) = d.user_key AND c.event_time >= d.event_time) AS renewed,
      list(c.event_id) FILTER (
        c.event_name = 'EnableMFADevice' AND lower(c.user_named) = d.user_key AND c.event_time >= d.event_time
        AND (c.principal IS DISTINCT FROM d.principal OR c.source_ip_address IS DISTINCT FROM d.source_ip_address)) AS taken_over,
      list(c.event_id) FILTER (
        lower(c.user_name) = d.user_key AND c.event_time >= d.event_time
        AND json_extract_string(c.additional_event_data, '$.MFAUsed') = 'No') AS signed_in,
      list(c.event_id) FILTER (
        c.event_name = 'DeleteUser' AND lower(c.user_named) = d.user_key
        AND c.event_time BETWEEN d.event_time AND d.event_time + INTERVAL 30 MINUTE) AS left_us
    FROM calls AS c
    WHERE c.account = d.account AND c.success
      AND c.event_time BETWEEN d.event_time - INTERVAL 10 MINUTE AND d.event_time + INTERVAL 60 MINUTE
  ) AS a ON true
),
tried AS (
  SELECT
    account, event_id,
    count(DISTINCT user_key) OVER recent AS users,
    list(event_id) OVER recent AS ids
  FROM disabled
  WHERE denied
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 60 MINUTE PRECEDING AND CURRENT ROW)
),
judged AS (
  SELECT
    d.*, a.deactivated, a.renewed, a.taken_over, a.signed_in, a.left_us, t.users, t.ids AS tried_ids,
    CASE
      WHEN d.denied THEN CASE WHEN t.users >= 2 THEN 'medium' ELSE 'low' END
      WHEN d.of_root THEN 'critical'
      WHEN a.taken_over IS NOT NULL OR a.signed_in IS NOT NULL THEN 'critical'
      WHEN a.renewed IS NOT NULL THEN 'info'
      WHEN a.left_us IS NOT NULL THEN 'low'
      WHEN list_contains(getvariable('mfa_disabled_trusted_principals'), d.principal) THEN 'low'
      -- AWS deletes only devices that nobody uses: what counts is the deactivation before it.
      WHEN d.event_name = 'DeleteVirtualMFADevice' AND a.deactivated IS NULL THEN 'low'
      WHEN list_contains(getvariable('mfa_disabled_admin_users'), d.user_named) THEN 'critical'
      ELSE severity_of(
        CASE WHEN lower(d.user_name) = d.user_key THEN 3 ELSE 4 END
        -- A session without MFA should not take it from others. Single sign-on never says that it had one.
        + CASE WHEN d.mfa_authenticated = false AND d.actor_kind IN ('iam_user', 'role') THEN 1 ELSE 0 END)
    END AS severity
  FROM disabled AS d
  JOIN around AS a USING (account, event_id)
  LEFT JOIN tried AS t USING (account, event_id)
),
found AS (
  SELECT
    *,
    CASE WHEN of_root THEN 'root' ELSE coalesce(user_named, serial) END AS target,
    concat('MFA of ', CASE WHEN of_root THEN 'root' ELSE coalesce(user_named, serial, 'a user') END,
      CASE
        WHEN denied THEN ' was to be removed; the call was refused'
        WHEN taken_over IS NOT NULL THEN ' was removed, and somebody else registered a device'
        WHEN signed_in IS NOT NULL THEN ' was removed, and the user signed in without it'
        WHEN renewed IS NOT NULL THEN ' was renewed'
        WHEN left_us IS NOT NULL THEN ' was removed before the user was deleted'
        ELSE ' was removed'
      END) AS summary,
    list_concat([event_id], coalesce(deactivated, []), coalesce(renewed, []), coalesce(taken_over, []),
      coalesce(signed_in, []), coalesce(left_us, []), coalesce(tried_ids, [])) AS event_ids
  FROM judged
  UNION ALL BY NAME
  -- Identity Center as a whole: MFA asked for less often, or not at all.
  SELECT
    *,
    CASE WHEN NOT success THEN 'low' ELSE 'high' END AS severity,
    'IAM Identity Center' AS target,
    concat('MFA of IAM Identity Center was weakened', CASE WHEN success THEN '' ELSE ': the call was refused' END) AS summary,
    [event_id] AS event_ids
  FROM calls
  WHERE (success OR denied)
    AND regexp_matches(request_parameters, '"(mfaMode|noMfaSignInBehavior|noPasswordSignInBehavior|mfaEnrollmentMode)"\s*:\s*"(DISABLED|OPTIONAL|NEVER|ALLOWED|ALLOW|OFF)"')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  target,
  summary,
  severity,
  event_ids
FROM found
