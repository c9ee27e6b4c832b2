"""The aws-cli commands and the templates: they put the documents in place, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore import xform_name
from botocore.session import Session as Botocore
from botocore.validate import ParamValidator

from kyra_etl.aws import commands, policies, templates
from kyra_etl.model import Integration
from tests.aws.conftest import BUCKET, CUSTOMER

TOPIC = f"arn:aws:sns:eu-west-1:{CUSTOMER}:cloudtrail"
QUEUE = "https://sqs.eu-west-1.amazonaws.com/999988887777/cloudtrail"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/a"
US = "999988887777"
ROOT = Path(__file__).resolve().parents[2]


def test_commands_can_be_pasted_into_a_shell(integration: Integration, tmp_path: Path) -> None:
    there = replace(
        integration,
        role_arn=f"arn:aws:iam::{CUSTOMER}:role/security/tools/kyra",
        sns_topic_arn=TOPIC,
        queue_url=QUEUE,
        external_id="it's-$HOME",
    )
    wanted = policies.documents(there, trusted="999988887777")
    found = commands.commands(there, wanted)
    fake = tmp_path / "bin" / "aws"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@" >> calls\n')
    fake.chmod(0o755)
    script = f"PATH={shlex.quote(str(fake.parent))}:$PATH\n" + "\n".join(found)
    subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True, timeout=60)
    for name in ("permissions", "trust", "topic", "queue-attributes"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == wanted[name]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [" ".join(call.split()[:2]) for call in calls] == [
        "iam create-role",
        "iam put-role-policy",
        "sns set-topic-attributes",
        "sqs set-queue-attributes",
        "sns subscribe",
    ]
    assert "--role-name kyra --path /security/tools/" in calls[0]


def test_without_a_role_yet_the_commands_make_one(integration: Integration) -> None:
    fresh = replace(integration, role_arn=None)
    found = commands.commands(fresh, policies.documents(fresh, trusted="999988887777"))
    assert any(command.startswith("aws iam create-role --role-name kyra-etl --assume") for command in found)


def test_an_organization_gets_a_trail_of_its_own(integration: Integration) -> None:
    there = replace(integration, organization_id="o-a1b2c3d4e5", region="eu-west-1", prefix="org")
    found = commands.sections(there, policies.documents(there, trusted=US))
    text = "\n".join(command for section in found if not section.needed for command in section.commands)
    assert "--is-organization-trail" in text
    assert "--enable-log-file-validation" in text
    assert f"arn:aws:s3:::{BUCKET}/org/AWSLogs/o-a1b2c3d4e5/*" in text
    assert f"arn:aws:s3:::{BUCKET}/org/AWSLogs/{CUSTOMER}/*" in text
    assert "--s3-key-prefix org" in text


def test_what_is_not_needed_stands_in_the_script_as_comments(integration: Integration) -> None:
    script = commands.script(commands.sections(integration, policies.documents(integration, trusted=US)))
    run = [line for line in script.splitlines() if not line.startswith("#")]
    assert not any("create-trail" in line or "create-bucket" in line for line in run)
    assert any("aws cloudtrail create-trail" in line for line in script.splitlines())


NAMES = {"NotificationEndpoint": "Endpoint"}
"""Parameters that the aws-cli calls otherwise than the API does."""


def request_of(command: str) -> tuple[str, str, dict[str, Any]]:
    """Service, operation and parameters of an aws-cli command, as the API calls them; values stay texts."""
    _, service, operation, *words = shlex.split(command.partition(" > ")[0])
    given: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            name = pascal(word[2:])
            given[name] = True
        else:
            given[name] = word
    options = ("Region", "Output")  # of the aws-cli itself
    return (
        service.removesuffix("api"),
        operation,
        {NAMES.get(name, name): value for name, value in given.items() if name not in options},
    )


def pascal(words: str) -> str:
    return "".join(part.capitalize() for part in words.split("-"))


def test_aws_s_own_validation_takes_the_commands(integration: Integration) -> None:
    """By botocore's service models: operations, names of parameters, lengths, selectors."""
    there = replace(
        integration, organization_id="o-a1b2c3d4e5", sns_topic_arn=TOPIC, queue_url=QUEUE, region="eu-west-1"
    )
    wanted = policies.documents(there, trusted=US, kms_key_arns=[KEY])
    found = [command for section in commands.sections(there, wanted) for command in section.commands]
    session, tried = Botocore(), []
    for command in found:
        if not command.startswith("aws "):
            continue
        service, operation, given = request_of(command)
        model = session.get_service_model(service)
        known = {xform_name(name, "-"): name for name in model.operation_names}
        shape = model.operation_model(known[operation]).input_shape
        names = {name.lower(): name for name in shape.members}
        request: dict[str, Any] = {}
        for name, value in given.items():
            name = names.get(name.lower(), name)
            if name == "AdvancedEventSelectors":
                value = policies.selectors(policies.terms(there))
            elif name == "Attributes":
                value = wanted["queue-attributes"]
            elif name == "CreateBucketConfiguration":
                value = dict([value.split("=")])
            request[name] = value
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{command}: {report.generate_report()}"
        tried.append(operation)
    assert {"create-role", "create-trail", "put-event-selectors", "put-bucket-policy", "put-key-policy"} <= set(tried)


# ── CloudFormation and Terraform say the same ──


class Tag:
    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value


class Loader(yaml.SafeLoader):
    def tagged(self, name: str, node: Any) -> Tag:
        value = (
            self.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else self.construct_sequence(node, True)
        )
        return Tag(name, value)


Loader.add_multi_constructor("!", Loader.tagged)
NOTHING = object()
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": CUSTOMER, "AWS::NoValue": NOTHING}


def resolved(text: str, given: dict[str, str]) -> Any:
    """A template's resources as CloudFormation makes them, with these parameters."""
    template = yaml.load(text, Loader)
    values = {name: one.get("Default") for name, one in template["Parameters"].items()} | PSEUDO | given
    missing = [name for name, value in values.items() if value is None]
    assert missing == []

    def of(part: Any) -> Any:
        match part:
            case Tag(name="Ref", value=name):
                return values.get(name, name)
            case Tag(name="Sub", value=str(words)):
                return re.sub(r"\$\{([\w:]+)\}", lambda match: values[match[1]], words)
            case Tag(name="Equals", value=[a, b]):
                return of(a) == of(b)
            case Tag(name="Not", value=[a]):
                return not of(a)
            case Tag(name="If", value=[condition, then, otherwise]):
                return of(then) if of(template["Conditions"][condition]) else of(otherwise)
            case Tag(name="Select", value=[number, items]):
                return of(items)[int(number)]
            case Tag(name="Split", value=[by, words]):
                return of(words).split(by)
            case Tag():
                return f"!{part.name} {part.value}"
            case dict():
                return {name: one for name, value in part.items() if (one := of(value)) is not NOTHING}
            case list():
                return [one for value in part if (one := of(value)) is not NOTHING]
        return part

    return {
        name: of(one["Properties"])
        for name, one in template["Resources"].items()
        if "Condition" not in one or of(template["Conditions"][one["Condition"]])
    }


@pytest.fixture(params=["plain", "everything"])
def there(request: pytest.FixtureRequest, integration: Integration) -> tuple[Integration, list[str]]:
    """An integration, and the keys that encrypt its log files."""
    if request.param == "plain":
        return integration, []
    more = {
        "sns_topic_arn": TOPIC,
        "prefix": "org/trail",
        "additions": policies.CHOSEN,
        "organization_id": "o-a1b2c3d4e5",
    }
    return replace(integration, **more), [KEY]  # type: ignore[arg-type]


def test_the_cloudformation_template_makes_the_role_of_the_documents(there: tuple[Integration, list[str]]) -> None:
    one, keys = there
    documents = policies.documents(one, trusted=US, kms_key_arns=keys)
    made = resolved(templates.cloudformation(templates.values(one, trusted=US, kms_key_arns=keys)), {})
    assert list(made) == ["Role"]
    assert made["Role"]["AssumeRolePolicyDocument"] == documents["trust"]
    (policy,) = made["Role"]["Policies"]
    assert policy == {"PolicyName": policies.POLICY_NAME, "PolicyDocument": documents["permissions"]}
    assert made["Role"]["RoleName"] == "kyra-etl"


def test_the_cloudformation_template_makes_the_trail_of_the_commands(there: tuple[Integration, list[str]]) -> None:
    one, keys = replace(there[0], region="eu-west-1"), there[1]
    values = templates.values(one, trusted=US, kms_key_arns=keys)
    made = resolved(templates.cloudformation(values), {"CreateTrail": "yes", "RecordDataEvents": "yes"})
    owners = [CUSTOMER, one.organization_id] if one.organization_id else [CUSTOMER]
    wanted = policies.bucket_policy(policies.terms(one), commands.trail_arn(one), owners)
    check, write = made["LogBucketPolicy"]["PolicyDocument"]["Statement"]
    assert check == wanted["Statement"][0]
    resource = wanted["Statement"][1]["Resource"]
    assert write == {**wanted["Statement"][1], "Resource": resource if isinstance(resource, list) else [resource]}
    trail = made["Trail"]
    assert trail["AdvancedEventSelectors"] == policies.selectors(policies.terms(one))
    assert trail.get("S3KeyPrefix", "") == one.prefix
    assert (trail["IsMultiRegionTrail"], trail["EnableLogFileValidation"], trail["IsLogging"]) == (True, True, True)
    assert trail["IsOrganizationTrail"] is (one.organization_id is not None)


def hcl(text: str, variables: dict[str, Any]) -> Any:
    """The one expression that a Terraform file encodes, for these variables: JSON, concat and filtering `for`."""
    data = {
        "data.aws_partition.current.partition": "aws",
        "data.aws_caller_identity.current.account_id": CUSTOMER,
        "data.aws_region.current.id": "eu-west-1",
    }
    names = {f"var.{name}": value for name, value in variables.items()} | data
    text = re.sub(r"\$\{([\w.]+)\}", lambda match: str(names[match[1]]), text)
    text = re.sub(
        r"\[for each in (\[.*?\]) : each if (var\.\w+)( != \"\")?\]",
        lambda m: m[1] if names[m[2]] else "[]",
        text,
        flags=re.S,
    )
    while "concat(" in text:
        start = text.index("concat(")
        decoder, at, parts = json.JSONDecoder(), start + len("concat("), []
        while True:
            part, at = decoder.raw_decode(text, at)
            parts += part
            if text[at] == ")":
                break
            at += len(", ")
        text = text[:start] + json.dumps(parts) + text[at + 1 :]
    return json.JSONDecoder().raw_decode(text)[0]


def test_the_terraform_file_makes_the_role_of_the_documents(there: tuple[Integration, list[str]]) -> None:
    one, keys = there
    documents = policies.documents(one, trusted=US, kms_key_arns=keys)
    text = templates.terraform(templates.values(one, trusted=US, kms_key_arns=keys))
    variables = {
        name: default == "true" if default in ("true", "false") else json.loads(default)
        for name, default in re.findall(r'variable "(\w+)" \{.*?\n  default     = ([^\n]+)\n.*?\}', text, re.S)
    }
    encoded = [hcl(part, variables) for part in re.findall(r"jsonencode\((.*?)\n\}\n", text, re.S)]
    assert encoded[0] == documents["trust"]
    assert encoded[1] == documents["permissions"]
    assert encoded[2]["Statement"][0]["Sid"] == "AWSCloudTrailAclCheck"
    assert text.count("{") == text.count("}")


def test_templates_without_an_integration_name_no_customer() -> None:
    for text in (templates.cloudformation(), templates.terraform()):
        assert not re.search(r"[0-9]{12}", text)
        assert "pl4nted" not in text


def test_the_documents_show_the_policies_byte_for_byte() -> None:
    from docs.generate import OURS, example

    wanted = policies.documents(example(), trusted=OURS)
    for document in (ROOT / "README.md", ROOT / "docs/connect.md"):
        for name in ("permissions", "trust"):
            assert json.dumps(wanted[name], indent=2) in document.read_text(), f"{name} in {document.name}"
    shown = commands.script(commands.sections(example(), wanted))
    assert all(json.dumps(wanted[name], indent=2) in shown for name in ("permissions", "trust"))


def test_the_files_to_deploy_are_the_templates() -> None:
    assert (ROOT / "deploy/customer/cloudformation.yaml").read_text() == templates.cloudformation()
    assert (ROOT / "deploy/customer/main.tf").read_text() == templates.terraform()
