-- Who an S3 access control list lets in. Canned ACLs are headers, in newer records a text and in older ones a list.

CREATE OR REPLACE MACRO acl_everyone(text) AS
  coalesce(regexp_matches(text, 'acs\.amazonaws\.com/groups/global/(AllUsers|AuthenticatedUsers)'), false);

-- What everyone may do by an ACL: the canned ACL, the grant headers and the grants of the body; empty if nothing
CREATE OR REPLACE MACRO acl_public_grants(request) AS
  list_distinct(list_concat(
    list_filter(json_texts(request, '$."x-amz-acl"'),
      lambda a: a IN ('public-read', 'public-read-write', 'authenticated-read')),
    list_filter(
      [CASE WHEN acl_everyone(json_header(request, '$."x-amz-grant-read"')) THEN 'READ' END,
       CASE WHEN acl_everyone(json_header(request, '$."x-amz-grant-write"')) THEN 'WRITE' END,
       CASE WHEN acl_everyone(json_header(request, '$."x-amz-grant-read-acp"')) THEN 'READ_ACP' END,
       CASE WHEN acl_everyone(json_header(request, '$."x-amz-grant-write-acp"')) THEN 'WRITE_ACP' END,
       CASE WHEN acl_everyone(json_header(request, '$."x-amz-grant-full-control"')) THEN 'FULL_CONTROL' END],
      lambda g: g IS NOT NULL),
    list_transform(
      list_filter(json_items(request, '$.AccessControlPolicy.AccessControlList.Grant'),
        lambda g: acl_everyone(json_extract_string(g, '$.Grantee.URI'))),
      lambda g: coalesce(json_extract_string(g, '$.Permission'), 'READ'))));
