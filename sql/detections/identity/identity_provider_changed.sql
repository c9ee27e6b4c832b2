-- ---
-- title        = "Identity Provider Changed"
-- severity     = "high"
-- attack       = [
--   { id = "T1484.002", why = "whoever the new provider vouches for is let in" },
--   { id = "T1556.007", why = "sign-in goes through a provider that the intruder controls" },
--   { id = "T1606.002", why = "with a certificate of one's own, sessions are forged at will" },
-- ]
-- about        = "The account learned to trust another source of identities: a Roles Anywhere certificate authority, a SAML or OpenID provider, or IAM Identity Center's identity source."
-- benign       = [
--   "A new single sign-on, a renewed SAML certificate, with a ticket",
--   "A new Kubernetes cluster brings an OpenID provider of AWS's own (low), a new pipeline one of its forge (medium)",
-- ]
-- event_names  = [
--   "CreateTrustAnchor", "UpdateTrustAnchor", "EnableTrustAnchor", "CreateProfile", "UpdateProfile",
--   "CreateSAMLProvider", "UpdateSAMLProvider", "DeleteSAMLProvider", "CreateOpenIDConnectProvider",
--   "AddClientIDToOpenIDConnectProvider", "UpdateOpenIDConnectProviderThumbprint",
--   "AssociateDirectory", "DisassociateDirectory", "CreateExternalIdPConfigurationForDirectory",
--   "UpdateExternalIdPConfigurationForDirectory", "EnableExternalIdPConfigurationForDirectory",
--   "DisableExternalIdPConfigurationForDirectory", "CreateTrustedTokenIssuer",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- runbook      = """
-- 1. Whose provider is it? Compare its certificate, metadata or URL with the ones you know (request_parameters of the event).
-- 2. Which roles trust it? SELECT * FROM events WHERE event_name IN ('CreateRole', 'UpdateAssumeRolePolicy') AND request_parameters LIKE '%<provider>%'.
-- 3. Who came in by it? SELECT * FROM events WHERE event_name IN ('AssumeRoleWithSAML', 'AssumeRoleWithWebIdentity', 'CreateSession') AND event_time > '…'.
-- 4. If it was not wanted: disable the trust anchor, delete the provider, put the former identity source back; end the sessions of its roles.
-- 5. Look at the rest of what the actor did: SELECT * FROM events WHERE principal = '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/rolesanywhere/latest/userguide/introduction.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/sso-info-in-cloudtrail.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.rolesanywhere-create-trust-anchor/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage identity providers as their work: at most low"
--
-- [params.forges]
-- type    = "list[str]"
-- default = ["token.actions.githubusercontent.com", "gitlab.com", "app.terraform.io", "api.bitbucket.org", "agent.buildkite.com", "oidc.circleci.com"]
-- about   = "Hosts of well-known pipelines, whose OpenID providers are medium"
-- ---
WITH changed AS (
  SELECT
    *,
    regexp_extract(lower(json_extract_string(request_parameters, '$.url')), '^(?:https://)?([^/:]+)', 1) AS host,
    coalesce(
      json_extract_string(request_parameters, '$.name'),
      json_extract_string(request_parameters, '$.url'),
      last_part(json_extract_string(request_parameters, '$.sAMLProviderArn')),
      nullif(regexp_extract(json_extract_string(request_parameters, '$.openIDConnectProviderArn'), ':oidc-provider/(.*)$', 1), ''),
      json_extract_string(request_parameters, '$.trustAnchorId'),
      json_extract_string(request_parameters, '$.profileId'),
      json_extract_string(request_parameters, '$.directoryId')) AS provider
  FROM events
  WHERE (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND ((event_source = 'rolesanywhere.amazonaws.com' AND event_name IN (
        'CreateTrustAnchor', 'UpdateTrustAnchor', 'EnableTrustAnchor', 'CreateProfile', 'UpdateProfile'))
      OR (event_source = 'iam.amazonaws.com' AND event_name IN (
        'CreateSAMLProvider', 'UpdateSAMLProvider', 'DeleteSAMLProvider', 'CreateOpenIDConnectProvider',
        'AddClientIDToOpenIDConnectProvider', 'UpdateOpenIDConnectProviderThumbprint'))
      OR (event_source IN ('sso.amazonaws.com', 'sso-directory.amazonaws.com') AND event_name IN (
        'AssociateDirectory', 'DisassociateDirectory', 'CreateExternalIdPConfigurationForDirectory',
        'UpdateExternalIdPConfigurationForDirectory', 'EnableExternalIdPConfigurationForDirectory',
        'DisableExternalIdPConfigurationForDirectory', 'CreateTrustedTokenIssuer')))
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(provider, 'IAM Identity Center') AS target,
  concat(event_name, ': ', coalesce(provider, 'IAM Identity Center'), CASE WHEN denied THEN '; it was refused' ELSE '' END) AS summary,
  CASE
    WHEN denied OR list_contains(getvariable('identity_provider_changed_trusted_principals'), principal) THEN 'low'
    WHEN event_name = 'CreateOpenIDConnectProvider' THEN CASE
      WHEN regexp_matches(host, '^oidc\.eks\.[a-z0-9-]+\.(amazonaws\.com|api\.aws)') THEN 'low'
      WHEN list_contains(getvariable('identity_provider_changed_forges'), host) THEN 'medium'
      ELSE 'high' END
    -- A private certificate authority of the account's own.
    WHEN event_name = 'CreateTrustAnchor' AND json_extract_string(request_parameters, '$.source.sourceType') = 'AWS_ACM_PCA' THEN 'medium'
    WHEN event_name IN ('EnableTrustAnchor', 'CreateProfile', 'UpdateProfile', 'DeleteSAMLProvider',
      'AddClientIDToOpenIDConnectProvider', 'UpdateOpenIDConnectProviderThumbprint', 'CreateTrustedTokenIssuer') THEN 'medium'
    ELSE 'high'
  END AS severity
FROM changed
