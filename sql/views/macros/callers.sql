-- Who calls, from how far away, and what only somebody who looks around asks.

-- A session of an instance's own role: it is named after the instance
CREATE OR REPLACE MACRO is_instance_session(session_name) AS coalesce(regexp_matches(session_name, '^i-[0-9a-f]{8,17}$'), false);

-- One caller: a single sign-on role is many people, any other role is one
CREATE OR REPLACE MACRO caller_of(principal, actor_kind, session_name) AS
  CASE WHEN actor_kind = 'sso' THEN concat(principal, '/', session_name) ELSE principal END;

-- A caller that is, or stands for, a person: someone with a password or a key of their own
CREATE OR REPLACE MACRO is_person(actor_kind) AS actor_kind IN ('iam_user', 'sso', 'root', 'saml', 'federated', 'web_identity');

-- The wider network around an address: 198.51.100.0/24 → 198.51, 2001:db8:1::/48 → 2001:db8
CREATE OR REPLACE MACRO wide_net(source_net) AS
  CASE WHEN contains(source_net, ':') THEN regexp_extract(source_net, '^([0-9a-f]*:[0-9a-f]*)', 1)
    ELSE regexp_extract(source_net, '^([0-9]+\.[0-9]+)', 1) END;

-- Accounts among those given that are neither one's own nor trusted; "all" (everybody) stays
CREATE OR REPLACE MACRO foreign_accounts(given, account, own, trusted) AS
  list_sort(list_distinct(list_filter(given, lambda a:
    a IS NOT NULL AND a <> '' AND a <> account
    AND NOT list_contains(coalesce(own, CAST([] AS VARCHAR[])), a) AND NOT list_contains(trusted, a))));

-- Questions of somebody who wants to know where they are and what there is; programs ask few of them, and the same ones
CREATE OR REPLACE MACRO is_recon_call(source, name) AS
  CASE source
    WHEN 'sts.amazonaws.com' THEN name IN ('GetCallerIdentity', 'GetAccessKeyInfo')
    WHEN 'iam.amazonaws.com' THEN regexp_matches(name, '^(List|Get|Simulate|Generate)')
    WHEN 's3.amazonaws.com' THEN name IN ('ListBuckets', 'ListAllMyBuckets', 'GetBucketAcl', 'GetBucketPolicy', 'GetBucketPublicAccessBlock', 'GetAccountPublicAccessBlock')
    WHEN 'ec2.amazonaws.com' THEN regexp_matches(name, '^Describe(Instances|Snapshots|Volumes|Vpcs|Subnets|SecurityGroups|KeyPairs|Images|Regions|AccountAttributes|NetworkInterfaces|VpcEndpoints|FlowLogs|LaunchTemplates|RouteTables|Addresses|InstanceAttribute)$')
    WHEN 'cloudtrail.amazonaws.com' THEN name IN ('DescribeTrails', 'ListTrails', 'GetTrail', 'GetTrailStatus', 'GetEventSelectors', 'LookupEvents')
    WHEN 'organizations.amazonaws.com' THEN regexp_matches(name, '^(List|Describe)')
    WHEN 'account.amazonaws.com' THEN regexp_matches(name, '^(List|Get)')
    WHEN 'guardduty.amazonaws.com' THEN regexp_matches(name, '^(List|Get)')
    WHEN 'securityhub.amazonaws.com' THEN regexp_matches(name, '^(List|Get|Describe)')
    WHEN 'config.amazonaws.com' THEN name IN ('DescribeConfigurationRecorders', 'DescribeConfigurationRecorderStatus', 'DescribeDeliveryChannels')
    WHEN 'access-analyzer.amazonaws.com' THEN regexp_matches(name, '^List')
    WHEN 'secretsmanager.amazonaws.com' THEN name IN ('ListSecrets', 'DescribeSecret')
    WHEN 'ssm.amazonaws.com' THEN name IN ('DescribeParameters', 'DescribeInstanceInformation')
    WHEN 'kms.amazonaws.com' THEN name IN ('ListKeys', 'ListAliases')
    WHEN 'rds.amazonaws.com' THEN regexp_matches(name, '^DescribeDB(Instances|Clusters|Snapshots|ClusterSnapshots)$')
    WHEN 'dynamodb.amazonaws.com' THEN name IN ('ListTables', 'DescribeTable')
    WHEN 'lambda.amazonaws.com' THEN regexp_matches(name, '^(ListFunctions|GetFunction|GetAccountSettings|ListLayers)')
    WHEN 'ecr.amazonaws.com' THEN name = 'DescribeRepositories'
    WHEN 'ecs.amazonaws.com' THEN regexp_matches(name, '^List')
    WHEN 'eks.amazonaws.com' THEN regexp_matches(name, '^(ListClusters|DescribeCluster)$')
    WHEN 'ses.amazonaws.com' THEN regexp_matches(name, '^(List|Get)')
    WHEN 'bedrock.amazonaws.com' THEN regexp_matches(name, '^(List|Get)')
    WHEN 'servicequotas.amazonaws.com' THEN regexp_matches(name, '^(List|Get)')
    WHEN 'cloudformation.amazonaws.com' THEN name IN ('ListStacks', 'DescribeStacks')
    WHEN 'route53.amazonaws.com' THEN regexp_matches(name, '^ListHostedZones')
    WHEN 'logs.amazonaws.com' THEN name = 'DescribeLogGroups'
    ELSE false
  END;
