-- What counts as use of a region, and other habits.

-- Calls whose region says nothing about where somebody works: global services are recorded in us-east-1 (Global
-- Accelerator and Network Manager in us-west-2), sign-ins wherever the sign-in page was, home-region services at home.
CREATE OR REPLACE MACRO is_global_call(source, name, region) AS
  source IN (
    'iam.amazonaws.com', 'signin.amazonaws.com', 'organizations.amazonaws.com', 'cloudfront.amazonaws.com',
    'route53.amazonaws.com', 'route53domains.amazonaws.com', 'route53-recovery-control-config.amazonaws.com',
    'waf.amazonaws.com', 'shield.amazonaws.com', 'support.amazonaws.com', 'health.amazonaws.com',
    'trustedadvisor.amazonaws.com', 'ce.amazonaws.com', 'cur.amazonaws.com', 'bcm-data-exports.amazonaws.com',
    'budgets.amazonaws.com', 'account.amazonaws.com', 'artifact.amazonaws.com', 'tax.amazonaws.com',
    'freetier.amazonaws.com', 'invoicing.amazonaws.com', 'payments.amazonaws.com', 'consolidatedbilling.amazonaws.com',
    'pricing.amazonaws.com', 'savingsplans.amazonaws.com', 'globalaccelerator.amazonaws.com',
    'networkmanager.amazonaws.com', 'sso.amazonaws.com', 'sso-directory.amazonaws.com', 'sso-oauth.amazonaws.com',
    'identitystore.amazonaws.com', 'notifications.amazonaws.com', 'notifications-contacts.amazonaws.com',
    'aws-marketplace.amazonaws.com', 'metering-marketplace.amazonaws.com', 'aws-portal.amazonaws.com',
    'billingconsole.amazonaws.com', 'billing.amazonaws.com', 'cost-optimization-hub.amazonaws.com',
    'importexport.amazonaws.com', 'ecr-public.amazonaws.com', 'chatbot.amazonaws.com', 'uxc.amazonaws.com',
    'q.amazonaws.com', 'servicequotas-global.amazonaws.com', 'resource-explorer-2.amazonaws.com')
  OR (region = 'us-east-1' AND source = 'sts.amazonaws.com')
  OR (region = 'us-east-1' AND source = 's3.amazonaws.com' AND name IN ('ListBuckets', 'CreateBucket', 'ListAllMyBuckets'))
  OR (region = 'us-east-1' AND source = 'wafv2.amazonaws.com');

-- Calls that put somebody's machines, code or stacks into a region
CREATE OR REPLACE MACRO is_resource_call(name) AS
  regexp_matches(name, '^(RunInstances|RequestSpot|CreateFleet|StartInstances|CreateFunction|CreateCluster|CreateNodegroup|CreateStack|CreateNotebookInstance|CreateTrainingJob|CreateProcessingJob|CreateEndpoint|CreateDBInstance|CreateDBCluster|CreateVpc|CreateKeyPair|ImportKeyPair|CreateLaunchTemplate|CreateAutoScalingGroup|RunTask|RunJobFlow|SubmitJob|InvokeModel|Converse|CreateInstances|CreateSecurityGroup)');

CREATE OR REPLACE MACRO is_accelerated(instance_type) AS
  coalesce(regexp_matches(lower(instance_type), '^(p[2-9]|g[3-9]|gr[0-9]|trn[0-9]|inf[0-9]|dl[0-9]|f[1-9]|vt[0-9])[a-z0-9-]*\.'), false);
