-- ---
-- title  = "Events that are there twice"
-- about  = "The same event is in the lake more than once: same account, id and content. Other content under one id is none."
-- remedy = "Restore the lake from a backup if files were copied into it; otherwise please report this."
-- ---
WITH suspect AS (SELECT account, event_id FROM events GROUP BY ALL HAVING count(*) > 1)
SELECT account, date, event_id, count(*) AS times, list(DISTINCT filename ORDER BY filename) AS files
FROM events SEMI JOIN suspect USING (account, event_id)
GROUP BY account, date, event_id, row(
  event_time, event_name, event_source, event_type, event_category, event_version, api_version, aws_region,
  source_ip_address, user_agent, error_code, error_message, read_only, management_event, recipient_account_id,
  request_id, shared_event_id, vpc_endpoint_id, vpc_endpoint_account_id, session_credential_from_console,
  user_identity, request_parameters, response_elements, additional_event_data, resources, service_event_details,
  tls_details, extra)
HAVING count(*) > 1
ORDER BY account, date, event_id
