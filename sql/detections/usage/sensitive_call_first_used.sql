-- ---
-- title        = "Sensitive Call First Used"
-- severity     = "low"
-- attack       = [
--   { id = "T1078.004", why = "an account does what its owner never did" },
--   { id = "T1059.009", why = "the calls are those that attackers were seen to make" },
-- ]
-- about        = "Somebody with a long history made a call that attackers like, that they never made, and hardly anybody else in the account; three of them within an hour are more than chance."
-- benign       = ["New work: a call is known after its first hour"]
-- event_names  = [
--   "CreateLoginProfile", "UpdateLoginProfile", "CreateAccessKey", "AttachUserPolicy", "PutUserPolicy",
--   "AddUserToGroup", "UpdateAssumeRolePolicy", "DeactivateMFADevice", "CreateSAMLProvider", "UpdateSAMLProvider",
--   "CreateOpenIDConnectProvider", "AddClientIDToOpenIDConnectProvider", "UpdateAccountPasswordPolicy",
--   "DeleteAccountPasswordPolicy", "DeleteRolePermissionsBoundary", "DeleteUserPermissionsBoundary",
--   "SetDefaultPolicyVersion", "CreateServiceSpecificCredential", "CreateAccountAlias", "DeleteAccountAlias",
--   "GetFederationToken", "AssumeRoot", "CreateKeyPair", "ImportKeyPair", "ModifySnapshotAttribute",
--   "ModifyImageAttribute", "CreateInstanceExportTask", "ExportImage", "EnableSerialConsoleAccess",
--   "AssociateIamInstanceProfile", "ReplaceIamInstanceProfileAssociation", "DeleteFlowLogs",
--   "CreateTrafficMirrorSession", "DisableEbsEncryptionByDefault", "DisableSnapshotBlockPublicAccess",
--   "DisableImageBlockPublicAccess", "GetPasswordData", "SendSSHPublicKey", "SendSerialConsoleSSHPublicKey",
--   "SendCommand", "StartSession", "ModifyDocumentPermission", "CreateActivation", "AddPermission20150331v2",
--   "AddLayerVersionPermission", "CreateFunctionUrlConfig", "UpdateFunctionUrlConfig", "PutBucketReplication",
--   "PutBucketVersioning", "DeleteBucketPolicy", "PutBucketWebsite", "DeleteBucketEncryption",
--   "PutAccountPublicAccessBlock", "DeleteAccountPublicAccessBlock", "ScheduleKeyDeletion", "DisableKey",
--   "PutKeyPolicy", "ImportKeyMaterial", "StopLogging", "DeleteTrail", "UpdateTrail", "PutEventSelectors",
--   "StopConfigurationRecorder", "DeleteConfigurationRecorder", "DeleteDeliveryChannel", "DeleteDetector",
--   "UpdateDetector", "CreateIPSet", "CreateFilter", "DisassociateFromAdministratorAccount", "DisableSecurityHub",
--   "DeleteAnalyzer", "LeaveOrganization", "InviteAccountToOrganization", "CreateAccount", "DetachPolicy",
--   "DisablePolicyType", "RemoveAccountFromOrganization", "EnableRegion", "PutAlternateContact",
--   "StartPrimaryEmailUpdate", "ModifyDBSnapshotAttribute", "ModifyDBClusterSnapshotAttribute", "StartExportTask",
--   "PutResourcePolicy", "BatchGetSecretValue", "VerifyEmailIdentity", "CreateEmailIdentity",
--   "UpdateAccountSendingEnabled", "PutAccountDetails", "CreateAccountAssignment", "CreatePermissionSet",
--   "AttachManagedPolicyToPermissionSet", "PutInlinePolicyToPermissionSet", "CreateUser", "AddMemberToGroup",
--   "CreateGroupMembership", "CreateTrustAnchor", "CreateProfile", "TransferDomainToAnotherAwsAccount",
--   "DisableDomainTransferLock", "RegisterDomain", "DeleteResolverQueryLogConfig",
--   "DisassociateResolverQueryLogConfig", "DeleteLogGroup", "PutSubscriptionFilter", "DeleteRecoveryPoint",
--   "DeleteBackupVault", "CreateAccessEntry", "AssociateAccessPolicy", "ExecuteCommand", "SetRepositoryPolicy",
--   "RequestServiceQuotaIncrease", "PutUseCaseForModelAccess", "CreateFoundationModelAgreement",
--   "PutFoundationModelEntitlement", "DeleteModelInvocationLoggingConfiguration", "DeleteGuardrail",
--   "CreateDevEndpoint", "CreatePresignedNotebookInstanceUrl", "CreateNotebookInstanceLifecycleConfig",
--   "UpdateNotebookInstanceLifecycleConfig", "UpdateProjectVisibility", "ImportSourceCredentials", "CreateServer",
--   "ImportSshPublicKey", "CreateLocationObjectStorage", "CreateLocationAzureBlob", "CreateInstances",
--   "GetInstanceAccessDetails",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. One such call is a hint, not more: look whether another alert of the same actor stands beside it (kyra alerts list).
-- 2. What did they do before? SELECT event_source, event_name, sum(count), max(last_seen) FROM activity WHERE principal = '…' GROUP BY ALL ORDER BY 4 DESC.
-- 3. And that day: SELECT event_time, event_name, source_ip_address, error_code FROM events WHERE principal = '…' ORDER BY event_time.
-- 4. Is the address one of theirs? SELECT DISTINCT source_net FROM activity WHERE principal = '…' AND date < '…'.
-- 5. Ask them. If it was not they: deactivate the key or revoke the sessions, and undo the calls.
-- """
-- references   = [
--   "https://traildiscover.cloud/",
--   "https://attack.mitre.org/techniques/T1078/004/",
-- ]
--
-- [params.learning_days]
-- type    = "int"
-- default = 14
-- about   = "Days of history a principal needs before a call is new for it"
--
-- [params.calls]
-- type    = "int"
-- default = 3
-- about   = "Different calls, all new, within an hour that are medium"
--
-- [params.others]
-- type    = "int"
-- default = 2
-- about   = "Other principals of the account that made the call in 30 days, so that it is nothing rare"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that do everything, such as a deployment's role: no finding"
-- ---
WITH calls AS (
  SELECT *, caller_of(principal, actor_kind, session_name) AS caller
  FROM events
  WHERE (event_source, event_name) IN (
    ('iam.amazonaws.com', 'CreateLoginProfile'), ('iam.amazonaws.com', 'UpdateLoginProfile'),
    ('iam.amazonaws.com', 'CreateAccessKey'), ('iam.amazonaws.com', 'AttachUserPolicy'),
    ('iam.amazonaws.com', 'PutUserPolicy'), ('iam.amazonaws.com', 'AddUserToGroup'),
    ('iam.amazonaws.com', 'UpdateAssumeRolePolicy'), ('iam.amazonaws.com', 'DeactivateMFADevice'),
    ('iam.amazonaws.com', 'CreateSAMLProvider'), ('iam.amazonaws.com', 'UpdateSAMLProvider'),
    ('iam.amazonaws.com', 'CreateOpenIDConnectProvider'), ('iam.amazonaws.com', 'AddClientIDToOpenIDConnectProvider'),
    ('iam.amazonaws.com', 'UpdateAccountPasswordPolicy'), ('iam.amazonaws.com', 'DeleteAccountPasswordPolicy'),
    ('iam.amazonaws.com', 'DeleteRolePermissionsBoundary'), ('iam.amazonaws.com', 'DeleteUserPermissionsBoundary'),
    ('iam.amazonaws.com', 'SetDefaultPolicyVersion'), ('iam.amazonaws.com', 'CreateServiceSpecificCredential'),
    ('iam.amazonaws.com', 'CreateAccountAlias'), ('iam.amazonaws.com', 'DeleteAccountAlias'),
    ('sts.amazonaws.com', 'GetFederationToken'), ('sts.amazonaws.com', 'AssumeRoot'),
    ('ec2.amazonaws.com', 'CreateKeyPair'), ('ec2.amazonaws.com', 'ImportKeyPair'),
    ('ec2.amazonaws.com', 'ModifySnapshotAttribute'), ('ec2.amazonaws.com', 'ModifyImageAttribute'),
    ('ec2.amazonaws.com', 'CreateInstanceExportTask'), ('ec2.amazonaws.com', 'ExportImage'),
    ('ec2.amazonaws.com', 'EnableSerialConsoleAccess'), ('ec2.amazonaws.com', 'AssociateIamInstanceProfile'),
    ('ec2.amazonaws.com', 'ReplaceIamInstanceProfileAssociation'), ('ec2.amazonaws.com', 'DeleteFlowLogs'),
    ('ec2.amazonaws.com', 'CreateTrafficMirrorSession'), ('ec2.amazonaws.com', 'DisableEbsEncryptionByDefault'),
    ('ec2.amazonaws.com', 'DisableSnapshotBlockPublicAccess'), ('ec2.amazonaws.com', 'DisableImageBlockPublicAccess'),
    ('ec2.amazonaws.com', 'GetPasswordData'),
    ('ec2-instance-connect.amazonaws.com', 'SendSSHPublicKey'),
    ('ec2-instance-connect.amazonaws.com', 'SendSerialConsoleSSHPublicKey'),
    ('ssm.amazonaws.com', 'SendCommand'), ('ssm.amazonaws.com', 'StartSession'),
    ('ssm.amazonaws.com', 'ModifyDocumentPermission'), ('ssm.amazonaws.com', 'CreateActivation'),
    ('lambda.amazonaws.com', 'AddPermission20150331v2'), ('lambda.amazonaws.com', 'AddLayerVersionPermission'),
    ('lambda.amazonaws.com', 'CreateFunctionUrlConfig'), ('lambda.amazonaws.com', 'UpdateFunctionUrlConfig'),
    ('s3.amazonaws.com', 'PutBucketReplication'), ('s3.amazonaws.com', 'PutBucketVersioning'),
    ('s3.amazonaws.com', 'DeleteBucketPolicy'), ('s3.amazonaws.com', 'PutBucketWebsite'),
    ('s3.amazonaws.com', 'DeleteBucketEncryption'), ('s3.amazonaws.com', 'PutAccountPublicAccessBlock'),
    ('s3.amazonaws.com', 'DeleteAccountPublicAccessBlock'),
    ('kms.amazonaws.com', 'ScheduleKeyDeletion'), ('kms.amazonaws.com', 'DisableKey'),
    ('kms.amazonaws.com', 'PutKeyPolicy'), ('kms.amazonaws.com', 'ImportKeyMaterial'),
    ('cloudtrail.amazonaws.com', 'StopLogging'), ('cloudtrail.amazonaws.com', 'DeleteTrail'),
    ('cloudtrail.amazonaws.com', 'UpdateTrail'), ('cloudtrail.amazonaws.com', 'PutEventSelectors'),
    ('config.amazonaws.com', 'StopConfigurationRecorder'), ('config.amazonaws.com', 'DeleteConfigurationRecorder'),
    ('config.amazonaws.com', 'DeleteDeliveryChannel'),
    ('guardduty.amazonaws.com', 'DeleteDetector'), ('guardduty.amazonaws.com', 'UpdateDetector'),
    ('guardduty.amazonaws.com', 'CreateIPSet'), ('guardduty.amazonaws.com', 'CreateFilter'),
    ('guardduty.amazonaws.com', 'DisassociateFromAdministratorAccount'),
    ('securityhub.amazonaws.com', 'DisableSecurityHub'),
    ('access-analyzer.amazonaws.com', 'DeleteAnalyzer'),
    ('organizations.amazonaws.com', 'LeaveOrganization'),
    ('organizations.amazonaws.com', 'InviteAccountToOrganization'), ('organizations.amazonaws.com', 'CreateAccount'),
    ('organizations.amazonaws.com', 'DetachPolicy'), ('organizations.amazonaws.com', 'DisablePolicyType'),
    ('organizations.amazonaws.com', 'RemoveAccountFromOrganization'),
    ('account.amazonaws.com', 'EnableRegion'), ('account.amazonaws.com', 'PutAlternateContact'),
    ('account.amazonaws.com', 'StartPrimaryEmailUpdate'),
    ('rds.amazonaws.com', 'ModifyDBSnapshotAttribute'), ('rds.amazonaws.com', 'ModifyDBClusterSnapshotAttribute'),
    ('rds.amazonaws.com', 'StartExportTask'),
    ('secretsmanager.amazonaws.com', 'PutResourcePolicy'), ('secretsmanager.amazonaws.com', 'BatchGetSecretValue'),
    ('ses.amazonaws.com', 'VerifyEmailIdentity'), ('ses.amazonaws.com', 'CreateEmailIdentity'),
    ('ses.amazonaws.com', 'UpdateAccountSendingEnabled'), ('ses.amazonaws.com', 'PutAccountDetails'),
    ('sso.amazonaws.com', 'CreateAccountAssignment'), ('sso.amazonaws.com', 'CreatePermissionSet'),
    ('sso.amazonaws.com', 'AttachManagedPolicyToPermissionSet'),
    ('sso.amazonaws.com', 'PutInlinePolicyToPermissionSet'),
    ('sso-directory.amazonaws.com', 'CreateUser'), ('sso-directory.amazonaws.com', 'AddMemberToGroup'),
    ('identitystore.amazonaws.com', 'CreateUser'), ('identitystore.amazonaws.com', 'CreateGroupMembership'),
    ('rolesanywhere.amazonaws.com', 'CreateTrustAnchor'), ('rolesanywhere.amazonaws.com', 'CreateProfile'),
    ('route53domains.amazonaws.com', 'TransferDomainToAnotherAwsAccount'),
    ('route53domains.amazonaws.com', 'DisableDomainTransferLock'), ('route53domains.amazonaws.com', 'RegisterDomain'),
    ('route53resolver.amazonaws.com', 'DeleteResolverQueryLogConfig'),
    ('route53resolver.amazonaws.com', 'DisassociateResolverQueryLogConfig'),
    ('logs.amazonaws.com', 'DeleteLogGroup'), ('logs.amazonaws.com', 'PutSubscriptionFilter'),
    ('backup.amazonaws.com', 'DeleteRecoveryPoint'), ('backup.amazonaws.com', 'DeleteBackupVault'),
    ('eks.amazonaws.com', 'CreateAccessEntry'), ('eks.amazonaws.com', 'AssociateAccessPolicy'),
    ('ecs.amazonaws.com', 'ExecuteCommand'),
    ('ecr.amazonaws.com', 'SetRepositoryPolicy'),
    ('servicequotas.amazonaws.com', 'RequestServiceQuotaIncrease'),
    ('bedrock.amazonaws.com', 'PutUseCaseForModelAccess'),
    ('bedrock.amazonaws.com', 'CreateFoundationModelAgreement'),
    ('bedrock.amazonaws.com', 'PutFoundationModelEntitlement'),
    ('bedrock.amazonaws.com', 'DeleteModelInvocationLoggingConfiguration'),
    ('bedrock.amazonaws.com', 'DeleteGuardrail'),
    ('glue.amazonaws.com', 'CreateDevEndpoint'),
    ('sagemaker.amazonaws.com', 'CreatePresignedNotebookInstanceUrl'),
    ('sagemaker.amazonaws.com', 'CreateNotebookInstanceLifecycleConfig'),
    ('sagemaker.amazonaws.com', 'UpdateNotebookInstanceLifecycleConfig'),
    ('codebuild.amazonaws.com', 'UpdateProjectVisibility'), ('codebuild.amazonaws.com', 'ImportSourceCredentials'),
    ('transfer.amazonaws.com', 'CreateServer'), ('transfer.amazonaws.com', 'CreateUser'),
    ('transfer.amazonaws.com', 'ImportSshPublicKey'),
    ('datasync.amazonaws.com', 'CreateLocationObjectStorage'), ('datasync.amazonaws.com', 'CreateLocationAzureBlob'),
    ('lightsail.amazonaws.com', 'CreateInstances'), ('lightsail.amazonaws.com', 'GetInstanceAccessDetails')
    )
    AND actor_kind NOT IN ('aws_service', 'anonymous', 'cross_account') AND (success OR denied)
    AND NOT list_contains(getvariable('sensitive_call_first_used_trusted_principals'), principal)
),
beginnings AS (
  SELECT account, principal, min(first_seen) AS first_seen
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM calls)
  GROUP BY ALL
),
uses AS MATERIALIZED (
  SELECT account, principal, event_source, event_name, min(first_seen) AS first_seen
  FROM activity
  WHERE (account, event_source, event_name) IN (SELECT (account, event_source, event_name) FROM calls)
    AND actor_kind <> 'aws_service' AND success
  GROUP BY ALL
),
judged AS (
  SELECT
    c.account, c.event_id,
    count(*) FILTER (u.principal = c.principal AND u.first_seen < c.event_time - INTERVAL 1 HOUR) > 0 AS known,
    count(*) FILTER (u.first_seen < c.event_time - INTERVAL 1 HOUR) >= getvariable('sensitive_call_first_used_others') AS usual
  FROM calls AS c
  LEFT JOIN uses AS u USING (account, event_source, event_name)
  GROUP BY c.account, c.event_id
),
rare AS (
  SELECT c.*, concat(split_part(c.event_source, '.', 1), ':', c.event_name) AS call
  FROM calls AS c
  JOIN judged AS j USING (account, event_id)
  JOIN beginnings AS b USING (account, principal)
  WHERE NOT j.known AND NOT j.usual
    AND b.first_seen <= c.event_time - to_days(CAST(getvariable('sensitive_call_first_used_learning_days') AS INT))
),
counted AS (
  SELECT
    *,
    list_sort(list_distinct(list(call) OVER hour)) AS kinds,
    list(event_id) OVER hour AS ids
  FROM rare
  WINDOW hour AS (PARTITION BY account, caller ORDER BY event_time RANGE BETWEEN INTERVAL 60 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  call AS target,
  CASE WHEN len(kinds) >= getvariable('sensitive_call_first_used_calls')
    THEN concat(last_part(caller), ' made ', len(kinds), ' sensitive calls within an hour that are new for them: ', array_to_string(kinds, ', '))
    ELSE concat(last_part(caller), CASE WHEN success THEN ' made a sensitive call' ELSE ' was refused a sensitive call' END, ' that is new for them: ', call)
  END AS summary,
  CASE WHEN len(kinds) >= getvariable('sensitive_call_first_used_calls') THEN 'medium' ELSE 'low' END AS severity,
  CASE WHEN len(kinds) >= getvariable('sensitive_call_first_used_calls') THEN ids ELSE [event_id] END AS event_ids,
  caller
FROM counted
