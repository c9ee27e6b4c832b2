"""The role and, if wanted, the trail as one CloudFormation template or one Terraform file. Pure.

Both are the documents of `kyra_etl.aws.policies` with references in the place of names, so they cannot say anything
else. What differs between customers are parameters; for an integration these have its values as defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from kyra_etl.aws import policies
from kyra_etl.aws.commands import TRAIL_NAME
from kyra_etl.aws.policies import Terms
from kyra_etl.model import Integration


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that differs between customers: its name in both worlds, what it is, and a value if there is one.

    A `switch` is yes or no. Without a `default` a value must be given.
    """

    name: str
    variable: str
    about: str
    default: str | None = ""
    switch: bool = False
    secret: bool = False


PARAMETERS = (
    Parameter("BucketName", "bucket_name", "Bucket the trail delivers to.", None),
    Parameter("Folder", "folder", "What stands before AWSLogs/ in the bucket, ending in a slash; or nothing."),
    Parameter("TrustedPrincipal", "trusted_principal", "Who assumes the role: KYRACloudSensor of our account.", None),
    Parameter("ExternalId", "external_id", "External id; kyra integration policy prints it.", None, secret=True),
    Parameter("RoleName", "role_name", "Name of the role.", policies.ROLE_NAME),
    Parameter("RolePath", "role_path", "Path of the role.", "/"),
    Parameter("TopicArn", "topic_arn", "SNS topic the trail notifies, if there is one."),
    Parameter("KmsKeyArn", "kms_key_arn", "KMS key that encrypts the log files, if there is one."),
    Parameter("AllowEventSelectors", "allow_event_selectors", "Let kyra check read event selectors.", "no", True),
    Parameter("AllowPublicKeys", "allow_public_keys", "Let the keys of digest files be read.", "no", True),
    Parameter("CreateTrail", "create_trail", "Make the bucket and a multi-region trail, too.", "no", True),
    Parameter("OrganizationId", "organization_id", "Makes it a trail of the organization: its id, o-..."),
    Parameter("RecordDataEvents", "record_data_events", "Record data events, too; AWS charges for them.", "no", True),
)
_SID_NEEDS = {
    "AllowSNSSubscription": "TopicArn",
    policies.ADDITIONS["kms"].sid: "KmsKeyArn",
    policies.ADDITIONS["event-selectors"].sid: "AllowEventSelectors",
    policies.ADDITIONS["public-keys"].sid: "AllowPublicKeys",
}
"""Statements that are there only if a parameter has a value, or says yes."""


def values(integration: Integration, *, trusted: str | None = None, kms_key_arns: Sequence[str] = ()) -> dict[str, str]:
    """The parameters' values for an integration, by name; with `trusted`, the external id too. Raises UsageError."""
    names = policies.terms(integration, kms_key_arns)
    path, role = policies.role_of(integration)
    found = {
        "BucketName": integration.bucket,
        "Folder": names.folder,
        "RoleName": role,
        "RolePath": path,
        "TopicArn": integration.sns_topic_arn or "",
        "KmsKeyArn": next(iter(names.key_arns), ""),
        "AllowEventSelectors": "yes" if "event-selectors" in names.additions else "no",
        "AllowPublicKeys": "yes" if "public-keys" in names.additions else "no",
        "OrganizationId": integration.organization_id or "",
    }
    if trusted is not None:
        (statement,) = policies.trust_policy(integration, trusted)["Statement"]
        found["TrustedPrincipal"] = statement["Principal"]["AWS"]
        found["ExternalId"] = integration.external_id or ""
    return found


@dataclass(frozen=True)
class _Optional:
    """A part that is there only if the parameter of that name has a value, or says yes."""

    parameter: str
    value: Any


def _statements(names: Terms) -> list[Any]:
    return [
        _Optional(needs, one) if (needs := _SID_NEEDS.get(one["Sid"])) else one for one in policies.statements(names)
    ]


def _bucket_statements(names: Terms, trail_arn: str, account: str, organization: str) -> list[Any]:
    check, write = policies.bucket_policy(names, trail_arn, [account, organization])["Statement"]
    own, shared = write["Resource"]
    return [check, {**write, "Resource": [own, _Optional("OrganizationId", shared)]}]


def _terms(partition: str, reference: Callable[[str], str]) -> Terms:
    """Terms that name references to parameters, every addition among them."""
    return Terms(
        partition,
        reference("BucketName"),
        reference("Folder"),
        topic_arn=reference("TopicArn"),
        key_arns=(reference("KmsKeyArn"),),
        additions=policies.CHOSEN,
    )


# ── CloudFormation ──

_NOTHING = "AWS::NoValue"


@dataclass(frozen=True)
class _Call:
    """An intrinsic function in its short form: !Ref, !Sub, !If …"""

    tag: str
    value: Any


class _Dumper(yaml.SafeDumper):
    """Keeps the order, indents lists, and writes intrinsic functions as tags."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def call(self, call: _Call) -> Any:
        if isinstance(call.value, str):
            return self.represent_scalar(call.tag, call.value)
        return self.represent_sequence(call.tag, call.value, flow_style=call.tag in ("!Equals", "!Not", "!Select"))


_Dumper.add_representer(_Call, _Dumper.call)


def cloudformation(given: Mapping[str, str] | None = None) -> str:
    """The template as YAML; `given` are defaults of parameters, by name."""
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Lets kyra-etl read the log files of CloudTrail, and change nothing.",
        "Parameters": {one.name: _parameter(one, (given or {}).get(one.name, one.default)) for one in PARAMETERS},
        "Conditions": {f"If{one.name}": _condition(one) for one in PARAMETERS if one.switch or one.default == ""},
        "Resources": {"Role": _role(), **_trail()},
        "Outputs": {"RoleArn": {"Value": _Call("!GetAtt", "Role.Arn")}},
    }
    head = (
        "# What a customer puts in place for kyra-etl: a role that reads, and a trail if there is none yet.\n"
        "# Made by `kyra integration policy NAME --format cloudformation`, which fills in the defaults.\n"
    )
    return head + str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True))


def _parameter(one: Parameter, default: str | None) -> dict[str, Any]:
    return {
        "Type": "String",
        "Description": one.about,
        **({"Default": default} if default is not None else {}),
        **({"AllowedValues": ["yes", "no"]} if one.switch else {}),
        **({"NoEcho": True} if one.secret else {}),
    }


def _condition(one: Parameter) -> _Call:
    if one.switch:
        return _Call("!Equals", [_Call("!Ref", one.name), "yes"])
    return _Call("!Not", [_Call("!Equals", [_Call("!Ref", one.name), ""])])


def _role() -> dict[str, Any]:
    document = policies.policy(*_statements(_terms("${AWS::Partition}", "${{{}}}".format)))
    return {
        "Type": "AWS::IAM::Role",
        "Properties": _referring(
            {
                "RoleName": "${RoleName}",
                "Path": "${RolePath}",
                "MaxSessionDuration": 3600,
                "AssumeRolePolicyDocument": policies.trust("${TrustedPrincipal}", "${ExternalId}"),
                "Policies": [{"PolicyName": policies.POLICY_NAME, "PolicyDocument": document}],
            }
        ),
    }


def _trail() -> dict[str, Any]:
    names = _terms("${AWS::Partition}", "${{{}}}".format)
    arn = f"arn:${{AWS::Partition}}:cloudtrail:${{AWS::Region}}:${{AWS::AccountId}}:trail/{TRAIL_NAME}"
    bucket_policy = policies.policy(*_bucket_statements(names, arn, "${AWS::AccountId}", "${OrganizationId}"))
    without_slash = _Call("!Select", ["0", _Call("!Split", ["/:", _Call("!Sub", "${Folder}:")])])
    properties = {
        "TrailName": TRAIL_NAME,
        "S3BucketName": _Call("!Ref", "LogBucket"),
        "S3KeyPrefix": _Optional("Folder", without_slash),
        "SnsTopicName": _Optional("TopicArn", "${TopicArn}"),
        "KMSKeyId": _Optional("KmsKeyArn", "${KmsKeyArn}"),
        "IsLogging": True,
        "IsMultiRegionTrail": True,
        "EnableLogFileValidation": True,
        "IsOrganizationTrail": _Call("!If", ["IfOrganizationId", True, False]),
        "AdvancedEventSelectors": _Optional("RecordDataEvents", policies.selectors(names)),
    }
    kept = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    only = {"Condition": "IfCreateTrail"}
    in_bucket = {"Bucket": _Call("!Ref", "LogBucket"), "PolicyDocument": bucket_policy}
    return {
        "LogBucket": {
            "Type": "AWS::S3::Bucket",
            **only,
            **kept,
            "Properties": _referring({"BucketName": "${BucketName}"}),
        },
        "LogBucketPolicy": {"Type": "AWS::S3::BucketPolicy", **only, "Properties": _referring(in_bucket)},
        "Trail": {
            "Type": "AWS::CloudTrail::Trail",
            **only,
            "DependsOn": "LogBucketPolicy",
            "Properties": _referring(properties),
        },
    }


def _referring(value: Any) -> Any:
    """With intrinsic functions where texts hold references, and where parts are optional."""
    match value:
        case _Optional(parameter, part):
            return _Call("!If", [f"If{parameter}", _referring(part), _Call("!Ref", _NOTHING)])
        case str():
            whole = re.fullmatch(r"\$\{([\w:]+)\}", value)
            return _Call("!Ref", whole[1]) if whole else _Call("!Sub", value) if "${" in value else value
        case Mapping():
            return {name: _referring(part) for name, part in value.items()}
        case list() | tuple():
            return [_referring(part) for part in value]
    return value


# ── Terraform ──

_BLOCKS = """\
data "aws_partition" "current" {{}}
data "aws_caller_identity" "current" {{}}
data "aws_region" "current" {{}}

resource "aws_iam_role" "kyra" {{
  name                 = var.role_name
  path                 = var.role_path
  max_session_duration = 3600
  assume_role_policy   = jsonencode({trust})
}}

resource "aws_iam_role_policy" "kyra" {{
  name   = {policy_name}
  role   = aws_iam_role.kyra.id
  policy = jsonencode({permissions})
}}

resource "aws_s3_bucket" "logs" {{
  count  = var.create_trail ? 1 : 0
  bucket = var.bucket_name
}}

resource "aws_s3_bucket_policy" "logs" {{
  count  = var.create_trail ? 1 : 0
  bucket = aws_s3_bucket.logs[0].id
  policy = jsonencode({bucket})
}}

locals {{
  selectors = {selectors}
}}

resource "aws_cloudtrail" "trail" {{
  count                      = var.create_trail ? 1 : 0
  depends_on                 = [aws_s3_bucket_policy.logs]
  name                       = {trail_name}
  s3_bucket_name             = aws_s3_bucket.logs[0].id
  s3_key_prefix              = var.folder == "" ? null : trimsuffix(var.folder, "/")
  sns_topic_name             = var.topic_arn == "" ? null : var.topic_arn
  kms_key_id                 = var.kms_key_arn == "" ? null : var.kms_key_arn
  is_multi_region_trail      = true
  is_organization_trail      = var.organization_id != ""
  enable_log_file_validation = true

  dynamic "advanced_event_selector" {{
    for_each = [for each in local.selectors : each if var.record_data_events]
    content {{
      name = advanced_event_selector.value.Name
      dynamic "field_selector" {{
        for_each = advanced_event_selector.value.FieldSelectors
        content {{
          field           = field_selector.value.Field
          equals          = try(field_selector.value.Equals, null)
          not_starts_with = try(field_selector.value.NotStartsWith, null)
        }}
      }}
    }}
  }}
}}

output "role_arn" {{
  value = aws_iam_role.kyra.arn
}}
"""


def terraform(given: Mapping[str, str] | None = None) -> str:
    """The Terraform file; `given` are defaults of variables, by the parameters' names."""
    variable = {one.name: f"${{var.{one.variable}}}" for one in PARAMETERS}
    partition, account = "${data.aws_partition.current.partition}", "${data.aws_caller_identity.current.account_id}"
    names = _terms(partition, variable.__getitem__)
    arn = f"arn:{partition}:cloudtrail:${{data.aws_region.current.id}}:{account}:trail/{TRAIL_NAME}"
    bucket = policies.policy(*_bucket_statements(names, arn, account, variable["OrganizationId"]))
    head = (
        "# What a customer puts in place for kyra-etl: a role that reads, and a trail if there is none yet.\n"
        "# Made by `kyra integration policy NAME --format terraform`, which fills in the defaults.\n\n"
        "terraform {\n  required_providers {\n    aws = {\n"
        '      source  = "hashicorp/aws"\n      version = ">= 5.0"\n    }\n  }\n}\n'
    )
    variables = [_variable(one, (given or {}).get(one.name, one.default)) for one in PARAMETERS]
    blocks = _BLOCKS.format(
        trust=_hcl(policies.trust(variable["TrustedPrincipal"], variable["ExternalId"]), 1),
        policy_name=_hcl(policies.POLICY_NAME),
        permissions=_hcl(policies.policy(*_statements(names)), 1),
        bucket=_hcl(bucket, 1),
        selectors=_hcl(policies.selectors(names), 1),
        trail_name=_hcl(TRAIL_NAME),
    )
    return "\n".join([head, *variables, blocks])


def _variable(one: Parameter, default: str | None) -> str:
    lines = [f"description = {_hcl(one.about)}", f"type        = {'bool' if one.switch else 'string'}"]
    if one.switch:
        lines.append(f"default     = {'true' if default == 'yes' else 'false'}")
    elif default is not None:
        lines.append("default     = " + _hcl(default).replace("${", "$${"))  # a value refers to nothing
    if one.secret:
        lines.append("sensitive   = true")
    return "\n".join([f'variable "{one.variable}" {{', *(f"  {line}" for line in lines), "}\n"])


def _hcl(value: Any, depth: int = 0) -> str:
    """A value as HCL writes it, which is JSON but for optional parts of lists."""
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, Mapping):
        parts = [f"{inner}{json.dumps(name)}: {_hcl(part, depth + 1)}" for name, part in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{outer}}}"
    if isinstance(value, list | tuple):
        lists = [
            f"[{', '.join(_hcl(part, depth) for part in run)}]"
            if parameter is None
            else f"[for each in [{_hcl(next(run).value, depth)}] : each if {_holds(parameter)}]"
            for parameter, run in groupby(value, lambda part: getattr(part, "parameter", None))
        ]
        return lists[0] if len(lists) == 1 else f"concat({', '.join(lists)})"
    return json.dumps(value, ensure_ascii=False)


def _holds(parameter: str) -> str:
    (one,) = (one for one in PARAMETERS if one.name == parameter)
    return f"var.{one.variable}" if one.switch else f'var.{one.variable} != ""'
