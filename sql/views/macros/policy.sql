-- Who a resource policy lets in, statement by statement, by AWS's own meaning of public:
-- https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html#access-control-block-public-access-policy-status

CREATE OR REPLACE MACRO policy_statements(policy) AS json_items(policy, '$.Statement');

CREATE OR REPLACE MACRO statement_principals(statement) AS
  list_concat(json_texts(statement, '$.Principal'), json_texts(statement, '$.Principal.AWS'));

-- Allow everyone: "*", {"AWS": "*"}, a list with "*", or everyone but some (NotPrincipal)
CREATE OR REPLACE MACRO statement_for_anyone(statement) AS
  coalesce(json_extract_string(statement, '$.Effect') = 'Allow', false)
  AND (list_contains(statement_principals(statement), '*') OR json_type(statement, '$.NotPrincipal') IS NOT NULL);

-- A network narrow enough that it does not mean everyone: AWS draws the line at /8 and /32
CREATE OR REPLACE MACRO narrow_network(cidr) AS
  CASE WHEN contains(cidr, '/')
    THEN coalesce(TRY_CAST(split_part(cidr, '/', 2) AS INT) >= CASE WHEN contains(cidr, ':') THEN 32 ELSE 8 END, false)
    ELSE regexp_matches(cidr, '^[0-9a-fA-F.:]+$') END;

-- A value that names somebody: no wildcard, or one only behind a fixed account, organization or role id
CREATE OR REPLACE MACRO fixed_value(text) AS
  NOT regexp_matches(text, '[*?]')
  OR regexp_matches(text, '^arn:aws[^:*?]*:[^:*?]+:[^:]*:[0-9]{12}:')
  OR regexp_matches(text, '^o-[a-z0-9]{10,32}/')
  OR regexp_matches(text, '^AROA[A-Z0-9]+:');

-- One condition (operator, key, values) keeps strangers out. Negated operators, …IfExists and ForAllValues hold where
-- the key is absent or the value is another one, so they do not. Neither do SecureTransport, Referer, UserAgent or dates.
CREATE OR REPLACE MACRO condition_restricts(operator, key, condition_values) AS
  NOT regexp_matches(lower(operator), '(not|ifexists$|^forallvalues:|^null$)') AND len(condition_values) > 0
  AND CASE
    WHEN lower(key) IN ('aws:sourceip', 'aws:vpcsourceip')
      THEN len(list_filter(condition_values, lambda v: NOT narrow_network(v))) = 0
    WHEN lower(key) = 'aws:principalisawsservice' THEN lower(condition_values[1]) = 'true'
    WHEN lower(key) IN (
      'aws:principalorgid', 'aws:principalorgpaths', 'aws:sourceorgid', 'aws:sourceorgpaths', 'aws:principalaccount',
      'aws:principalarn', 'aws:sourceaccount', 'aws:sourcearn', 'aws:sourceowner', 'aws:sourcevpc', 'aws:sourcevpce',
      'aws:userid', 'kms:calleraccount', 's3:dataaccesspointaccount', 's3:dataaccesspointarn',
      's3:x-amz-server-side-encryption-aws-kms-key-id')
      THEN len(list_filter(condition_values, lambda v: NOT fixed_value(v))) = 0
    ELSE false
  END;

CREATE OR REPLACE MACRO statement_restricted(statement) AS
  coalesce(len(list_filter(
    map_entries(TRY_CAST(json_extract(statement, '$.Condition') AS MAP(VARCHAR, MAP(VARCHAR, JSON)))),
    lambda o: coalesce(len(list_filter(map_entries(o.value), lambda c:
      coalesce(condition_restricts(o.key, c.key, json_texts(c.value, '$')), false))) > 0, false))) > 0, false);

CREATE OR REPLACE MACRO policy_public_statements(policy) AS
  list_filter(policy_statements(policy), lambda s: statement_for_anyone(s) AND NOT statement_restricted(s));

-- Whether a statement lets them write, delete or administer; a statement of all actions but some does
CREATE OR REPLACE MACRO statement_writes(statement) AS
  json_type(statement, '$.NotAction') IS NOT NULL
  OR len(list_filter(json_texts(statement, '$.Action'), lambda a:
    regexp_matches(lower(a), '^(\*|s3:\*|s3:(put|delete|abort|restore|replicate|create|update|bypass|p\*|d\*))'))) > 0;

-- Accounts that Allow statements name: "111122223333" or arn:aws:iam::111122223333:…
CREATE OR REPLACE MACRO policy_accounts(policy) AS
  list_distinct(list_filter(flatten(list_transform(
    list_filter(policy_statements(policy), lambda s: coalesce(json_extract_string(s, '$.Effect') = 'Allow', false)),
    lambda s: list_transform(statement_principals(s),
      lambda p: regexp_extract(p, '^(?:arn:aws[^:]*:(?:iam|sts)::)?([0-9]{12})(?::|$)', 1)))), lambda a: a <> ''));
