-- ---
-- title        = "Resource Policy Public"
-- severity     = "high"
-- attack       = [
--   { id = "T1537", why = "another account copies what the policy lets it read" },
--   { id = "T1530", why = "everybody may read or write" },
-- ]
-- about        = "The policy of a key, secret, registry, queue, topic, vault, domain or document lets in everybody, or an account that is not yours."
-- benign       = [
--   "Sharing with a partner: list the account in trusted_accounts",
--   "Public registries and topics: list them in public_resources",
-- ]
-- event_names  = [
--   "SetRepositoryPolicy", "SetTopicAttributes", "CreateTopic", "AddPermission", "SetQueueAttributes", "CreateQueue",
--   "PutResourcePolicy", "PutKeyPolicy", "CreateKey", "CreateGrant", "UpdateDomainConfig", "CreateDomain",
--   "UpdateElasticsearchDomainConfig", "CreateElasticsearchDomain", "SetVaultAccessPolicy",
--   "PutBackupVaultAccessPolicy", "PutFileSystemPolicy", "ModifyDocumentPermission", "UpdateProjectVisibility",
--   "PutPermission", "PutRegistryPolicy",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- runbook      = """
-- 1. What does the policy say? SELECT event_time, event_source, event_name, request_parameters FROM events WHERE event_name IN ('PutKeyPolicy', 'PutResourcePolicy', 'SetRepositoryPolicy', 'SetQueueAttributes', 'SetTopicAttributes') AND principal = '…' ORDER BY event_time.
-- 2. Put the former policy back: it stands in the event before. For a key: aws kms put-key-policy; for a secret: aws secretsmanager delete-resource-policy; for a registry: aws ecr delete-repository-policy; for a grant: aws kms revoke-grant.
-- 3. Who used it meanwhile? SELECT event_time, user_account_id, event_name, source_ip_address FROM events WHERE account = '…' AND user_account_id <> account AND event_time > '…' ORDER BY event_time.
-- 4. A secret that was open is known: change it. What a key protects may have been copied: look for shared snapshots.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-resources.html",
--   "https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-modifying-external-accounts.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.s3-backdoor-bucket-policy/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts you work with. Accounts of your integrations are trusted anyway"
--
-- [params.public_resources]
-- type    = "list[str]"
-- default = []
-- about   = "Names of resources that everybody is meant to reach: at most low"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    split_part(event_source, '.', 1) AS service,
    coalesce(
      policy_document(request_parameters, '$.policy'),
      policy_document(request_parameters, '$.policyText'),
      policy_document(request_parameters, '$.resourcePolicy'),
      policy_document(request_parameters, '$.attributes.Policy'),
      CASE WHEN json_extract_string(request_parameters, '$.attributeName') = 'Policy' THEN policy_document(request_parameters, '$.attributeValue') END,
      policy_document(request_parameters, '$.accessPolicies'),
      policy_document(request_parameters, '$.policyInJson')) AS given,
    list_concat(
      json_texts(request_parameters, '$.aWSAccountId'), json_texts(request_parameters, '$.aWSAccountIds'),
      json_texts(request_parameters, '$.accountIdsToAdd'),
      [json_extract_string(request_parameters, '$.granteePrincipal'), json_extract_string(request_parameters, '$.principal')]) AS guests
  FROM events
  WHERE event_name IN ('SetRepositoryPolicy', 'SetTopicAttributes', 'CreateTopic', 'AddPermission', 'SetQueueAttributes', 'CreateQueue',
      'PutResourcePolicy', 'PutKeyPolicy', 'CreateKey', 'CreateGrant', 'UpdateDomainConfig', 'CreateDomain', 'UpdateElasticsearchDomainConfig',
      'CreateElasticsearchDomain', 'SetVaultAccessPolicy', 'PutBackupVaultAccessPolicy', 'PutFileSystemPolicy', 'ModifyDocumentPermission',
      'UpdateProjectVisibility', 'PutPermission', 'PutRegistryPolicy')
    AND event_source IN ('ecr.amazonaws.com', 'sns.amazonaws.com', 'sqs.amazonaws.com', 'secretsmanager.amazonaws.com', 'kms.amazonaws.com',
      'es.amazonaws.com', 'glacier.amazonaws.com', 'backup.amazonaws.com', 'elasticfilesystem.amazonaws.com', 'ssm.amazonaws.com',
      'codebuild.amazonaws.com', 'codeartifact.amazonaws.com', 'events.amazonaws.com', 'glue.amazonaws.com', 'dynamodb.amazonaws.com',
      'kinesis.amazonaws.com', 'logs.amazonaws.com')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
read AS (
  SELECT
    * EXCLUDE (given),
    -- Glacier wraps the policy once more.
    coalesce(policy_document(given, '$.policy'), given) AS policy,
    last_part(coalesce(
      json_extract_string(request_parameters, '$.repositoryName'), json_extract_string(request_parameters, '$.topicArn'),
      json_extract_string(request_parameters, '$.queueUrl'), json_extract_string(request_parameters, '$.secretId'),
      json_extract_string(request_parameters, '$.keyId'), json_extract_string(response_elements, '$.keyMetadata.keyId'),
      json_extract_string(request_parameters, '$.domainName'), json_extract_string(request_parameters, '$.vaultName'),
      json_extract_string(request_parameters, '$.backupVaultName'), json_extract_string(request_parameters, '$.fileSystemId'),
      json_extract_string(request_parameters, '$.resourceArn'), json_extract_string(request_parameters, '$.projectArn'),
      json_extract_string(request_parameters, '$.queueName'), json_extract_string(request_parameters, '$.eventBusName'),
      json_extract_string(request_parameters, '$.name'))) AS named
  FROM calls
),
judged AS (
  SELECT
    r.*,
    len(policy_public_statements(r.policy)) > 0
      OR len(list_filter(r.guests, lambda g: g IN ('*', 'all', 'All'))) > 0
      OR coalesce(json_extract_string(r.request_parameters, '$.projectVisibility') = 'PUBLIC_READ', false) AS public,
    foreign_accounts(
      list_concat(
        coalesce(policy_accounts(r.policy), []),
        list_transform(r.guests, lambda g: nullif(regexp_extract(g, '^(?:arn:aws[^:]*:(?:iam|sts)::)?([0-9]{12})(?::|$)', 1), ''))),
      r.account, known.own, getvariable('resource_policy_public_trusted_accounts')) AS strangers
  FROM read AS r, known
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(named, service) AS target,
  concat('The policy of ', service, ' ', coalesce(named, 'resource'), CASE WHEN public THEN ' lets in everybody'
      ELSE concat(' lets in account ', array_to_string(strangers, ', ')) END, CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  at_most(
    CASE
      WHEN NOT success THEN CASE WHEN public THEN 'medium' ELSE 'low' END
      WHEN public OR service IN ('kms', 'secretsmanager') THEN 'high'
      ELSE 'medium'
    END,
    CASE WHEN list_contains(getvariable('resource_policy_public_public_resources'), coalesce(named, '')) THEN 'low' ELSE 'critical' END) AS severity
FROM judged
WHERE public OR len(strangers) > 0
