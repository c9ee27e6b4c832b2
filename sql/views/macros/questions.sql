-- Everyday questions as tables: SELECT * FROM timeline_of('alice', since := '2026-03-01'). Who is named by an ARN, or by
-- its last part. `since` and `until` are days (UTC), both included; give them, and only their folders are read.

-- Whether a name means this caller: its ARN, the last part of it, or the session's name
CREATE OR REPLACE MACRO is_named(principal, session_name, who) AS
  principal = who OR session_name = who OR ends_with(principal, concat('/', who)) OR ends_with(principal, concat(':', who));

CREATE OR REPLACE MACRO who_did(call, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT event_time, account, aws_region AS region, principal, session_name AS session, source_ip_address AS source_ip,
    event_name, error_code, request_parameters, event_id
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND event_name GLOB call
  ORDER BY event_time DESC, event_id;
COMMENT ON MACRO TABLE who_did IS 'Who made a call, from where, with what; * in its name stands for anything';

CREATE OR REPLACE MACRO timeline_of(who, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT event_time, account, aws_region AS region, session_name AS session, source_ip_address AS source_ip,
    event_source, event_name, error_code, request_parameters, event_id
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND is_named(principal, session_name, who)
  ORDER BY event_time, event_id;
COMMENT ON MACRO TABLE timeline_of IS 'Everything a user, role or session did, in its order';

CREATE OR REPLACE MACRO habits_of(who, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT event_source, event_name, sum("count") AS calls, count(DISTINCT date) AS days, min(first_seen) AS first_seen,
    max(last_seen) AS last_seen, list_sort(list(DISTINCT region)) AS regions, list_sort(list(DISTINCT source_net)) AS networks
  FROM activity
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND is_named(principal, NULL, who)
  GROUP BY event_source, event_name
  ORDER BY calls DESC, event_source, event_name;
COMMENT ON MACRO TABLE habits_of IS 'What a user or role calls, how often and on how many days; reads the roll-up, so it is quick over years';

CREATE OR REPLACE MACRO sessions_of(role, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT e.account, e.principal AS role, e.session_name AS session, e.user_access_key_id AS access_key,
    min(e.event_time) AS first_seen, max(e.event_time) AS last_seen, count(*) AS calls,
    count(*) FILTER (e.is_write) AS writes, count(*) FILTER (e.denied) AS denied,
    list_sort(list(DISTINCT e.source_ip_address)) AS source_ips, any_value(a.by) AS assumed_by
  FROM events AS e
  LEFT JOIN (
    SELECT json_extract_string(response_elements, '$.credentials.accessKeyId') AS access_key, min(principal) AS by
    FROM events
    WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND event_source = 'sts.amazonaws.com'
    GROUP BY ALL
  ) AS a ON a.access_key = e.user_access_key_id
  WHERE e.date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND e.session_name IS NOT NULL
    AND is_named(e.principal, NULL, role)
  GROUP BY ALL
  ORDER BY first_seen DESC, session;
COMMENT ON MACRO TABLE sessions_of IS 'The sessions of a role: when, how much, from where, and who assumed it';

CREATE OR REPLACE MACRO calls_of_key(access_key, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT principal, event_source, event_name, min(event_time) AS first_seen, max(event_time) AS last_seen,
    count(*) AS calls, count(*) FILTER (denied) AS denied, list_sort(list(DISTINCT aws_region)) AS regions,
    list_sort(list(DISTINCT source_ip_address)) AS source_ips
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND user_access_key_id = access_key
  GROUP BY ALL
  ORDER BY first_seen, event_name;
COMMENT ON MACRO TABLE calls_of_key IS 'What an access key did, long-term or temporary, and from where';

-- An IPv6 address as its 32 digits, its first bits, and the bits that a network such as 2001:db8::/32 fixes
CREATE OR REPLACE MACRO ipv6_digits(address) AS
  array_to_string([lpad(p, 4, '0') FOR p IN string_split(split_part(lower(address), '::', 1), ':') IF p <> ''], '')
  || CASE WHEN contains(address, '::') THEN repeat('0000', 8
      - len([p FOR p IN string_split(split_part(address, '::', 1), ':') IF p <> ''])
      - len([p FOR p IN string_split(split_part(address, '::', 2), ':') IF p <> ''])) ELSE '' END
  || array_to_string([lpad(p, 4, '0') FOR p IN string_split(split_part(lower(address), '::', 2), ':') IF p <> ''], '');
CREATE OR REPLACE MACRO ipv6_start(address, bits) AS
  left(ipv6_digits(address), bits // 4) || CASE WHEN bits % 4 > 0 THEN CAST(
    (strpos('0123456789abcdef', substr(ipv6_digits(address), bits // 4 + 1, 1)) - 1) >> (4 - bits % 4) AS VARCHAR) ELSE '' END;
CREATE OR REPLACE MACRO ipv6_bits(network) AS coalesce(TRY_CAST(nullif(split_part(network, '/', 2), '') AS INT), 128);

CREATE OR REPLACE MACRO calls_from(address, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT account, principal, event_source, event_name, min(event_time) AS first_seen, max(event_time) AS last_seen,
    count(*) AS calls, count(*) FILTER (denied) AS denied, list_sort(list(DISTINCT user_agent)) AS user_agents
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE)
    AND CASE
      WHEN regexp_full_match(address, '[0-9.]+/(3[0-2]|[12]?[0-9])') THEN in_networks(source_ip_address, source_net, [address])
      WHEN regexp_full_match(address, '[0-9A-Fa-f:]*:[0-9A-Fa-f:]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?') THEN
        contains(source_ip_address, ':') AND ipv6_start(source_ip_address, ipv6_bits(address))
          = ipv6_start(split_part(address, '/', 1), ipv6_bits(address))
      WHEN contains(address, '/') THEN error('That is no network: ' || address || '. Write it as 198.51.100.0/24 or 2001:db8::/32')
      ELSE source_ip_address = address END
  GROUP BY ALL
  ORDER BY first_seen, event_name;
COMMENT ON MACRO TABLE calls_from IS 'Who did what from an address, or from a network such as 198.51.100.0/24 or 2001:db8::/32';

CREATE OR REPLACE MACRO denials(since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT account, principal, event_source, event_name, error_code, min(event_time) AS first_seen,
    max(event_time) AS last_seen, count(*) AS calls, list_sort(list(DISTINCT source_ip_address)) AS source_ips,
    any_value(error_message) AS message
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE) AND denied
  GROUP BY ALL
  ORDER BY calls DESC, last_seen DESC;
COMMENT ON MACRO TABLE denials IS 'What was refused for want of a permission, to whom, how often';

-- The text holds the value with characters that JSON need not escape and some of its writers do: a/b as a\/b
CREATE OR REPLACE MACRO contains_escaped(text, value) AS
  regexp_matches(value, '[/<>&='']') AND (contains(text, '\/') OR contains(text, '\u00'))
  AND contains(replace(replace(replace(replace(replace(replace(text, '\/', '/'), '\u003c', '<'), '\u003e', '>'),
    '\u0026', '&'), '\u003d', '='), '\u0027', ''''), value);

CREATE OR REPLACE MACRO who_touched(resource, since := DATE '1990-01-01', until := DATE '9999-12-31') AS TABLE
  SELECT event_time, account, aws_region AS region, principal, session_name AS session, source_ip_address AS source_ip,
    event_name, is_write, error_code, event_id
  FROM events
  WHERE date BETWEEN CAST(since AS DATE) AND CAST(until AS DATE)
    AND (contains(resources, resource) OR contains(request_parameters, resource) OR contains(response_elements, resource)
      OR contains_escaped(concat_ws(' ', resources, request_parameters, response_elements), resource))
  ORDER BY event_time DESC, event_id;
COMMENT ON MACRO TABLE who_touched IS 'Which calls named a resource: an ARN, an id, a bucket, a user';
