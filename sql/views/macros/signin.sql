-- Signing in: to the console (ConsoleLogin, CheckMfa) and to IAM Identity Center's portal (CredentialVerification for
-- each factor, then UserAuthentication), whose events are AwsServiceEvents with their outcome in serviceEventDetails.

-- 'Success' or 'Failure'
CREATE OR REPLACE MACRO sign_in_outcome(name, error_message, response, details) AS
  CASE WHEN error_message LIKE 'Failed authentication%' THEN 'Failure'
    ELSE coalesce(json_extract_string(response, '$.' || name), json_extract_string(details, '$.' || name)) END;

-- Who wanted in: IAM users by name, others by id or address. A name that does not exist is hidden, and so unknown.
CREATE OR REPLACE MACRO sign_in_user(identity, additional) AS
  lower(nullif(coalesce(
    json_extract_string(identity, '$.onBehalfOf.userId'),
    json_extract_string(additional, '$.UserName'),
    json_extract_string(identity, '$.userName'),
    json_extract_string(identity, '$.arn')), 'HIDDEN_DUE_TO_SECURITY_REASONS'));

-- A person at a sign-in page, not a service of AWS: its own events count only where they are Identity Center's
CREATE OR REPLACE MACRO is_person_signing_in(kind, name, user_type) AS
  kind <> 'aws_service'
  OR (name IN ('CredentialVerification', 'UserAuthentication') AND coalesce(user_type, 'Unknown') IN ('Unknown', 'IdentityCenterUser'));
