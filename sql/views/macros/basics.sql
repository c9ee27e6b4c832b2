-- Small readers of names and JSON that every detection needs. None raises on NULL, on the text 'null' or on odd shapes.

-- Last part of an ARN or path: arn:aws:iam::1:user/ops/alice → alice
CREATE OR REPLACE MACRO last_part(name) AS nullif(regexp_extract(name, '([^/:]+)/*$', 1), '');

-- A value that may be a list or stand alone, as a list of JSON: [1, 2] → [1, 2], {"a": 1} → [{"a": 1}], nothing → []
CREATE OR REPLACE MACRO json_items(document, path) AS
  CASE json_type(document, path)
    WHEN 'ARRAY' THEN json_extract(document, path || '[*]')
    WHEN 'OBJECT' THEN [json_extract(document, path)]
    ELSE CAST([] AS JSON[])
  END;

-- A value that may be a list of texts or one text, as a list: "a" → [a], ["a", "b"] → [a, b], nothing → []
CREATE OR REPLACE MACRO json_texts(document, path) AS
  CASE json_type(document, path)
    WHEN 'ARRAY' THEN json_extract_string(document, path || '[*]')
    WHEN 'VARCHAR' THEN [json_extract_string(document, path)]
    ELSE CAST([] AS VARCHAR[])
  END;

-- A header as CloudTrail has it: a text in newer records, a list of one in older ones
CREATE OR REPLACE MACRO json_header(document, path) AS json_texts(document, path)[1];

-- An object that may be written out or be a text holding JSON
CREATE OR REPLACE MACRO json_object_at(document, path) AS
  CASE json_type(document, path)
    WHEN 'OBJECT' THEN json_extract(document, path)
    WHEN 'VARCHAR' THEN CASE WHEN json_valid(json_extract_string(document, path))
      THEN CAST(json_extract_string(document, path) AS JSON) END
  END;

-- Whether a flag is false, be it a boolean or a text
CREATE OR REPLACE MACRO json_is_false(document, path) AS
  coalesce(lower(json_extract_string(document, path)) = 'false', false);

-- The user that an IAM call was refused on, from the error's words: requestParameters are null then
CREATE OR REPLACE MACRO refused_user(error_message) AS
  nullif(regexp_extract(error_message, 'on resource: (?:user |arn:aws[^:]*:iam::[0-9]*:(?:user|mfa)/(?:[^ ]*/)?)([^ /]+)', 1), '');

-- The address is in one of the IPv4 networks ("198.51.100.0/24"); an IPv6 /48 is compared as source_net is written
CREATE OR REPLACE MACRO ip_number(address) AS
  list_reduce([TRY_CAST(part AS BIGINT) FOR part IN string_split(split_part(address, '/', 1), '.')], lambda a, b: a * 256 + b);

CREATE OR REPLACE MACRO in_networks(address, net, networks) AS
  len(networks) > 0 AND (coalesce(list_contains(networks, net), false) OR coalesce(len(list_filter(networks, lambda n:
    contains(n, '.') AND contains(address, '.') AND NOT contains(address, ':')
    AND ip_number(address) // CAST(pow(2, 32 - coalesce(TRY_CAST(nullif(split_part(n, '/', 2), '') AS INT), 32)) AS BIGINT)
      = ip_number(n) // CAST(pow(2, 32 - coalesce(TRY_CAST(nullif(split_part(n, '/', 2), '') AS INT), 32)) AS BIGINT)
  )) > 0, false));

-- One level up or down the scale info, low, medium, high, critical
CREATE OR REPLACE MACRO severity_rank(severity) AS list_position(['info', 'low', 'medium', 'high', 'critical'], severity);
CREATE OR REPLACE MACRO severity_of(rank) AS ['info', 'low', 'medium', 'high', 'critical'][greatest(1, least(5, rank))];
CREATE OR REPLACE MACRO at_most(severity, ceiling) AS severity_of(least(severity_rank(severity), severity_rank(ceiling)));
