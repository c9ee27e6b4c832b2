-- ---
-- title        = "Password Set For Another User"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.001", why = "the password opens the console as somebody else" },
--   { id = "T1078.004", why = "what is done with it is done in the other user's name" },
-- ]
-- about        = "Somebody gave an IAM user who is not themselves a console password, or changed it; or a user of access keys gave itself one."
-- benign       = [
--   "A help desk that resets passwords, to be changed at the next sign-in (medium): list it in trusted_principals",
--   "The first password of a user that the same hand has just created (low: IAM User Created reports it)",
-- ]
-- event_names  = ["CreateLoginProfile", "UpdateLoginProfile", "CreateUser"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "30m"
-- runbook      = """
-- 1. Call the user: do they know of it, did they ask for it?
-- 2. Was the password used? SELECT * FROM events WHERE event_name = 'ConsoleLogin' AND user_name = '…' ORDER BY event_time.
-- 3. If it was not wanted: aws iam delete-login-profile --user-name …; then revoke the user's sessions by an inline Deny.
-- 4. Then the actor: SELECT * FROM events WHERE principal = '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateLoginProfile.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-create-user-login-profile/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.privilege-escalation.iam-update-user-login-profile/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that set passwords as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.userName'), refused_target(error_message)) AS whose
  FROM events
  WHERE event_source = 'iam.amazonaws.com' AND event_name IN ('CreateLoginProfile', 'UpdateLoginProfile', 'CreateUser')
    AND (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
judged AS (
  SELECT
    c.*,
    n.event_id AS created_id,
    is_same_user(c.user_type, c.user_name, c.user_arn, c.whose) AS own,
    -- Single sign-on names sessions after people. Elsewhere whoever assumes a role chooses the session's name.
    coalesce(lower(c.session_name) = lower(c.whose), false) AS namesake
  FROM calls AS c
  LEFT JOIN LATERAL (
    SELECT min(u.event_id) AS event_id
    FROM calls AS u
    WHERE u.account = c.account AND u.event_name = 'CreateUser' AND u.success
      AND u.principal = c.principal AND lower(u.whose) = lower(c.whose)
      AND u.event_time BETWEEN c.event_time - INTERVAL 30 MINUTE AND c.event_time
  ) AS n ON true
  WHERE c.event_name <> 'CreateUser' AND c.whose <> 'AWS ROOT USER'
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  whose AS target,
  concat(
    CASE WHEN own THEN concat(whose, ' gave itself a console password')
      WHEN event_name = 'CreateLoginProfile' THEN concat(whose, ' was given a console password by ', last_part(principal))
      ELSE concat('The console password of ', whose, ' was changed by ', last_part(principal)) END,
    CASE WHEN denied THEN '; it was refused' WHEN created_id IS NOT NULL THEN ', right after the user was created' ELSE '' END) AS summary,
  CASE
    WHEN denied OR created_id IS NOT NULL THEN 'low'
    WHEN list_contains(getvariable('password_set_for_another_user_trusted_principals'), principal) THEN 'low'
    WHEN namesake THEN 'low'
    WHEN own THEN 'medium'
    WHEN lower(json_extract_string(request_parameters, '$.passwordResetRequired')) = 'true' THEN 'medium'
    ELSE 'high'
  END AS severity,
  list_filter([event_id, created_id], lambda i: i IS NOT NULL) AS event_ids
FROM judged
WHERE NOT (event_name = 'UpdateLoginProfile' AND (own OR (actor_kind = 'sso' AND namesake)))
