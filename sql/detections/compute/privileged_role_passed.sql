-- ---
-- title        = "Privileged Role Passed"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.003", why = "the machine, function or stack has rights that its creator need not have" },
--   { id = "T1548.005", why = "passing a role is how rights are borrowed without being given any" },
-- ]
-- about        = "An administrative role was handed to a machine, function, stack or job by somebody new to that."
-- benign       = [
--   "Pipelines: silent once they have done so on an earlier day; or list them in trusted_principals",
--   "The first use of a new stack or build service, with a ticket",
-- ]
-- event_names  = [
--   "RunInstances", "AssociateIamInstanceProfile", "ReplaceIamInstanceProfileAssociation", "CreateFunction20150331",
--   "UpdateFunctionConfiguration20150331v2", "CreateStack", "UpdateStack", "CreateChangeSet", "CreateDevEndpoint", "CreateJob",
--   "CreateSession", "CreateNotebookInstance", "CreateTrainingJob", "CreateProcessingJob", "RunTask", "RegisterTaskDefinition",
--   "CreateProject", "UpdateProject", "RegisterJobDefinition", "RunJobFlow", "StartAutomationExecution", "CreateStateMachine",
--   "AttachRolePolicy",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- only_named   = true
-- needs        = "privileged"
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. May the actor pass that role? aws iam simulate-principal-policy --policy-source-arn … --action-names iam:PassRole --resource-arns ….
-- 2. What does the machine, function or stack do with it? SELECT event_time, event_source, event_name, source_ip_address, session_name FROM events WHERE issuer_user_name = '<the role>' ORDER BY event_time.
-- 3. If it was not wanted: stop it, revoke the role's sessions, keep its disk or code as evidence.
-- 4. Who gave the role its rights, and when? SELECT event_time, principal, event_name, request_parameters FROM events WHERE event_source = 'iam.amazonaws.com' AND contains(request_parameters, '<the role>').
-- 5. Allow iam:PassRole only for named roles, with iam:PassedToService.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html",
--   "https://hackingthe.cloud/aws/exploitation/iam_privilege_escalation/",
-- ]
--
-- [params.privileged_roles]
-- type    = "str"
-- default = "(?i)admin|poweruser|full-?access|superuser|break-?glass|organizationaccountaccess"
-- about   = "Names of roles that administer, as a regular expression"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that pass such roles as their work: no finding"
-- ---
WITH calls AS (
  SELECT
    *,
    last_part(coalesce(
      CASE event_source
        WHEN 'ec2.amazonaws.com' THEN coalesce(
          json_extract_string(request_parameters, '$.iamInstanceProfile.arn'), json_extract_string(request_parameters, '$.iamInstanceProfile.name'),
          json_extract_string(request_parameters, '$.AssociateIamInstanceProfileRequest.IamInstanceProfile.Arn'),
          json_extract_string(request_parameters, '$.AssociateIamInstanceProfileRequest.IamInstanceProfile.Name'),
          json_extract_string(request_parameters, '$.ReplaceIamInstanceProfileAssociationRequest.IamInstanceProfile.Arn'),
          json_extract_string(request_parameters, '$.ReplaceIamInstanceProfileAssociationRequest.IamInstanceProfile.Name'))
        WHEN 'ecs.amazonaws.com' THEN coalesce(
          json_extract_string(request_parameters, '$.taskRoleArn'), json_extract_string(request_parameters, '$.overrides.taskRoleArn'))
        WHEN 'batch.amazonaws.com' THEN json_extract_string(request_parameters, '$.containerProperties.jobRoleArn')
        WHEN 'elasticmapreduce.amazonaws.com' THEN json_extract_string(request_parameters, '$.jobFlowRole')
        WHEN 'ssm.amazonaws.com' THEN json_texts(request_parameters, '$.parameters.AutomationAssumeRole')[1]
        WHEN 'iam.amazonaws.com' THEN NULL
        ELSE coalesce(
          json_extract_string(request_parameters, '$.role'), json_extract_string(request_parameters, '$.roleArn'),
          json_extract_string(request_parameters, '$.roleARN'), json_extract_string(request_parameters, '$.serviceRole'))
      END,
      -- What was refused stands in the error's words.
      nullif(regexp_extract(error_message, 'perform: iam:PassRole on resource: ([^ ]+)', 1), ''))) AS role
  FROM events
  WHERE (event_source = 'ec2.amazonaws.com' AND event_name IN ('RunInstances', 'AssociateIamInstanceProfile', 'ReplaceIamInstanceProfileAssociation')
      OR event_source = 'lambda.amazonaws.com' AND event_name IN ('CreateFunction20150331', 'UpdateFunctionConfiguration20150331v2')
      OR event_source = 'cloudformation.amazonaws.com' AND event_name IN ('CreateStack', 'UpdateStack', 'CreateChangeSet')
      OR event_source = 'glue.amazonaws.com' AND event_name IN ('CreateDevEndpoint', 'CreateJob', 'CreateSession')
      OR event_source = 'sagemaker.amazonaws.com' AND event_name IN ('CreateNotebookInstance', 'CreateTrainingJob', 'CreateProcessingJob')
      OR event_source = 'ecs.amazonaws.com' AND event_name IN ('RunTask', 'RegisterTaskDefinition')
      OR event_source = 'codebuild.amazonaws.com' AND event_name IN ('CreateProject', 'UpdateProject')
      OR event_source = 'batch.amazonaws.com' AND event_name = 'RegisterJobDefinition'
      OR event_source = 'elasticmapreduce.amazonaws.com' AND event_name = 'RunJobFlow'
      OR event_source = 'ssm.amazonaws.com' AND event_name = 'StartAutomationExecution'
      OR event_source = 'states.amazonaws.com' AND event_name = 'CreateStateMachine')
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
),
-- Roles that were given administrative rights lately, and by whom.
raised AS (
  SELECT account, principal, event_time, event_id, json_extract_string(request_parameters, '$.roleName') AS role
  FROM events
  WHERE event_source = 'iam.amazonaws.com' AND event_name = 'AttachRolePolicy' AND success
    AND last_part(json_extract_string(request_parameters, '$.policyArn')) IN ('AdministratorAccess', 'PowerUserAccess', 'IAMFullAccess')
),
passed AS (
  SELECT
    c.*,
    coalesce(regexp_matches(c.role, getvariable('privileged_role_passed_privileged_roles')), false) AS named_so,
    (SELECT list(r.event_id)
      FROM raised AS r
      WHERE r.account = c.account AND r.role = c.role AND r.principal = c.principal
        AND r.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time) AS raised_ids
  FROM calls AS c
  WHERE NOT list_contains(getvariable('privileged_role_passed_trusted_principals'), c.principal)
),
privileged AS (
  SELECT * FROM passed WHERE named_so OR raised_ids IS NOT NULL
),
judged AS (
  SELECT
    p.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = p.account AND a.principal = p.principal AND a.event_source = p.event_source
        AND a.event_name = p.event_name AND a.success AND a.date < p.date) AS habit,
    coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = p.account) <= p.date - 14, false) AS mature
  FROM privileged AS p
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  role AS target,
  concat('Role ', role, ' was passed to ', split_part(event_source, '.', 1), ' by ', event_name,
    CASE WHEN raised_ids IS NOT NULL THEN ', right after the same hand had made it an administrator' ELSE '' END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN CASE WHEN raised_ids IS NOT NULL OR mature THEN 'medium' ELSE 'low' END
    WHEN raised_ids IS NOT NULL OR mature THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_append(coalesce(raised_ids, []), event_id) AS event_ids
FROM judged
WHERE raised_ids IS NOT NULL OR NOT habit
