"""Buckets, through boto3: making them, and what S3 answers in words."""

from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from libs.objects.errors import AlreadyExists, BucketMissing, ObjectError, ObjectNotFound, ObjectsUnavailable

_OURS_ALREADY: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_MISSING_OBJECT: Final = frozenset({"NoSuchKey", "404"})
_TAKEN: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_DAMAGED: Final = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})


def administration_client(endpoint: str, region: str, access_key: str, secret_key: str) -> Any:
    """A boto3 client, bounded in time; it may be used from several threads."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            connect_timeout=2,
            read_timeout=6,
            retries={"total_max_attempts": 2, "mode": "standard"},
            signature_version="s3v4",
            # A body is protected by the checksum that comes with it, also on its way to the disk of the store; to sign
            # it would mean to read it once more.
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
        ),
    )


def make_bucket(client: Any, bucket: str, region: str) -> None:
    """Makes a bucket; that it is there is no error.

    Raises:
        ObjectsUnavailable: the store does not answer.
        ObjectError: it refuses.
    """
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **place)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _OURS_ALREADY:
            raise from_boto(error) from error
    except BotoCoreError as error:
        raise ObjectsUnavailable("The object store does not answer.") from error


def bucket_exists(client: Any, bucket: str) -> bool:
    """Whether the bucket is there.

    Raises:
        ObjectsUnavailable: the store does not answer.
        ObjectError: it refuses to say.
    """
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise from_boto(error) from error
    except BotoCoreError as error:
        raise ObjectsUnavailable("The object store does not answer.") from error
    return True


def list_buckets(client: Any, prefix: str) -> list[str]:
    """The names of all buckets that begin with the prefix, sorted.

    Raises:
        ObjectsUnavailable: the store does not answer.
        ObjectError: it refuses to say.
    """
    try:
        found = client.list_buckets().get("Buckets", [])
    except ClientError as error:
        raise from_boto(error) from error
    except BotoCoreError as error:
        raise ObjectsUnavailable("The object store does not answer.") from error
    return sorted(bucket["Name"] for bucket in found if bucket["Name"].startswith(prefix))


def from_boto(error: ClientError) -> ObjectError:
    """Our error for what S3 has answered."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return BucketMissing("The tenant has no bucket.")
    if code in _TAKEN:
        return AlreadyExists("There is an object under this key.")
    if code in _MISSING_OBJECT:
        return ObjectNotFound("There is no such object.")
    if code in _DAMAGED:
        return ObjectsUnavailable("The data was damaged on its way to the object store.")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status >= 500 or status == 429:
        return ObjectsUnavailable("The object store is not able to answer.")
    return ObjectError(f"The object store refuses: {code}.")
