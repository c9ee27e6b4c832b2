-- ---
-- title         = "Security Service Disabled"
-- severity      = "high"
-- attack        = [
--   { id = "T1685", why = "what would report the intruder's changes is off" },
--   { id = "T1686.001", why = "the firewall in front of an application or network was taken away" },
--   { id = "T1685.002", why = "without its recorder, AWS Config keeps no history of changes" },
-- ]
-- attack_legacy = ["T1562.001", "T1562.007"]
-- about         = "AWS Config, Security Hub, Macie, Inspector, Access Analyzer, Detective, Shield or a firewall was switched off."
-- benign        = [
--   "A recorder that is stopped to be changed and starts again within ten minutes (low)",
--   "Tearing down what infrastructure as code set up: list its role in trusted_principals",
--   "Moving the administration of these services to another account",
-- ]
-- event_names   = [
--   "StopConfigurationRecorder", "StartConfigurationRecorder", "DeleteConfigurationRecorder", "DeleteDeliveryChannel",
--   "DeleteConfigRule", "DeleteOrganizationConfigRule", "DeleteConformancePack", "DeleteRemediationConfiguration",
--   "DisableSecurityHub", "DisableSecurityHubV2", "BatchDisableStandards", "DisableImportFindingsForProduct", "BatchUpdateFindings",
--   "DisassociateMembers", "DeleteMembers", "DisassociateFromAdministratorAccount", "DisassociateFromMasterAccount",
--   "DisableOrganizationAdminAccount", "DisableMacie", "UpdateMacieSession", "DeleteMember", "DisassociateMember",
--   "Disable", "DisableDelegatedAdminAccount", "DeleteAnalyzer", "DeleteGraph",
--   "DeleteProtection", "DisableProactiveEngagement", "DisassociateDRTRole",
--   "DisassociateWebACL", "DeleteWebACL", "DeleteFirewall", "DeleteFirewallPolicy", "DisassociateFirewallPolicy",
-- ]
-- group_by      = ["account", "actor", "service"]
-- group_window  = "6h"
-- only_named    = true
-- lookback      = "10m"
-- runbook       = """
-- 1. Switch it on again first: aws configservice start-configuration-recorder, aws securityhub enable-security-hub, aws macie2 enable-macie, aws inspector2 enable, aws wafv2 associate-web-acl.
-- 2. Look into every region: SELECT aws_region, event_source, event_name, count(*) FROM events WHERE account = '…' AND principal = '…' AND is_write GROUP BY ALL.
-- 3. Is the actor who they should be? Ask; look at its addresses and keys of the last days.
-- 4. What changed while nobody looked? SELECT event_time, event_name, request_parameters FROM events WHERE account = '…' AND is_write AND event_time > '…' ORDER BY event_time.
-- 5. Deny these calls outside the security account by a service control policy.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/config/latest/developerguide/stop-start-recorder.html",
--   "https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-disable.html",
--   "https://docs.aws.amazon.com/waf/latest/developerguide/web-acl-associating-aws-resource.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage security services as their work: at most low"
--
-- [params.suppressed_findings]
-- type    = "int"
-- default = 20
-- about   = "Findings of Security Hub suppressed by one call that are worth a look"
-- ---
WITH calls AS (
  SELECT
    *,
    split_part(event_source, '.', 1) AS service,
    CASE
      WHEN event_source = 'config.amazonaws.com' AND event_name IN ('StopConfigurationRecorder', 'DeleteConfigurationRecorder', 'DeleteDeliveryChannel')
        THEN 'high'
      WHEN event_source = 'config.amazonaws.com' AND event_name IN ('DeleteConfigRule', 'DeleteOrganizationConfigRule', 'DeleteConformancePack', 'DeleteRemediationConfiguration')
        THEN 'low'
      WHEN event_source = 'securityhub.amazonaws.com' AND event_name IN ('DisableSecurityHub', 'DisableSecurityHubV2')
        OR event_source = 'macie2.amazonaws.com' AND event_name = 'DisableMacie'
        OR event_source = 'inspector2.amazonaws.com' AND event_name = 'Disable' THEN 'high'
      WHEN event_source IN ('securityhub.amazonaws.com', 'macie2.amazonaws.com', 'inspector2.amazonaws.com') AND event_name IN (
        'DisassociateMembers', 'DeleteMembers', 'DisassociateFromAdministratorAccount', 'DisassociateFromMasterAccount',
        'DisableOrganizationAdminAccount', 'DeleteMember', 'DisassociateMember', 'DisableDelegatedAdminAccount') THEN 'high'
      WHEN event_source = 'securityhub.amazonaws.com' AND event_name IN ('BatchDisableStandards', 'DisableImportFindingsForProduct') THEN 'medium'
      WHEN event_source = 'securityhub.amazonaws.com' AND event_name = 'BatchUpdateFindings'
        AND regexp_matches(request_parameters, '"Status"\s*:\s*"SUPPRESSED"')
        AND json_array_length(request_parameters, '$.FindingIdentifiers') >= getvariable('security_service_disabled_suppressed_findings')
        THEN 'medium'
      WHEN event_source = 'macie2.amazonaws.com' AND event_name = 'UpdateMacieSession'
        THEN CASE WHEN json_extract_string(request_parameters, '$.status') = 'PAUSED' THEN 'high' ELSE 'low' END
      WHEN event_source = 'access-analyzer.amazonaws.com' AND event_name = 'DeleteAnalyzer'
        OR event_source = 'detective.amazonaws.com' AND event_name = 'DeleteGraph'
        OR event_source = 'shield.amazonaws.com' AND event_name IN ('DeleteProtection', 'DisableProactiveEngagement', 'DisassociateDRTRole')
        OR event_source IN ('wafv2.amazonaws.com', 'waf-regional.amazonaws.com', 'waf.amazonaws.com') AND event_name = 'DisassociateWebACL'
        OR event_source = 'network-firewall.amazonaws.com' AND event_name IN ('DeleteFirewall', 'DeleteFirewallPolicy', 'DisassociateFirewallPolicy')
        THEN 'medium'
      WHEN event_source IN ('wafv2.amazonaws.com', 'waf-regional.amazonaws.com', 'waf.amazonaws.com') AND event_name = 'DeleteWebACL' THEN 'low'
    END AS weight
  FROM events
  WHERE NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
started AS (
  SELECT account, aws_region, event_time, event_id
  FROM events
  WHERE event_source = 'config.amazonaws.com' AND event_name = 'StartConfigurationRecorder' AND success
),
calmed AS (
  SELECT
    c.*,
    (SELECT list(s.event_id)
      FROM started AS s
      WHERE c.event_name = 'StopConfigurationRecorder' AND c.success
        AND s.account = c.account AND s.aws_region = c.aws_region
        AND s.event_time BETWEEN c.event_time AND c.event_time + INTERVAL 10 MINUTE) AS restarted
  FROM calls AS c
  WHERE c.weight IS NOT NULL
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  last_part(coalesce(
    json_extract_string(request_parameters, '$.configurationRecorderName'),
    json_extract_string(request_parameters, '$.configRuleName'),
    json_extract_string(request_parameters, '$.analyzerName'),
    json_extract_string(request_parameters, '$.resourceArn'),
    json_extract_string(request_parameters, '$.name'),
    json_extract_string(request_parameters, '$.firewallName'),
    service)) AS target,
  concat(event_name, ' in ', aws_region, ' weakened ', service,
    CASE WHEN restarted IS NOT NULL THEN ' for a moment' WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN restarted IS NOT NULL OR list_contains(getvariable('security_service_disabled_trusted_principals'), principal) THEN 'low'
    WHEN success THEN weight
    ELSE one_below(weight)
  END AS severity,
  list_append(coalesce(restarted, []), event_id) AS event_ids,
  service
FROM calmed
WHERE success OR weight <> 'low'
