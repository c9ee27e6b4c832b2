-- ---
-- title        = "Federation Token Requested"
-- severity     = "medium"
-- attack       = [
--   { id = "T1550.001", why = "the token is used in place of the key, and outlives its deactivation" },
--   { id = "T1078.004", why = "its calls come from a name that the caller chose" },
-- ]
-- about        = "Long-term credentials were turned into a session: GetFederationToken, GetSessionToken without MFA, or a sign-in token that opens the console without password and MFA. Deactivating the key does not end it."
-- benign       = [
--   "A broker of one's own that signs people in: after three days of use from its network it is usual (low)",
--   "The portal of IAM Identity Center fetches sign-in tokens: no finding",
--   "Tools that open the console for a role (aws-vault, Granted, Leapp): list the roles in trusted_principals",
-- ]
-- event_names  = ["GetFederationToken", "GetSessionToken", "GetSigninToken"]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Ask the owner of the key: do they run a broker, and from that address?
-- 2. What did the session do? SELECT * FROM events WHERE user_arn LIKE '%:federated-user/<name>' OR source_ip_address = '…' ORDER BY event_time.
-- 3. Deactivate the key, and end its sessions as well: an inline policy on the user that denies everything with aws:TokenIssueTime before now.
-- 4. Was the console opened? SELECT * FROM events WHERE event_name = 'ConsoleLogin' AND actor_kind = 'federated'.
-- 5. Deny sts:GetFederationToken by a service control policy where nobody needs it.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html",
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_enable-console-custom-url.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.sts-federation-token/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that broker sessions as their work: at most low"
--
-- [params.usual_days]
-- type    = "int"
-- default = 3
-- about   = "Days of the last 30 on which a caller did the same from the same network, before it is usual"
-- ---
WITH asked AS (
  SELECT
    *,
    coalesce(policy_power(policy_document(request_parameters, '$.policy')) IN ('everything', 'rights'), false)
      OR len(list_filter(
        list_concat(json_texts(request_parameters, '$.policyArns'), json_extract_string(request_parameters, '$.policyArns[*].arn')),
        lambda a: last_part(a) IN ('AdministratorAccess', 'IAMFullAccess', 'PowerUserAccess'))) > 0 AS powerful
  FROM events
  WHERE actor_kind <> 'aws_service' AND (
    (event_source = 'sts.amazonaws.com' AND event_name = 'GetFederationToken' AND (success OR denied))
    OR (event_source = 'sts.amazonaws.com' AND event_name = 'GetSessionToken' AND success
      AND json_extract_string(request_parameters, '$.serialNumber') IS NULL)
    OR (event_source = 'signin.amazonaws.com' AND event_name = 'GetSigninToken' AND success AND actor_kind <> 'sso'))
),
judged AS (
  SELECT
    a.*,
    (SELECT count(DISTINCT h.date)
      FROM activity AS h
      WHERE h.account = a.account AND h.principal = a.principal AND h.source_net = a.source_net
        AND h.event_source = a.event_source AND h.event_name = a.event_name AND h.success
        AND h.date < a.date AND h.date >= a.date - 30) >= getvariable('federation_token_requested_usual_days') AS usual
  FROM asked AS a
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(json_extract_string(request_parameters, '$.name'), last_part(principal)) AS target,
  concat(last_part(principal),
    CASE
      WHEN event_name = 'GetSigninToken' THEN ' turned a session into a console sign-in'
      WHEN event_name = 'GetSessionToken' THEN ' turned its key into a session without MFA'
      WHEN powerful THEN concat(' turned its key into an administrator''s session called ', json_extract_string(request_parameters, '$.name'))
      ELSE concat(' turned its key into a session called ', json_extract_string(request_parameters, '$.name'))
    END,
    CASE WHEN denied THEN '; it was refused' ELSE '' END) AS summary,
  CASE
    WHEN denied OR list_contains(getvariable('federation_token_requested_trusted_principals'), principal) THEN 'low'
    WHEN event_name = 'GetFederationToken' AND (powerful OR actor_kind = 'root') THEN CASE WHEN usual THEN 'medium' ELSE 'high' END
    WHEN event_name = 'GetSigninToken' AND actor_kind = 'federated' THEN CASE WHEN usual THEN 'low' ELSE 'high' END
    WHEN event_name = 'GetSessionToken' OR usual THEN 'low'
    ELSE 'medium'
  END AS severity
FROM judged
WHERE event_name <> 'GetSessionToken' OR NOT usual
