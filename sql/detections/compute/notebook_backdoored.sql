-- ---
-- title        = "Notebook Backdoored"
-- severity     = "medium"
-- attack       = [
--   { id = "T1059.009", why = "the notebook's start script runs as root whenever it is started" },
--   { id = "T1546", why = "what is put there runs again and again" },
-- ]
-- about        = "Somebody who never did so changed what a SageMaker notebook runs when it starts, or made a link that opens somebody's notebook."
-- benign       = [
--   "Data platforms that manage notebooks: known from the second day on, or list them in trusted_principals",
--   "People who open their own notebook from the console",
-- ]
-- event_names  = [
--   "CreateNotebookInstanceLifecycleConfig", "UpdateNotebookInstanceLifecycleConfig", "UpdateNotebookInstance",
--   "CreateStudioLifecycleConfig", "CreatePresignedNotebookInstanceUrl", "CreatePresignedDomainUrl",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was changed? SELECT event_time, event_name, request_parameters FROM events WHERE event_source = 'sagemaker.amazonaws.com' AND principal = '…' ORDER BY event_time.
-- 2. Read the script: aws sagemaker describe-notebook-instance-lifecycle-config --notebook-instance-lifecycle-config-name … (base64).
-- 3. Stop the notebook: aws sagemaker stop-notebook-instance --notebook-instance-name …; take the configuration off.
-- 4. What did the notebook's role do? SELECT event_time, event_name, source_ip_address FROM events WHERE principal = '…' AND event_time > '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.sagemaker-update-lifecycle-config/",
--   "https://docs.aws.amazon.com/sagemaker/latest/dg/notebook-lifecycle-config.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_name LIKE 'CreatePresigned%' AS opened,
    coalesce(json_extract_string(request_parameters, '$.notebookInstanceName'), json_extract_string(request_parameters, '$.notebookInstanceLifecycleConfigName'),
      json_extract_string(request_parameters, '$.studioLifecycleConfigName'), json_extract_string(request_parameters, '$.userProfileName'), 'a notebook') AS notebook
  FROM events
  WHERE event_source = 'sagemaker.amazonaws.com'
    AND event_name IN ('CreateNotebookInstanceLifecycleConfig', 'UpdateNotebookInstanceLifecycleConfig', 'UpdateNotebookInstance',
      'CreateStudioLifecycleConfig', 'CreatePresignedNotebookInstanceUrl', 'CreatePresignedDomainUrl')
    AND (event_name <> 'UpdateNotebookInstance' OR json_type(request_parameters, '$.lifecycleConfigName') = 'VARCHAR')
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
    AND NOT list_contains(getvariable('notebook_backdoored_trusted_principals'), principal)
    -- Whoever clicks "Open" in the console makes such a link for themselves.
    AND NOT (event_name LIKE 'CreatePresigned%' AND coalesce(session_credential_from_console = 'true', false))
),
judged AS (
  SELECT
    c.*,
    -- Known: whoever made the same call on a day before, and not only in vain.
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source
        AND a.event_name = c.event_name AND a.success AND a.date < c.date) AS habit
  FROM calls AS c
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  notebook AS target,
  concat(last_part(caller), CASE WHEN opened THEN ' made a link that opens ' ELSE ' changed what is run at the start of ' END, notebook,
    ', and never did so before', CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE WHEN success AND NOT opened THEN 'medium' ELSE 'low' END AS severity,
  caller
FROM judged
WHERE NOT habit
