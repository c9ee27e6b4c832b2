-- Who changes whose rights: IAM's own calls, what a policy allows, and whom a role trusts.

-- A call AWS decided on by itself. One that a service passes on (CloudFormation, the console) is still somebody's.
CREATE OR REPLACE MACRO by_aws_itself(kind, user_type, event_type, issuer_arn) AS
  coalesce(kind = 'aws_service', false) AND (
    coalesce(user_type, 'AWSService') = 'AWSService'
    OR coalesce(event_type = 'AwsServiceEvent', false)
    OR coalesce(contains(issuer_arn, ':role/aws-service-role/'), false));

-- The caller is the IAM user of that name
CREATE OR REPLACE MACRO is_same_user(user_type, user_name, user_arn, target) AS
  coalesce(user_type = 'IAMUser' AND lower(target) IN (lower(user_name), lower(last_part(user_arn))), false);

-- What an IAM call was refused on, from the error's words, where requestParameters are null
CREATE OR REPLACE MACRO refused_target(error_message) AS
  last_part(nullif(regexp_extract(error_message, 'on resource: (?:(?:user|role|group|policy) )?([^ ]+)', 1), ''));

-- A policy that is an object, a text holding JSON, or such a text URL-encoded; NULL for anything else
CREATE OR REPLACE MACRO policy_document(document, path) AS
  CASE json_type(document, path)
    WHEN 'OBJECT' THEN json_extract(document, path)
    WHEN 'VARCHAR' THEN coalesce(
      TRY_CAST(json_extract_string(document, path) AS JSON),
      TRY_CAST(url_decode(json_extract_string(document, path)) AS JSON))
  END;

-- IAM's wildcards: "iam:Attach*" covers iam:attachuserpolicy
CREATE OR REPLACE MACRO covers(patterns, action) AS
  len(list_filter(patterns, lambda p: coalesce(action GLOB lower(p), false))) > 0;

CREATE OR REPLACE MACRO statement_covers(statement, action) AS
  covers(json_texts(statement, '$.Action'), action)
  OR (json_type(statement, '$.NotAction') IS NOT NULL AND NOT covers(json_texts(statement, '$.NotAction'), action));

-- Everything, or all identities of the account; a statement of all resources but some is taken for everything
CREATE OR REPLACE MACRO statement_reaches_all(statement) AS
  json_type(statement, '$.NotResource') IS NOT NULL
  OR len(list_filter(json_texts(statement, '$.Resource'), lambda r:
    regexp_matches(r, '^(\*+|arn:[^:]*:(iam|\*):[^:]*:[^:]*:(\*|(user|role|group|policy)/\*))$'))) > 0;

-- Delegated administration: rights may be given, but only inside a boundary or from a list
CREATE OR REPLACE MACRO statement_bounded(statement) AS
  coalesce(regexp_matches(lower(CAST(json_extract(statement, '$.Condition') AS VARCHAR)), '"iam:(permissionsboundary|policyarn)"'), false);

-- An Allow for all resources that no Deny for all resources takes back
CREATE OR REPLACE MACRO policy_allows(policy, action) AS
  len(list_filter(policy_statements(policy), lambda s:
    coalesce(json_extract_string(s, '$.Effect') = 'Allow', false) AND statement_covers(s, action)
    AND statement_reaches_all(s) AND NOT statement_bounded(s))) > 0
  AND len(list_filter(policy_statements(policy), lambda s:
    coalesce(json_extract_string(s, '$.Effect') = 'Deny', false) AND statement_covers(s, action)
    AND json_type(s, '$.Condition') IS NULL AND list_contains(json_texts(s, '$.Resource'), '*'))) = 0;

-- How much a policy allows: 'everything', 'rights' (it can give itself everything), 'power' (all but identities), NULL
CREATE OR REPLACE MACRO policy_power(policy) AS
  CASE
    WHEN len(list_filter(
        ['iam:attachuserpolicy', 'iam:attachrolepolicy', 'iam:attachgrouppolicy', 'iam:putuserpolicy', 'iam:putrolepolicy',
         'iam:putgrouppolicy', 'iam:createpolicyversion', 'iam:setdefaultpolicyversion', 'iam:addusertogroup',
         'iam:createaccesskey', 'iam:createloginprofile', 'iam:updateloginprofile', 'iam:updateassumerolepolicy'],
        lambda a: policy_allows(policy, a))) > 0
      THEN CASE WHEN policy_allows(policy, 's3:deletebucket') AND policy_allows(policy, 'ec2:terminateinstances')
        THEN 'everything' ELSE 'rights' END
    WHEN policy_allows(policy, 's3:deletebucket') AND policy_allows(policy, 'ec2:terminateinstances') THEN 'power'
  END;

-- The conditions of a statement as a list of {operator, key, texts}; [] where there are none or they are misshapen
CREATE OR REPLACE MACRO statement_conditions(statement) AS
  coalesce(flatten(list_transform(
    map_entries(TRY_CAST(json_extract(statement, '$.Condition') AS MAP(VARCHAR, MAP(VARCHAR, JSON)))),
    lambda o: coalesce(list_transform(map_entries(o.value),
      lambda c: {'operator': lower(o.key), 'key': lower(c.key), 'texts': json_texts(c.value, '$')}), []))), []);

-- Only callers who know the agreed external id get in. It keeps a vendor from being misled; it is no secret.
CREATE OR REPLACE MACRO statement_wants_external_id(statement) AS
  len(list_filter(statement_conditions(statement), lambda c:
    c.key = 'sts:externalid' AND c.operator IN ('stringequals', 'stringlike')
    AND len(c.texts) > 0 AND NOT list_contains(c.texts, '*'))) > 0;

CREATE OR REPLACE MACRO trust_principals(statement) AS
  list_concat(statement_principals(statement), json_texts(statement, '$.Principal.Federated'));

-- A role that everybody in the world may try to assume
CREATE OR REPLACE MACRO trusts_anyone(statement) AS
  coalesce(json_extract_string(statement, '$.Effect') = 'Allow', false)
  AND (statement_for_anyone(statement)
    OR len(list_filter(statement_principals(statement), lambda p: regexp_matches(p, '^arn:aws[^:]*:(iam|sts)::\*'))) > 0)
  AND NOT statement_restricted(statement);

-- Accounts a statement lets in, named as principals or, behind "*", by conditions
CREATE OR REPLACE MACRO trusted_accounts(statement) AS
  CASE WHEN coalesce(json_extract_string(statement, '$.Effect') = 'Allow', false) THEN
    list_distinct(list_filter(list_transform(
      list_concat(trust_principals(statement), flatten(list_transform(
        list_filter(statement_conditions(statement), lambda c: c.key IN ('aws:principalaccount', 'aws:principalarn')
          AND statement_for_anyone(statement) AND NOT regexp_matches(c.operator, 'not')),
        lambda c: c.texts))),
      lambda p: regexp_extract(p, '^(?:arn:aws[^:]*:(?:iam|sts)::)?([0-9]{12})(?::|$)', 1)), lambda a: a <> ''))
  ELSE CAST([] AS VARCHAR[]) END;

-- Organizations a statement lets in
CREATE OR REPLACE MACRO trusted_organizations(statement) AS
  CASE WHEN coalesce(json_extract_string(statement, '$.Effect') = 'Allow', false) THEN
    list_distinct(list_filter(list_transform(
      flatten(list_transform(
        list_filter(statement_conditions(statement), lambda c: c.key IN ('aws:principalorgid', 'aws:principalorgpaths')
          AND NOT regexp_matches(c.operator, 'not')),
        lambda c: c.texts)),
      lambda o: regexp_extract(o, '^(o-[a-z0-9]+)', 1)), lambda o: o <> ''))
  ELSE CAST([] AS VARCHAR[]) END;

-- A provider of identities that anybody can have an account with, and no condition saying whose may come in
CREATE OR REPLACE MACRO trusts_any_customer(statement) AS
  coalesce(json_extract_string(statement, '$.Effect') = 'Allow', false)
  AND len(list_filter(json_texts(statement, '$.Principal.Federated'), lambda p: regexp_matches(p,
    '(^|/)(token\.actions\.githubusercontent\.com|gitlab\.com|app\.terraform\.io|agent\.buildkite\.com|oidc\.circleci\.com|api\.bitbucket\.org|accounts\.google\.com|cognito-identity\.amazonaws\.com|graph\.facebook\.com|www\.amazon\.com)'))) > 0
  AND len(list_filter(statement_conditions(statement), lambda c:
    NOT regexp_matches(c.operator, '(not|ifexists$|^forallvalues:|^null$)')
    AND (NOT ends_with(c.key, ':aud') OR regexp_matches(c.key, '^(accounts\.google|cognito-identity|graph\.facebook|www\.amazon)'))
    AND len(c.texts) > 0 AND len(list_filter(c.texts, lambda v: regexp_matches(v, '^[a-z_]*:?[*?]'))) = 0)) = 0;
