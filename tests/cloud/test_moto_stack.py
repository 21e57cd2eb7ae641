"""The templates, created for real against moto's server, over HTTP.

moto's CloudFormation makes fewer kinds of resources than AWS's, and of buckets only the encryption.
What it cannot make is left out of the template before it is created; what it leaves out of buckets
is set by S3's own calls, with the values that stand in the template, so that S3 reads them.
"""

import json
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

TEMPLATES = Path(__file__).resolve().parents[2] / "configs" / "aws"
UNKNOWN_TO_MOTO = {
    "AWS::EC2::SecurityGroupEgress",
    "AWS::IAM::OIDCProvider",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SageMaker::ModelPackageGroup",
    "AWS::Scheduler::Schedule",
    "AWS::SecretsManager::Secret",
}
ACCOUNT = "123456789012"
GITHUB = "token.actions.githubusercontent.com"
DATA, EVIDENCE, LOGS = (f"lightbox{kind}-{ACCOUNT}" for kind in ("", "-evidence", "-logs"))
MET = {"GitHubLaunches", "GitHubApproves", "HasApprover", "HasLauncher"}
PARAMETERS = {
    "network": {"S3PrefixList": "pl-0123456789abcdef0"},
    "identity": {
        "LauncherSubjects": "repo:owner/repository:environment:training",
        "ApproverSubjects": "repo:owner/repository:environment:release",
        "GitHubProvider": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB}",
        "Reviewers": f"arn:aws:iam::{ACCOUNT}:role/reviewers",
    },
}


def template(name: str) -> dict[str, Any]:
    from cfnlint.decode import decode

    read, problems = decode(str(TEMPLATES / f"{name}.yaml"))
    assert not problems
    return chosen(json.loads(json.dumps(read)))


def chosen(value: Any) -> Any:
    """moto leaves AWS::NoValue standing in lists; so the parts that nobody asked for go before."""
    match value:
        case {"Fn::If": [condition, then, otherwise]}:
            return chosen(then if condition in MET else otherwise)
        case dict():
            return {k: chosen(v) for k, v in value.items()}
        case list():
            found = [chosen(v) for v in value]
            return [v for v in found if v != {"Ref": "AWS::NoValue"}]
    return value


def what_moto_knows(name: str) -> dict[str, Any]:
    whole = template(name)
    left_out = {n for n, r in whole["Resources"].items() if r["Type"] in UNKNOWN_TO_MOTO}
    for name, resource in whole["Resources"].items():  # it takes no ESP either, which has no ports
        if resource.get("Properties", {}).get("IpProtocol") == "50":
            left_out.add(name)
    whole["Resources"] = {n: r for n, r in whole["Resources"].items() if n not in left_out}
    whole["Outputs"] = {
        n: o for n, o in whole["Outputs"].items() if o["Value"].get("Ref") not in left_out
    }
    return whole


@pytest.fixture(scope="module")
def client(moto_server: str) -> Callable[[str], Any]:
    """boto3's clients of an account with all stacks, in the order that docs/cloud.md names."""
    httpx.post(f"{moto_server}/moto-api/reset").raise_for_status()
    session = boto3.Session("test", "test", region_name="eu-central-1")

    def made(service: str) -> Any:
        return session.client(service, endpoint_url=moto_server)

    stacks = made("cloudformation")
    for name in ("storage", "network", "identity", "pipelines"):
        given = PARAMETERS.get(name, {})
        stacks.create_stack(
            StackName=f"lightbox-{name}",
            TemplateBody=json.dumps(what_moto_knows(name)),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
        )
        (stack,) = stacks.describe_stacks(StackName=f"lightbox-{name}")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
    return made


def outputs(client: Callable[[str], Any], stack: str) -> dict[str, str]:
    (found,) = client("cloudformation").describe_stacks(StackName=f"lightbox-{stack}")["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def test_the_key_rotates_and_encrypts_every_bucket_but_that_of_the_logs(client) -> None:
    key = outputs(client, "storage")["KeyArn"]
    assert client("kms").get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    aliases = client("kms").list_aliases(KeyId=key)["Aliases"]
    assert [alias["AliasName"] for alias in aliases] == ["alias/lightbox"]

    def default(bucket: str) -> dict[str, str]:
        told = client("s3").get_bucket_encryption(Bucket=bucket)
        (rule,) = told["ServerSideEncryptionConfiguration"]["Rules"]
        return rule["ApplyServerSideEncryptionByDefault"]

    for bucket in (DATA, EVIDENCE):
        assert default(bucket) == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert default(LOGS) == {"SSEAlgorithm": "AES256"}


def test_images_keep_their_tags(client) -> None:
    found = client("ecr").describe_repositories()["repositories"]
    assert {r["repositoryName"] for r in found} == {"lightbox/serving", "lightbox/training"}
    for repository in found:
        assert repository["imageTagMutability"] == "IMMUTABLE"


def test_s3_takes_what_the_template_says_of_buckets_and_keeps_evidence(client) -> None:
    s3, resources = client("s3"), template("storage")["Resources"]
    s3.delete_bucket(Bucket=EVIDENCE)  # a lock can only be had from a bucket's beginning
    s3.create_bucket(
        Bucket=EVIDENCE,
        ObjectLockEnabledForBucket=resources["Evidence"]["Properties"]["ObjectLockEnabled"],
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    lock = resources["Evidence"]["Properties"]["ObjectLockConfiguration"]
    years = template("storage")["Parameters"]["EvidenceYears"]["Default"]
    lock["Rule"]["DefaultRetention"]["Years"] = years
    s3.put_object_lock_configuration(Bucket=EVIDENCE, ObjectLockConfiguration=lock)
    for name, bucket in {"Data": DATA, "Evidence": EVIDENCE, "Logs": LOGS}.items():
        told = resources[name]["Properties"]
        s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration=told["VersioningConfiguration"]
        )
        s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=told["PublicAccessBlockConfiguration"]
        )

    version = s3.put_object(Bucket=EVIDENCE, Key="report.json", Body=b"{}")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(
            Bucket=EVIDENCE, Key="report.json", VersionId=version, BypassGovernanceRetention=True
        )
    free = s3.put_object(Bucket=DATA, Key="runs/report.json", Body=b"{}")["VersionId"]
    s3.delete_object(Bucket=DATA, Key="runs/report.json", VersionId=free)


def test_roles_are_those_that_the_settings_and_the_workflows_name(client) -> None:
    roles = {role["RoleName"]: role for role in client("iam").list_roles()["Roles"]}
    assert roles.keys() == {
        "lightbox",
        "lightbox-approver",
        "lightbox-launcher",
        "lightbox-network",
        "lightbox-pipeline",
        "lightbox-reviewer",
        "lightbox-scheduler",
    }
    (trust,) = roles["lightbox-launcher"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {
        f"{GITHUB}:aud": "sts.amazonaws.com",
        f"{GITHUB}:sub": ["repo:owner/repository:environment:training"],
    }
    assert outputs(client, "identity")["JobRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/lightbox"


def test_no_two_roles_can_do_what_one_alone_must_not(client) -> None:
    iam = client("iam")
    everybody = [role["RoleName"] for role in iam.list_roles()["Roles"]]

    def may(role: str) -> set[str]:
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        documents = [
            iam.get_role_policy(RoleName=role, PolicyName=n)["PolicyDocument"] for n in names
        ]
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            arn = policy["PolicyArn"]
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            read = iam.get_policy_version(PolicyArn=arn, VersionId=version)
            documents.append(read["PolicyVersion"]["Document"])
        # Of a managed policy moto hands back what Python prints of it.
        plain = [literal_eval(d) if isinstance(d, str) else d for d in documents]
        actions = [s["Action"] for document in plain for s in document["Statement"]]
        return {a for action in actions for a in ([action] if isinstance(action, str) else action)}

    def able(action: str) -> set[str]:
        return {role for role in everybody if action in may(role)}

    assert able("sagemaker:CreateTrainingJob") == {"lightbox-pipeline"}
    assert able("sagemaker:UpdateModelPackage") == {"lightbox-reviewer"}
    assert able("secretsmanager:GetSecretValue") == {"lightbox"}
    assert able("sagemaker:CreatePipeline") == {"lightbox-launcher"}
    assert able("sagemaker:StartPipelineExecution") == {"lightbox-launcher", "lightbox-scheduler"}
    assert able("iam:PassRole") == {"lightbox-launcher", "lightbox-pipeline"}


def test_jobs_have_two_private_subnets_and_endpoints_only(client) -> None:
    ec2 = client("ec2")
    told = outputs(client, "network")
    subnets = ec2.describe_subnets(SubnetIds=told["Subnets"].split(","))["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2
    vpc = [{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}]

    endpoints = ec2.describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]
    assert {e["ServiceName"].rpartition(".")[2] for e in endpoints} == {"s3", "secretsmanager"}
    tables = ec2.describe_route_tables(Filters=vpc)["RouteTables"]
    routes = [route.get("DestinationCidrBlock") for t in tables for route in t["Routes"]]
    assert "0.0.0.0/0" not in routes
    assert ec2.describe_internet_gateways()["InternetGateways"] == []


def test_events_end_in_a_queue_that_gives_up_into_another(client) -> None:
    sqs, events = client("sqs"), client("events")
    rules = {rule["Name"]: rule for rule in events.list_rules()["Rules"]}
    assert rules.keys() == {"lightbox-model-changed", "lightbox-run-failed"}
    pattern = json.loads(rules["lightbox-run-failed"]["EventPattern"])
    assert pattern["detail"]["currentPipelineExecutionStatus"] == ["Failed", "Stopped"]

    queue = sqs.get_queue_url(QueueName="lightbox-events")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    for rule in rules:
        (target,) = events.list_targets_by_rule(Rule=rule)["Targets"]
        assert target["Arn"] == attributes["QueueArn"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(":lightbox-undelivered")
    assert attributes["KmsMasterKeyId"] == outputs(client, "storage")["KeyArn"]
