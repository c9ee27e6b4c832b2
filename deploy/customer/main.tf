# What a customer puts in place for kyra-etl: a role that reads, and a trail if there is none yet.
# Made by `kyra integration policy NAME --format terraform`, which fills in the defaults.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "bucket_name" {
  description = "Bucket the trail delivers to."
  type        = string
}

variable "folder" {
  description = "What stands before AWSLogs/ in the bucket, ending in a slash; or nothing."
  type        = string
  default     = ""
}

variable "trusted_principal" {
  description = "Who assumes the role: KYRACloudSensor of our account."
  type        = string
}

variable "external_id" {
  description = "External id; kyra integration policy prints it."
  type        = string
  sensitive   = true
}

variable "role_name" {
  description = "Name of the role."
  type        = string
  default     = "kyra-etl"
}

variable "role_path" {
  description = "Path of the role."
  type        = string
  default     = "/"
}

variable "topic_arn" {
  description = "SNS topic the trail notifies, if there is one."
  type        = string
  default     = ""
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the log files, if there is one."
  type        = string
  default     = ""
}

variable "allow_event_selectors" {
  description = "Let kyra check read event selectors."
  type        = bool
  default     = false
}

variable "allow_public_keys" {
  description = "Let the keys of digest files be read."
  type        = bool
  default     = false
}

variable "create_trail" {
  description = "Make the bucket and a multi-region trail, too."
  type        = bool
  default     = false
}

variable "organization_id" {
  description = "Makes it a trail of the organization: its id, o-..."
  type        = string
  default     = ""
}

variable "record_data_events" {
  description = "Record data events, too; AWS charges for them."
  type        = bool
  default     = false
}

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

resource "aws_iam_role" "kyra" {
  name                 = var.role_name
  path                 = var.role_path
  max_session_duration = 3600
  assume_role_policy   = jsonencode({
    "Version": "2012-10-17",
    "Statement": [{
      "Sid": "AssumeWithExternalId",
      "Effect": "Allow",
      "Principal": {
        "AWS": "${var.trusted_principal}"
      },
      "Action": "sts:AssumeRole",
      "Condition": {
        "StringEquals": {
          "sts:ExternalId": "${var.external_id}"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "kyra" {
  name   = "KYRAMDRCloudTrailReadOnly"
  role   = aws_iam_role.kyra.id
  policy = jsonencode({
    "Version": "2012-10-17",
    "Statement": concat([{
      "Sid": "AllowCloudTrailBucketAccess",
      "Effect": "Allow",
      "Action": ["s3:GetObject", "s3:ListBucket"],
      "Resource": ["arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}", "arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}/${var.folder}AWSLogs/*"]
    }], [for each in [{
      "Sid": "AllowSNSSubscription",
      "Effect": "Allow",
      "Action": ["sns:Subscribe", "sns:ConfirmSubscription"],
      "Resource": "${var.topic_arn}"
    }] : each if var.topic_arn != ""], [{
      "Sid": "AllowCloudTrailDescribe",
      "Effect": "Allow",
      "Action": ["cloudtrail:DescribeTrails", "cloudtrail:GetTrailStatus", "cloudtrail:LookupEvents"],
      "Resource": "*"
    }], [for each in [{
      "Sid": "AllowLogFileDecryption",
      "Effect": "Allow",
      "Action": ["kms:Decrypt"],
      "Resource": ["${var.kms_key_arn}"]
    }] : each if var.kms_key_arn != ""], [for each in [{
      "Sid": "AllowEventSelectors",
      "Effect": "Allow",
      "Action": ["cloudtrail:GetEventSelectors"],
      "Resource": "*"
    }] : each if var.allow_event_selectors], [for each in [{
      "Sid": "AllowDigestPublicKeys",
      "Effect": "Allow",
      "Action": ["cloudtrail:ListPublicKeys"],
      "Resource": "*"
    }] : each if var.allow_public_keys])
  })
}

resource "aws_s3_bucket" "logs" {
  count  = var.create_trail ? 1 : 0
  bucket = var.bucket_name
}

resource "aws_s3_bucket_policy" "logs" {
  count  = var.create_trail ? 1 : 0
  bucket = aws_s3_bucket.logs[0].id
  policy = jsonencode({
    "Version": "2012-10-17",
    "Statement": [{
      "Sid": "AWSCloudTrailAclCheck",
      "Effect": "Allow",
      "Principal": {
        "Service": "cloudtrail.amazonaws.com"
      },
      "Action": "s3:GetBucketAcl",
      "Resource": "arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}",
      "Condition": {
        "StringEquals": {
          "aws:SourceArn": "arn:${data.aws_partition.current.partition}:cloudtrail:${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}:trail/all-management-events"
        }
      }
    }, {
      "Sid": "AWSCloudTrailWrite",
      "Effect": "Allow",
      "Principal": {
        "Service": "cloudtrail.amazonaws.com"
      },
      "Action": "s3:PutObject",
      "Resource": concat(["arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}/${var.folder}AWSLogs/${data.aws_caller_identity.current.account_id}/*"], [for each in ["arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}/${var.folder}AWSLogs/${var.organization_id}/*"] : each if var.organization_id != ""]),
      "Condition": {
        "StringEquals": {
          "aws:SourceArn": "arn:${data.aws_partition.current.partition}:cloudtrail:${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}:trail/all-management-events",
          "s3:x-amz-acl": "bucket-owner-full-control"
        }
      }
    }]
  })
}

locals {
  selectors = [{
    "Name": "Management events",
    "FieldSelectors": [{
      "Field": "eventCategory",
      "Equals": ["Management"]
    }]
  }, {
    "Name": "S3 objects outside the log bucket",
    "FieldSelectors": [{
      "Field": "eventCategory",
      "Equals": ["Data"]
    }, {
      "Field": "resources.type",
      "Equals": ["AWS::S3::Object"]
    }, {
      "Field": "resources.ARN",
      "NotStartsWith": ["arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}/"]
    }]
  }, {
    "Name": "Lambda invocations",
    "FieldSelectors": [{
      "Field": "eventCategory",
      "Equals": ["Data"]
    }, {
      "Field": "resources.type",
      "Equals": ["AWS::Lambda::Function"]
    }]
  }]
}

resource "aws_cloudtrail" "trail" {
  count                      = var.create_trail ? 1 : 0
  depends_on                 = [aws_s3_bucket_policy.logs]
  name                       = "all-management-events"
  s3_bucket_name             = aws_s3_bucket.logs[0].id
  s3_key_prefix              = var.folder == "" ? null : trimsuffix(var.folder, "/")
  sns_topic_name             = var.topic_arn == "" ? null : var.topic_arn
  kms_key_id                 = var.kms_key_arn == "" ? null : var.kms_key_arn
  is_multi_region_trail      = true
  is_organization_trail      = var.organization_id != ""
  enable_log_file_validation = true

  dynamic "advanced_event_selector" {
    for_each = [for each in local.selectors : each if var.record_data_events]
    content {
      name = advanced_event_selector.value.Name
      dynamic "field_selector" {
        for_each = advanced_event_selector.value.FieldSelectors
        content {
          field           = field_selector.value.Field
          equals          = try(field_selector.value.Equals, null)
          not_starts_with = try(field_selector.value.NotStartsWith, null)
        }
      }
    }
  }
}

output "role_arn" {
  value = aws_iam_role.kyra.arn
}
