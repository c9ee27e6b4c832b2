-- ---
-- title         = "GuardDuty Impaired"
-- severity      = "high"
-- attack        = [
--   { id = "T1685", why = "the service that would report the intruder is off, blind or told to keep quiet" },
-- ]
-- attack_legacy = ["T1562.001"]
-- about         = "GuardDuty was switched off, lost its members, or was told to trust addresses or to hide findings."
-- benign        = [
--   "A detector created within the last day by the same principal and deleted again (low)",
--   "Trusted address lists and suppression rules that your security team keeps: list its role in trusted_principals",
-- ]
-- event_names   = [
--   "CreateDetector", "DeleteDetector", "UpdateDetector", "StopMonitoringMembers", "DisassociateFromMasterAccount",
--   "DisassociateFromAdministratorAccount", "DeleteMembers", "DisassociateMembers", "DisableOrganizationAdminAccount",
--   "UpdateMemberDetectors", "CreateIPSet", "UpdateIPSet", "CreateFilter", "UpdateFilter", "DeletePublishingDestination",
-- ]
-- group_by      = ["account", "actor"]
-- group_window  = "6h"
-- only_named    = true
-- lookback      = "24h"
-- runbook       = """
-- 1. Switch it on again, in every region: aws guardduty list-detectors; aws guardduty update-detector --detector-id … --enable
-- 2. Take back lists and filters: aws guardduty list-ip-sets and list-filters --detector-id …; delete what nobody asked for.
-- 3. What did the actor do before and since? SELECT event_time, aws_region, event_source, event_name, error_code FROM events WHERE account = '…' AND principal = '…' ORDER BY event_time.
-- 4. Findings that were archived meanwhile are still there: aws guardduty list-findings with service.archived = true.
-- 5. Deny these calls outside the security account by a service control policy.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_suspend-disable.html",
--   "https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_upload-lists.html",
--   "https://traildiscover.cloud/#GuardDuty-DeleteDetector",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that run GuardDuty as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.detectorId') AS detector,
    json_extract_string(response_elements, '$.detectorId') AS made
  FROM events
  WHERE event_source = 'guardduty.amazonaws.com'
    AND event_name IN (
      'CreateDetector', 'DeleteDetector', 'UpdateDetector', 'StopMonitoringMembers', 'DisassociateFromMasterAccount',
      'DisassociateFromAdministratorAccount', 'DeleteMembers', 'DisassociateMembers', 'DisableOrganizationAdminAccount',
      'UpdateMemberDetectors', 'CreateIPSet', 'UpdateIPSet', 'CreateFilter', 'UpdateFilter', 'DeletePublishingDestination')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
judged AS (
  SELECT
    *,
    CASE
      WHEN event_name = 'DeleteDetector' THEN 'was deleted'
      WHEN event_name = 'UpdateDetector' AND json_is_false(request_parameters, '$.enable') THEN 'was suspended'
      WHEN event_name IN ('UpdateDetector', 'UpdateMemberDetectors')
        AND regexp_matches(request_parameters, '(?i)"(status|enable)"\s*:\s*("DISABLED"|"?false"?)') THEN 'lost a protection plan'
      WHEN event_name IN ('StopMonitoringMembers', 'DeleteMembers', 'DisassociateMembers') THEN 'no longer watches member accounts'
      WHEN event_name IN ('DisassociateFromMasterAccount', 'DisassociateFromAdministratorAccount') THEN 'left its administrator'
      WHEN event_name = 'DisableOrganizationAdminAccount' THEN 'lost its administrator'
      WHEN event_name IN ('CreateIPSet', 'UpdateIPSet') AND NOT json_is_false(request_parameters, '$.activate')
        THEN 'was told to trust addresses'
      WHEN event_name IN ('CreateFilter', 'UpdateFilter')
        AND (json_extract_string(request_parameters, '$.action') = 'ARCHIVE' OR denied) THEN 'was told to hide findings'
      WHEN event_name = 'DeletePublishingDestination' THEN 'no longer exports findings'
    END AS what,
    event_name IN ('DeleteDetector', 'StopMonitoringMembers', 'DeleteMembers', 'DisassociateMembers',
        'DisassociateFromMasterAccount', 'DisassociateFromAdministratorAccount', 'DisableOrganizationAdminAccount')
      OR coalesce(event_name = 'UpdateDetector' AND json_is_false(request_parameters, '$.enable'), false) AS grave
  FROM calls
),
calmed AS (
  SELECT
    j.*,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE j.event_name = 'DeleteDetector' AND c.event_name = 'CreateDetector' AND c.success
        AND c.account = j.account AND c.principal = j.principal AND c.made = j.detector
        AND c.event_time BETWEEN j.event_time - INTERVAL 24 HOUR AND j.event_time) AS created
  FROM judged AS j
  WHERE j.what IS NOT NULL
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(detector, 'GuardDuty') AS target,
  concat('GuardDuty in ', aws_region, ' ', what,
    CASE WHEN created IS NOT NULL THEN ' by whoever had just set it up' WHEN success THEN ''
      ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN created IS NOT NULL OR list_contains(getvariable('guardduty_impaired_trusted_principals'), principal) THEN 'low'
    WHEN success THEN CASE WHEN grave THEN 'high' ELSE 'medium' END
    ELSE CASE WHEN grave THEN 'medium' ELSE 'low' END
  END AS severity,
  list_append(coalesce(created, []), event_id) AS event_ids
FROM calmed
