-- ---
-- title        = "Access Key Created For Another User"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.001", why = "the key is a second way in, as somebody else, that survives the intruder's own key" },
--   { id = "T1078.004", why = "calls with it are the other user's" },
-- ]
-- about        = "Somebody made, or switched on again, an access key or other credential of a user who is not themselves."
-- benign       = [
--   "An administrator, a rotation job or Terraform that hands out keys: list them in trusted_principals",
--   "The first key of a user that the same hand has just created (low: IAM User Created reports it)",
-- ]
-- event_names  = [
--   "CreateAccessKey", "UpdateAccessKey", "CreateServiceSpecificCredential", "ResetServiceSpecificCredential",
--   "UploadSigningCertificate", "UploadSSHPublicKey", "CreateUser",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "30m"
-- runbook      = """
-- 1. Ask the actor, not by way of the same account: was this them, and for whom is the key?
-- 2. What does the key do? SELECT * FROM events WHERE user_access_key_id = 'AKIA…' ORDER BY event_time. Its id is in response_elements.
-- 3. If it was not wanted: aws iam update-access-key --user-name … --access-key-id … --status Inactive; delete it later.
-- 4. Then the actor: SELECT * FROM events WHERE principal = '…' AND event_source = 'iam.amazonaws.com' ORDER BY event_time.
-- 5. What may the user do? Rotate the user's other keys and the actor's.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-backdoor-user/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that hand out keys as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(response_elements, '$.accessKey.userName'),
      json_extract_string(response_elements, '$.serviceSpecificCredential.userName'),
      refused_target(error_message)) AS whose
  FROM events
  WHERE event_source = 'iam.amazonaws.com'
    AND event_name IN ('CreateAccessKey', 'UpdateAccessKey', 'CreateServiceSpecificCredential', 'ResetServiceSpecificCredential',
      'UploadSigningCertificate', 'UploadSSHPublicKey', 'CreateUser')
    AND (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
judged AS (
  SELECT
    c.*,
    n.event_id AS created_id,
    CASE
      WHEN c.denied THEN 'low'
      WHEN list_contains(getvariable('access_key_created_for_another_user_trusted_principals'), c.principal) THEN 'low'
      WHEN n.event_id IS NOT NULL THEN 'low'
      WHEN c.event_name IN ('UpdateAccessKey', 'UploadSSHPublicKey') THEN 'medium'
      ELSE 'high'
    END AS severity
  FROM calls AS c
  LEFT JOIN LATERAL (
    SELECT min(u.event_id) AS event_id
    FROM calls AS u
    WHERE u.account = c.account AND u.event_name = 'CreateUser' AND u.success
      AND u.principal = c.principal AND lower(u.whose) = lower(c.whose)
      AND u.event_time BETWEEN c.event_time - INTERVAL 30 MINUTE AND c.event_time
  ) AS n ON true
  WHERE c.event_name <> 'CreateUser'
    -- Without a name it is the caller's own key.
    AND c.whose IS NOT NULL AND NOT is_same_user(c.user_type, c.user_name, c.user_arn, c.whose)
    AND (c.event_name <> 'UpdateAccessKey' OR json_extract_string(c.request_parameters, '$.status') = 'Active')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  whose AS target,
  concat(event_name, ' for ', whose, ' by ', last_part(principal),
    CASE WHEN denied THEN '; it was refused' WHEN created_id IS NOT NULL THEN ', a user created just before' ELSE '' END) AS summary,
  severity,
  list_filter([event_id, created_id], lambda i: i IS NOT NULL) AS event_ids
FROM judged
