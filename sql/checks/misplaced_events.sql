-- ---
-- title  = "Events in the wrong partition"
-- about  = "An event lies under another account or date than its own, where queries by account or date overlook it."
-- remedy = "Restore the file from a backup if somebody moved or rewrote it; otherwise please report this."
-- ---
SELECT account, date, event_id, event_time, recipient_account_id, filename AS file
FROM events
WHERE date <> CAST(event_time AS DATE)
   OR (regexp_full_match(recipient_account_id, '[0-9]{12}') AND recipient_account_id <> account)
ORDER BY ALL
