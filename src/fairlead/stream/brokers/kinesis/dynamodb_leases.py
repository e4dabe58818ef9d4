"""Leases in a table of DynamoDB, for copies on many machines: `dynamodb://TABLE?region=eu-west-1`.

The attributes are those of the Kinesis Client Library. Its table is of one application and one stream, with a shard's
id as the key; here groups and streams share a table, and the key is ``GROUP/STREAM/SHARD``. With ``?layout=kcl`` the
key is the shard's id alone: then the table is of one group and one stream, and the library's own can be gone on with.

Source: `DynamoDBLeaseSerializer` of https://github.com/awslabs/amazon-kinesis-client
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fairlead.errors import BrokerUnavailable, ConfigError
from fairlead.stream.address import Address
from fairlead.stream.brokers.kinesis.client import Client, ConditionFailed, Missing, pause_s
from fairlead.stream.brokers.kinesis.leases import Lease
from fairlead.stream.brokers.kinesis.shards import SHARD_END

_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_MADE_WITHIN_S = 60.0


class DynamoLeases:
    """See `Leases`.

    Parameters
    ----------
    address : of the table.
    group, stream : whose leases these are.
    environ : where credentials, region and endpoint stand.
    region : the stream's, for an address that names none.
    """

    def __init__(
        self, address: Address, group: str, stream: str, environ: Mapping[str, str], region: str | None
    ) -> None:
        address.check_options("region", "layout")
        layout = address.options.get("layout", "shared")
        if address.path or not _NAME.fullmatch(address.netloc) or layout not in ("shared", "kcl"):
            raise ConfigError(f"{address}: expected dynamodb://TABLE, if need be with ?layout=kcl or ?region=…")
        self._table = address.netloc
        self._prefix = "" if layout == "kcl" else f"{quote(group, safe='')}/{stream}/"
        self._client = Client("dynamodb", str(address), environ, address.options.get("region") or region)

    def open(self) -> None:
        deadline = time.monotonic() + _MADE_WITHIN_S
        tries = 0
        while (status := self._status()) != "ACTIVE":
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"dynamodb://{self._table}: is {status}, not ACTIVE: see what holds it up")
            tries += 1
            time.sleep(pause_s(tries))

    def all(self) -> list[Lease]:
        asked: dict[str, Any] = {"TableName": self._table, "ConsistentRead": True}
        if self._prefix:
            asked["FilterExpression"] = "begins_with(leaseKey, :prefix)"
            asked["ExpressionAttributeValues"] = {":prefix": {"S": self._prefix}}
        found: list[Lease] = []
        while True:
            answer = self._client.ask("scan", asked, "Items")
            found += map(self._lease, answer["Items"])
            if not (last := answer.get("LastEvaluatedKey")):
                return sorted(found, key=lambda lease: lease.shard)
            asked["ExclusiveStartKey"] = last

    def create(self, lease: Lease) -> None:
        item: dict[str, Any] = {
            **self._key(lease.shard),
            "leaseCounter": {"N": str(lease.counter)},
            "checkpoint": {"S": lease.checkpoint},
            "checkpointSubSequenceNumber": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
        }
        if lease.parents:
            item["parentShardId"] = {"SS": list(lease.parents)}
        asked = {"TableName": self._table, "Item": item, "ConditionExpression": "attribute_not_exists(leaseKey)"}
        try:
            self._client.ask("put_item", asked)
        except ConditionFailed:
            return  # another copy was first

    def take(self, seen: Lease, owner: str) -> Lease | None:
        values = {":owner": {"S": owner}, ":counter": {"N": str(seen.counter)}, ":one": {"N": "1"}}
        values |= {":end": {"S": SHARD_END}} | ({":seen": {"S": seen.owner}} if seen.owner else {})
        as_seen = "leaseOwner = :seen" if seen.owner else "attribute_not_exists(leaseOwner)"
        item = self._write(
            seen.shard,
            "SET leaseOwner = :owner, leaseCounter = leaseCounter + :one ADD ownerSwitchesSinceCheckpoint :one",
            f"leaseCounter = :counter AND checkpoint <> :end AND {as_seen}",
            values,
        )
        return None if item is None else self._lease(item)

    def renew(self, shard: str, owner: str) -> bool:
        return self._own(shard, owner, "ADD leaseCounter :one", {":one": {"N": "1"}})

    def keep(self, shard: str, owner: str, checkpoint: str) -> bool:
        values = {":checkpoint": {"S": checkpoint}, ":zero": {"N": "0"}}
        change = "SET checkpoint = :checkpoint, checkpointSubSequenceNumber = :zero"
        return self._own(shard, owner, f"{change}, ownerSwitchesSinceCheckpoint = :zero", values)

    def release(self, shard: str, owner: str) -> None:
        self._own(shard, owner, "REMOVE leaseOwner ADD leaseCounter :one", {":one": {"N": "1"}})

    def delete(self, shard: str) -> None:
        self._client.ask("delete_item", {"TableName": self._table, "Key": self._key(shard)})

    def close(self) -> None:
        self._client.close()

    def _status(self) -> str:
        try:
            told = self._client.ask("describe_table", {"TableName": self._table}, "Table")
            return str(told["Table"]["TableStatus"])
        except Missing:
            pass
        try:
            self._client.ask(
                "create_table",
                {
                    "TableName": self._table,
                    "BillingMode": "PAY_PER_REQUEST",
                    "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
                    "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
                },
            )
        except BrokerUnavailable:
            return "away, or being made by another copy"
        return "CREATING"

    def _own(self, shard: str, owner: str, change: str, values: dict[str, Any]) -> bool:
        return self._write(shard, change, "leaseOwner = :owner", {**values, ":owner": {"S": owner}}) is not None

    def _write(self, shard: str, change: str, condition: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        asked = {
            "TableName": self._table,
            "Key": self._key(shard),
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ReturnValues": "ALL_NEW",
        }
        try:
            item: dict[str, Any] = self._client.ask("update_item", asked, "Attributes")["Attributes"]
        except ConditionFailed:
            return None
        return item

    def _key(self, shard: str) -> dict[str, Any]:
        return {"leaseKey": {"S": self._prefix + shard}}

    def _lease(self, item: Mapping[str, Any]) -> Lease:
        return Lease(
            shard=item["leaseKey"]["S"].removeprefix(self._prefix),
            checkpoint=item["checkpoint"]["S"],
            parents=tuple(sorted(item.get("parentShardId", {}).get("SS", ()))),
            owner=item["leaseOwner"]["S"] if "S" in item.get("leaseOwner", {}) else None,
            counter=int(item["leaseCounter"]["N"]),
        )
