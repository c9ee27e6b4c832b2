-- ---
-- title        = "Machine Image Shared"
-- severity     = "high"
-- attack       = [
--   { id = "T1537", why = "whoever may launch the image has a copy of its disks in their own account" },
--   { id = "T1578.005", why = "the guard against public images was taken off" },
-- ]
-- about        = "A machine image may be launched by an account or organization that is not yours, or by everybody."
-- benign       = [
--   "Golden images for other accounts: list them in trusted_accounts; a pipeline that shares images again and again is low",
--   "Vendors publish images on purpose: list them in public_images",
-- ]
-- event_names  = ["ModifyImageAttribute", "DisableImageBlockPublicAccess"]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Take it back: aws ec2 modify-image-attribute --image-id … --launch-permission 'Remove=[{UserId=…}]'; for everybody: Remove=[{Group=all}].
-- 2. Whose account is it? If nobody knows, treat what is on the disks as stolen: keys, configuration, customers' data.
-- 3. Which instance was the image made from, and by whom? SELECT event_time, principal, request_parameters FROM events WHERE event_name = 'CreateImage' AND response_elements LIKE '%ami-…%'.
-- 4. Forbid it for good: aws ec2 enable-image-block-public-access --image-block-public-access-state block-new-sharing, and a service control policy on the call.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.ec2-share-ami/",
--   "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/sharingamis-explicit.html",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts, and organizations' or units' ARNs, that images may be shared with: no finding. Accounts of your integrations are trusted anyway"
--
-- [params.public_images]
-- type    = "list[str]"
-- default = []
-- about   = "Images that are meant for everybody: at most low"
--
-- [params.habit_days]
-- type    = "int"
-- default = 3
-- about   = "Earlier days on which a principal shared images that make it its work: low"
-- ---
WITH calls AS (
  SELECT
    *,
    event_name = 'DisableImageBlockPublicAccess' AS guard,
    json_extract_string(request_parameters, '$.imageId') AS image,
    list_transform(json_items(request_parameters, '$.launchPermission.add.items'), lambda i: coalesce(
      json_extract_string(i, '$.userId'), json_extract_string(i, '$.group'),
      json_extract_string(i, '$.organizationArn'), json_extract_string(i, '$.organizationalUnitArn'))) AS given
  FROM events
  WHERE event_source = 'ec2.amazonaws.com' AND event_name IN ('ModifyImageAttribute', 'DisableImageBlockPublicAccess')
    AND actor_kind <> 'aws_service' AND (success OR denied)
),
known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
shared AS (
  SELECT
    c.*,
    foreign_accounts(c.given, c.account, k.own, getvariable('machine_image_shared_trusted_accounts')) AS strangers
  FROM calls AS c, known AS k
),
judged AS (
  SELECT
    s.*,
    list_contains(s.strangers, 'all') AS public,
    list_contains(getvariable('machine_image_shared_public_images'), s.image) AS meant,
    -- An organization is most often one's own; whether it is, the record does not tell.
    len(list_filter(s.strangers, lambda a: NOT contains(a, ':organizations:'))) = 0 AS organization,
    (SELECT count(DISTINCT a.date) FROM activity AS a
      WHERE a.account = s.account AND a.principal = s.principal AND a.event_source = 'ec2.amazonaws.com'
        AND a.event_name = 'ModifyImageAttribute' AND a.success AND a.date < s.date)
      >= getvariable('machine_image_shared_habit_days') AS habit
  FROM shared AS s
  WHERE s.guard OR len(s.strangers) > 0
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  CASE WHEN guard THEN concat('images in ', aws_region) ELSE coalesce(image, 'an image') END AS target,
  concat(
    CASE
      WHEN guard THEN concat('Images in ', aws_region, ' may be made public')
      WHEN public THEN concat('Image ', image, ' was given to everybody')
      ELSE concat('Image ', image, ' was shared with ', array_to_string(strangers, ', '))
    END,
    CASE WHEN success THEN '' ELSE concat(': tried, and refused with ', error_code) END) AS summary,
  CASE
    WHEN guard THEN CASE WHEN success THEN 'medium' ELSE 'low' END
    WHEN meant THEN 'low'
    WHEN public THEN CASE WHEN success THEN 'critical' ELSE 'high' END
    WHEN organization OR success AND habit THEN 'low'
    WHEN NOT success THEN 'medium'
    ELSE 'high'
  END AS severity
FROM judged
