"""What `kyra detections new` writes: a detection that works, and cases that hold it, to be made into another."""

from __future__ import annotations

import json

_SQL = """\
-- ---
-- title        = {title}
-- severity     = "medium"          # info | low | medium | high | critical; a column `severity` overrides it per row
-- attack       = [{{ id = "T1078.004", why = "say why this call is a sign of it" }}]
-- about        = "Say in a sentence or two what was done and why it matters."
-- benign       = ["Say when it is harmless"]
-- event_names  = ["DeleteFlowLogs"]           # batches without any of these are passed over; leave it out for any
-- group_by     = ["account", "target"]        # one alert for each of these …
-- group_window = "1h"                         # … and span of time
-- runbook      = \"\"\"
-- 1. Who did it, from where? Is there a ticket?
-- 2. What else did they do? SELECT event_time, event_name FROM events WHERE principal = '…' ORDER BY event_time.
-- 3. Undo it; say here how.
-- \"\"\"
-- references   = ["https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteFlowLogs.html"]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that do this as their work"
-- ---
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  json_extract_string(request_parameters, '$.DeleteFlowLogsRequest.FlowLogId.content') AS target,
  concat('Flow logs were deleted by ', principal) AS summary
FROM events
WHERE event_source = 'ec2.amazonaws.com'
  AND event_name = 'DeleteFlowLogs'
  AND success
  AND NOT list_contains(getvariable('{id}_trusted_principals'), principal)
"""

_CASES = """\
detection: {id}
base:
  eventVersion: "1.09"
  eventTime: "2026-01-10T10:00:00Z"
  eventSource: ec2.amazonaws.com
  eventName: DeleteFlowLogs
  awsRegion: eu-west-1
  sourceIPAddress: 198.51.100.7
  userAgent: aws-cli/2.15
  readOnly: false
  managementEvent: true
  eventType: AwsApiCall
  eventCategory: Management
  recipientAccountId: "111122223333"
  userIdentity:
    type: IAMUser
    arn: arn:aws:iam::111122223333:user/alex
    accountId: "111122223333"
    userName: alex
  requestParameters: {{DeleteFlowLogsRequest: {{FlowLogId: {{content: fl-0123456789abcdef0}}}}}}
cases:
  - name: it fires when it was done
    events: [{{}}]
    expect: {{alerts: 1, severity: medium, target: fl-0123456789abcdef0}}
  - name: it is quiet when it was refused
    events: [{{errorCode: Client.UnauthorizedOperation}}]
    expect: {{alerts: 0}}
  - name: it is quiet for those whose work it is
    params: {{trusted_principals: ["arn:aws:iam::111122223333:user/alex"]}}
    events: [{{}}]
    expect: {{alerts: 0}}
"""


def detection(id: str, title: str) -> str:
    """The .sql file."""
    return _SQL.format(id=id, title=json.dumps(title, ensure_ascii=False))


def cases(id: str) -> str:
    """The .yaml file of its cases."""
    return _CASES.format(id=id)
