-- ---
-- title        = "Image Pushed Off Pipeline"
-- severity     = "medium"
-- attack       = [
--   { id = "T1525", why = "an image with a back door is started wherever its tag is deployed" },
--   { id = "T1204.003", why = "those who trust the registry run what was put there" },
-- ]
-- about        = "A container image was pushed by somebody who does not push images, or by an account that is not yours."
-- benign       = [
--   "A new pipeline: one alert on its first day; or list it in pipelines",
--   "A developer who pushes by hand, now and then",
-- ]
-- event_names  = ["PutImage"]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Which image, which tag? SELECT event_time, json_extract_string(request_parameters, '$.repositoryName') AS repository, json_extract_string(request_parameters, '$.imageTag') AS tag FROM events WHERE event_name = 'PutImage' AND principal = '…'.
-- 2. Does it run already? Look for the digest in tasks and pods that started since.
-- 3. Scan it and compare it with what the pipeline built: aws ecr describe-image-scan-findings --repository-name … --image-id imageDigest=….
-- 4. If it was not wanted: aws ecr batch-delete-image, deploy the right one again, take the actor's keys and sessions away.
-- 5. Make tags immutable and let only the pipeline push.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html",
--   "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html",
-- ]
--
-- [params.pipelines]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of the principals that push images: no finding"
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts whose pipelines push here. Accounts of your integrations are trusted anyway"
--
-- [params.learning_days]
-- type    = "int"
-- default = 14
-- about   = "Days of history an account needs before a pipeline's role is new to it"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
pushes AS (
  SELECT
    e.*,
    len(foreign_accounts([e.user_account_id], e.account, known.own, getvariable('image_pushed_off_pipeline_trusted_accounts'))) > 0 AS strange
  FROM events AS e, known
  WHERE e.event_source IN ('ecr.amazonaws.com', 'ecr-public.amazonaws.com')
    AND e.event_name = 'PutImage'
    AND e.actor_kind <> 'aws_service'
    AND (e.success OR e.denied)
    AND NOT list_contains(getvariable('image_pushed_off_pipeline_pipelines'), e.principal)
),
judged AS (
  SELECT
    p.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = p.account AND a.principal = p.principal AND a.event_source = p.event_source
        AND a.event_name = 'PutImage' AND a.success AND a.date < p.date) AS habit,
    is_by_hand(p.actor_kind, p.session_name) AS by_hand,
    coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = p.account) <= p.date - CAST(getvariable('image_pushed_off_pipeline_learning_days') AS INT), false) AS mature
  FROM pushes AS p
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(json_extract_string(request_parameters, '$.repositoryName'), 'a repository') AS target,
  concat('Image ', json_extract_string(request_parameters, '$.repositoryName'), ':', coalesce(json_extract_string(request_parameters, '$.imageTag'), '(no tag)'),
    ' was pushed by ', CASE WHEN strange THEN concat('account ', user_account_id) ELSE 'somebody who does not push images' END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN 'low'
    WHEN strange OR mature THEN 'medium'
    ELSE 'low'
  END AS severity
FROM judged
WHERE NOT habit AND (strange OR by_hand OR mature)
