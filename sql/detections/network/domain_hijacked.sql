-- ---
-- title        = "Domain Hijacked"
-- severity     = "high"
-- attack       = [
--   { id = "T1584.001", why = "whoever has the domain receives its mail, answers for its sites and gets certificates for it" },
--   { id = "T1557", why = "changed names lead users to somebody in between" },
-- ]
-- about        = "A registered domain was given away, unlocked or led elsewhere, or many names changed at once."
-- benign       = [
--   "A planned move of domains between accounts or registrars, with a ticket",
--   "Programs that change names all the time (external-dns, certificates): silent once they have done so on an earlier day",
-- ]
-- event_names  = [
--   "TransferDomainToAnotherAwsAccount", "DisableDomainTransferLock", "RetrieveDomainAuthCode", "UpdateDomainNameservers",
--   "DeleteDomain", "PushDomain", "UpdateDomainContact", "DisableDomainAutoRenew", "DisassociateDelegationSignerFromDomain",
--   "DisableHostedZoneDNSSEC", "DeactivateKeySigningKey", "ChangeResourceRecordSets",
-- ]
-- group_by     = ["account", "actor", "kind"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Stop a transfer: aws route53domains cancel-domain-transfer-to-another-aws-account --domain-name …; aws route53domains enable-domain-transfer-lock --domain-name ….
-- 2. Compare name servers and records with what they should be: aws route53domains get-domain-detail --domain-name …; aws route53 list-resource-record-sets --hosted-zone-id ….
-- 3. What was changed? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_source LIKE 'route53%' ORDER BY event_time.
-- 4. Look for certificates issued meanwhile in Certificate Transparency logs; warn users if mail or sign-ins went elsewhere.
-- 5. Take the actor's keys and sessions away; call AWS Support at once if the domain has left.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/domain-lock.html",
--   "https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/domain-transfer-between-aws-accounts.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage domains as their work: at most low"
--
-- [params.changes]
-- type    = "int"
-- default = 20
-- about   = "Names changed within ten minutes by somebody who did not change any on an earlier day"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.domainName') AS domain,
    CASE
      WHEN event_source = 'route53domains.amazonaws.com' AND event_name IN (
        'TransferDomainToAnotherAwsAccount', 'UpdateDomainNameservers', 'DeleteDomain', 'PushDomain') THEN 'high'
      WHEN event_source = 'route53domains.amazonaws.com' AND event_name IN (
        'DisableDomainTransferLock', 'RetrieveDomainAuthCode', 'UpdateDomainContact', 'DisassociateDelegationSignerFromDomain') THEN 'medium'
      WHEN event_source = 'route53.amazonaws.com' AND event_name IN ('DisableHostedZoneDNSSEC', 'DeactivateKeySigningKey') THEN 'medium'
      WHEN event_source = 'route53domains.amazonaws.com' AND event_name = 'DisableDomainAutoRenew' THEN 'low'
    END AS weight,
    CASE WHEN event_source = 'route53.amazonaws.com' AND event_name = 'ChangeResourceRecordSets'
      THEN greatest(1, len(json_items(request_parameters, '$.changeBatch.changes'))) END AS changes
  FROM events
  WHERE actor_kind <> 'aws_service'
    AND (success OR denied)
),
-- The lock was lifted and the code fetched that lets another registrar take the domain.
chained AS (
  SELECT
    c.*,
    (SELECT list(l.event_id)
      FROM calls AS l
      WHERE c.event_name = 'RetrieveDomainAuthCode' AND c.success AND l.event_name = 'DisableDomainTransferLock' AND l.success
        AND l.account = c.account AND l.domain = c.domain
        AND l.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time) AS unlocked
  FROM calls AS c
  WHERE c.weight IS NOT NULL
),
renamed AS (
  SELECT
    *,
    sum(changes) OVER recent AS sum_of_changes,
    list(event_id) OVER recent AS ids
  FROM calls AS c
  WHERE changes IS NOT NULL AND success
    AND NOT EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = 'route53.amazonaws.com'
        AND a.event_name = 'ChangeResourceRecordSets' AND a.success AND a.date < c.date)
    AND (is_by_hand(actor_kind, session_name)
      OR coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account) <= c.date - 14, false))
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
found AS (
  SELECT
    * EXCLUDE (unlocked, weight),
    coalesce(domain, last_part(json_extract_string(request_parameters, '$.hostedZoneId')), last_part(json_extract_string(request_parameters, '$.id')), 'a domain') AS target,
    concat(event_name, ' on ', coalesce(domain, 'a domain'),
      CASE WHEN unlocked IS NOT NULL THEN ', right after its transfer lock was lifted' WHEN success THEN ''
        ELSE concat(': tried, and failed with ', error_code) END) AS summary,
    CASE WHEN unlocked IS NOT NULL THEN 'critical' WHEN success THEN weight ELSE one_below(weight) END AS rated,
    list_append(coalesce(unlocked, []), event_id) AS event_ids,
    'domain' AS kind
  FROM chained
  WHERE success OR weight <> 'low'
  UNION ALL BY NAME
  SELECT
    * EXCLUDE (sum_of_changes, ids, weight),
    coalesce(last_part(json_extract_string(request_parameters, '$.hostedZoneId')), 'a hosted zone') AS target,
    concat(sum_of_changes, ' names were changed within 10 minutes') AS summary,
    'medium' AS rated,
    ids AS event_ids,
    'names' AS kind
  FROM renamed
  WHERE sum_of_changes >= getvariable('domain_hijacked_changes')
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
  CASE WHEN list_contains(getvariable('domain_hijacked_trusted_principals'), principal) THEN 'low' ELSE rated END AS severity,
  event_ids,
  kind
FROM found
