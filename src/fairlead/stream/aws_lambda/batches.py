"""Batches of Kinesis in Lambda: read → predict → publish, without a loop.

Lambda commits: a batch that is answered is done, one that raises comes again. With `report_batch_item_failures` it is
told which records are not done, and begins again at the one with the lowest sequence number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead.errors import BrokerUnavailable, ModelFailed
from fairlead.stream.aws_lambda.kinesis_events import Batch
from fairlead.stream.aws_lambda.outlets import Outlet
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.envelope import IDEMPOTENCY_KEY
from fairlead.stream.events import Reason
from fairlead.stream.overflow import Overflow
from fairlead.stream.records import Message, Record
from fairlead.stream.scoring import Scored, Team

# How often a batch may come for which the model raises as a whole; then its records are dead letters, each with its
# reason, as in the loop. A process that is new counts from the start.
_TRIES = 3
# Lambda refuses an answer of more than 6 MB, and would hand the batch in again for ever. The rest is for failures.
# Source: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MAX_ANSWER_BYTES = 5_000_000
_MAX_GROWTH = 3  # of JSON with spaces, and without other characters than ASCII's

logger = logging.getLogger("fairlead.stream")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass
class _Done:
    """What became of a batch so far.

    Parameters
    ----------
    messages, dead_letters : to be published, in their order.
    failures : why a record is not done, by key.
    """

    messages: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    failures: dict[str, BrokerUnavailable | ModelFailed] = field(default_factory=dict)


class Batches:
    """Answers batches.

    Parameters
    ----------
    team : predicts.
    predictions, dead_letters : where these go; None leaves predictions to the answer, dead letters to the log.
    overflow : takes what is too large for a dead letter; None where there is no place for it.
    max_message_bytes : a larger prediction, partition key included, is a dead letter.
    reports_failures : whether the answer tells of records that are not done; else they are raised.
    """

    def __init__(
        self,
        team: Team,
        predictions: Outlet | None,
        dead_letters: Outlet | None,
        overflow: Overflow | None,
        max_message_bytes: int,
        *,
        reports_failures: bool,
    ) -> None:
        self._team = team
        self._predictions = predictions
        self._dead_letters = dead_letters
        self._overflow = overflow
        self._max_bytes = max_message_bytes
        self._reports_failures = reports_failures
        # By shard: the first record of those that the model raised for, and how often.
        self._raised: dict[str, tuple[str, int]] = {}

    def answer(self, given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Answer a batch.

        Raises
        ------
        BrokerUnavailable, ModelFailed
            When records are not done and that is not reported: Lambda hands all of them in again.
        BrokerError
            When a stream is not there, or may not be written to.
        """
        batch = Batch.of(given)
        done = self._done(batch)
        for outlet, messages in ((self._predictions, done.messages), (self._dead_letters, done.dead_letters)):
            if outlet is not None:
                done.failures |= outlet.put(messages)
        if done.failures and not self._reports_failures:
            raise next(iter(done.failures.values()))
        answer: dict[str, Any] = {"predictions": self._answers(done)}
        if self._reports_failures:
            answer["batchItemFailures"] = self._failures(batch, done)
        return answer

    def close(self) -> None:
        """Close the connections."""
        for outlet in filter(None, (self._predictions, self._dead_letters)):
            outlet.close()

    def _done(self, batch: Batch) -> _Done:
        done = _Done()
        letters = DeadLetters(f"kinesis://{batch.stream}", self._max_bytes, self._overflow)
        for record, result in zip(batch.records, self._scored(batch), strict=True):
            if isinstance(result, ModelFailed):
                done.failures[record.key] = result
                continue
            output = None
            if isinstance(result, Scored):
                message = self._team.message(result, record.key)
                if message.size_bytes <= self._max_bytes:
                    done.messages.append(message)
                    continue
                output = message.data
                told = f"expected an answer of at most {self._max_bytes} bytes, got {message.size_bytes}"
                result = Reason("output_too_large", told)
            self._give_up(record, result, output, letters, done)
        return done

    def _scored(self, batch: Batch) -> list[Scored | Reason | ModelFailed]:
        """Say what became of each record, in their order."""
        found: list[Scored | Reason | ModelFailed | None] = [batch.refused.get(i) for i in range(len(batch.records))]
        places = [place for place, reason in enumerate(found) if reason is None]
        for place, result in zip(places, self._results([batch.records[place] for place in places]), strict=True):
            found[place] = result
        return found  # type: ignore[return-value]  # each place was filled

    def _results(self, records: Sequence[Record]) -> Sequence[Scored | Reason | ModelFailed]:
        if not records:
            return []
        partition = records[0].partition
        key, times = self._raised.get(partition, ("", 0))
        # Lambda may begin the batch anew at the record that is reported, or part it.
        times = 1 + (times if any(record.key == key for record in records) else 0)
        try:
            results = self._team.score(records, gives_up=times >= _TRIES)
        except ModelFailed as error:
            # What can never be scored is not to come again with what the model raised for.
            refused = self._team.stable.reader.read(records).refused
            first = next(record for place, record in enumerate(records) if place not in refused)
            self._raised[partition] = first.key, times
            return [refused.get(place, error) for place in range(len(records))]
        self._raised.pop(partition, None)
        return results

    def _give_up(self, record: Record, reason: Reason, output: bytes | None, letters: DeadLetters, done: _Done) -> None:
        """Make a dead letter, or a line in the log where there is no stream for it."""
        name, version = self._team.name, self._team.stable.variant.version
        if self._dead_letters is None:
            # What the model raised may have values of the record in it.
            detail = "the model raised" if reason.code == "model_failed" else reason.detail
            logger.error("%s: %s: %s", record.key, reason.code, detail)
            return
        try:
            done.dead_letters.append(letters.message(record, reason, name, version, output))
        except BrokerUnavailable as error:  # where what is too large goes is away
            done.failures[record.key] = error

    def _answers(self, done: _Done) -> list[dict[str, Any]]:
        """Give the predictions that are done, in the order of their records."""
        # Read from what is published: the runtime's own JSON would have NaN in it where the user's code gives that.
        answers = [_decode(message.data) for message in done.messages if message.key not in done.failures]
        for answer in answers:
            del answer[IDEMPOTENCY_KEY]
        n_bytes = sum(len(message.data) for message in done.messages)
        if self._predictions is None or n_bytes * _MAX_GROWTH <= _MAX_ANSWER_BYTES:
            return answers
        if len(json.dumps(answers)) <= _MAX_ANSWER_BYTES:
            return answers
        logger.warning("predictions are published, and left out of the answer: they are more than Lambda takes")
        return []

    def _failures(self, batch: Batch, done: _Done) -> list[dict[str, str]]:
        numbers = [str(record.position) for record in batch.records if record.key in done.failures]
        if numbers:
            reason = next(iter(done.failures.values()))
            logger.warning("%d of %d records are to come again: %s", len(numbers), len(batch.records), reason)
        # As numbers: texts of other lengths have another order.
        return [{"itemIdentifier": number} for number in sorted(numbers, key=lambda one: (len(one), one))]
