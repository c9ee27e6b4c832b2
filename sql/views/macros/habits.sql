-- What tells work from mischief: who does it by hand, and what a call that was only tried is worth.

-- A person, a stranger, or somebody who sits on an instance and uses its role. Everything else is a program's role.
CREATE OR REPLACE MACRO is_by_hand(actor_kind, session_name) AS
  is_person(actor_kind) OR actor_kind IN ('cross_account', 'anonymous') OR is_instance_session(session_name);

-- The next lower level of the scale
CREATE OR REPLACE MACRO one_below(severity) AS severity_of(severity_rank(severity) - 1);

-- Instances that a call of EC2 names: requestParameters.instancesSet
CREATE OR REPLACE MACRO instances_named(request) AS
  list_filter(list_transform(json_items(request, '$.instancesSet.items'), lambda i: json_extract_string(i, '$.instanceId')),
    lambda i: i IS NOT NULL);
