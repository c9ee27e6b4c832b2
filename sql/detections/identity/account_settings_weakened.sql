-- ---
-- title        = "Account Settings Weakened"
-- severity     = "medium"
-- attack       = [
--   { id = "T1556", why = "passwords may be short from now on" },
--   { id = "T1098", why = "mail to the account, also that which resets root's password, goes elsewhere" },
--   { id = "T1685", why = "new disks are no longer encrypted by themselves" },
-- ]
-- about        = "The password policy was deleted or made weak, disks are no longer encrypted by default, the account's e-mail address or contacts changed, or root's central guard was lifted."
-- benign       = ["A new address or contact after somebody left, with a ticket"]
-- event_names  = [
--   "DeleteAccountPasswordPolicy", "UpdateAccountPasswordPolicy", "CreateAccountAlias", "DeleteAccountAlias",
--   "DisableOrganizationsRootCredentialsManagement", "DisableOrganizationsRootSessions",
--   "StartPrimaryEmailUpdate", "AcceptPrimaryEmailUpdate", "PutAlternateContact", "DeleteAlternateContact",
--   "DisableEbsEncryptionByDefault",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "6h"
-- runbook      = """
-- 1. Ask the account's owner. For a new e-mail address: is the mailbox one of yours?
-- 2. See what stands now: aws ec2 get-ebs-encryption-by-default --region …, aws iam get-account-password-policy, aws account get-primary-email, get-alternate-contact.
-- 3. Put the former values back. If the e-mail address was taken over, open a case with AWS Support at once.
-- 4. Look for sign-ins as root and new users: SELECT * FROM events WHERE account = '…' AND (actor_kind = 'root' OR event_name = 'CreateUser') ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_passwords_account-policy.html",
--   "https://docs.aws.amazon.com/accounts/latest/reference/manage-acct-update-root-user-email.html",
--   "https://docs.aws.amazon.com/ebs/latest/userguide/encryption-by-default.html",
-- ]
--
-- [params.password_length]
-- type    = "int"
-- default = 8
-- about   = "Passwords that may be shorter than this are weak"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage these settings as their work: at most low"
-- ---
WITH changed AS (
  SELECT
    *,
    -- The organization's management account may do it to a member.
    coalesce(json_extract_string(request_parameters, '$.accountId'), json_extract_string(request_parameters, '$.AccountId'), account) AS whose,
    upper(coalesce(json_extract_string(request_parameters, '$.alternateContactType'),
      json_extract_string(request_parameters, '$.AlternateContactType'))) AS contact,
    -- What is not sent falls back to AWS's six letters.
    coalesce(TRY_CAST(json_extract_string(request_parameters, '$.minimumPasswordLength') AS INT), 6) AS length
  FROM events
  WHERE (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND ((event_source = 'iam.amazonaws.com' AND event_name IN (
        'DeleteAccountPasswordPolicy', 'UpdateAccountPasswordPolicy', 'CreateAccountAlias', 'DeleteAccountAlias',
        'DisableOrganizationsRootCredentialsManagement', 'DisableOrganizationsRootSessions'))
      OR (event_source = 'account.amazonaws.com' AND event_name IN (
        'StartPrimaryEmailUpdate', 'AcceptPrimaryEmailUpdate', 'PutAlternateContact', 'DeleteAlternateContact'))
      OR (event_source = 'ec2.amazonaws.com' AND event_name = 'DisableEbsEncryptionByDefault'))
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
    CASE
      WHEN event_name = 'DeleteAccountPasswordPolicy' THEN 'The password policy was deleted'
      WHEN event_name = 'UpdateAccountPasswordPolicy' THEN concat('Passwords may have ', length, ' letters from now on')
      WHEN event_name LIKE '%PrimaryEmailUpdate' THEN 'The account''s e-mail address is being changed'
      WHEN event_name LIKE '%AlternateContact' THEN concat('The contact for ', lower(contact), ' was changed')
      WHEN event_name LIKE '%AccountAlias' THEN 'The account''s alias was changed'
      WHEN event_source = 'ec2.amazonaws.com' THEN concat('New disks in ', aws_region, ' are no longer encrypted by default')
      ELSE 'The central guard over root of member accounts was lifted'
    END,
    CASE WHEN denied THEN '; it was refused' ELSE '' END) AS summary,
  CASE
    WHEN denied OR list_contains(getvariable('account_settings_weakened_trusted_principals'), principal) THEN 'low'
    WHEN event_name LIKE '%PrimaryEmailUpdate' THEN 'high'
    WHEN event_name LIKE '%AccountAlias' OR contact <> 'SECURITY' THEN 'low'
    ELSE 'medium'
  END AS severity
FROM changed
WHERE event_name <> 'UpdateAccountPasswordPolicy' OR (success AND length < getvariable('account_settings_weakened_password_length'))
