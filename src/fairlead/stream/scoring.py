"""A batch of events becomes answers, or reasons why there is none: read → predict → wrap.

The same for the loop and for Lambda. Layer L3; imports msgspec and what predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.errors import FairleadError, ModelFailed
from fairlead.predict.predictor import Answer, Predictor
from fairlead.predict.validate import Row
from fairlead.repository.deployments import Variant
from fairlead.repository.traffic import Sticky, feature_key, goes_to_canary, place_of
from fairlead.schema import Problem
from fairlead.stream.envelope import IDEMPOTENCY_KEY, MODEL, VERSION, Envelope
from fairlead.stream.events import Event, Reader, Reason
from fairlead.stream.records import Message, Record

_encode = msgspec.json.Encoder().encode
_KEY = b"," + _encode(IDEMPOTENCY_KEY) + b":"


class Scored(Struct, frozen=True, gc=False):
    """The answer to an event.

    Parameters
    ----------
    results : the outputs, and the id where the envelope has one.
    version : that gave them.
    partition_key : of the answer.
    """

    results: dict[str, Any]
    version: str
    partition_key: str


@dataclass(frozen=True)
class Member:
    """A version that answers.

    Parameters
    ----------
    variant : its bundle.
    predictor : of it.
    reader : reads events for it.
    """

    variant: Variant
    predictor: Predictor
    reader: Reader


class Run(Struct, frozen=True):
    """One run of a version.

    Parameters
    ----------
    version : that ran.
    rows : that it answered.
    rejected : that were refused, before the model or by it.
    duration_ns : of the model, in nanoseconds.
    """

    version: str
    rows: int
    rejected: int
    duration_ns: int


@dataclass(frozen=True)
class Team:
    """What answers under a name.

    Parameters
    ----------
    name : of the model.
    envelope : of its events.
    stable : answers what the canary does not.
    canary : answers a share; None where there is none.
    weight : that share, from 0 to 1.
    sticky : what decides who answers an event; its own key where there is none, or nothing there, so that the same
        version answers it again.
    on_run : told of each run of a version, in the thread that scores.
    on_canary : told how many events the canary was asked, how many of these it failed, and how long it took for each in
        nanoseconds; in the thread that scores.
    """

    name: str
    envelope: Envelope
    stable: Member
    canary: Member | None = None
    weight: float = 0.0
    sticky: Sticky | None = None
    on_run: Callable[[Run], None] = lambda run: None
    on_canary: Callable[[int, int, int], None] = lambda events, failed, each_ns: None
    _heads: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def is_compiled(self) -> bool:
        """Whether no code of the user's runs, which may take any time."""
        members = filter(None, (self.stable, self.canary))
        return all(one.variant.engine == "onnx" and one.predictor.manifest.code is None for one in members)

    def score(self, records: Sequence[Record], *, gives_up: bool) -> list[Scored | Reason]:
        """Answer a batch.

        Parameters
        ----------
        gives_up : whether events for which the model raises are given up even when none of the batch succeeds;
            one that fails for all may do better later.

        Returns
        -------
        What became of each event, in their order.

        Raises
        ------
        ModelFailed
            When the model raises for every event, and `gives_up` is false.
        """
        read = self.stable.reader.read(records)
        canarys = self._canarys(records, read.rows, read.places)
        if not (read.refused or canarys):
            return self._predict(self.stable, read.rows, read.events, 0, gives_up)
        found: list[Scored | Reason | None] = [None] * len(records)
        for place, reason in read.refused.items():
            found[place] = reason
        if canarys:
            self._ask_canary(records, canarys, found)
        left = [(at, place) for at, place in enumerate(read.places) if found[place] is None]
        rows, events = read.rows, read.events
        if len(left) < len(rows):
            rows, events = [rows[at] for at, _ in left], [events[at] for at, _ in left]
        results = self._predict(self.stable, rows, events, len(read.refused), gives_up)
        for (_, place), result in zip(left, results, strict=True):
            found[place] = result
        return found  # type: ignore[return-value]  # each place was filled

    def _canarys(self, records: Sequence[Record], rows: Sequence[Row], places: Sequence[int]) -> list[int]:
        """Say which events, by their places, the canary answers."""
        if self.canary is None or self.weight <= 0:
            return []
        keys: list[bytes | None]
        if self.sticky is None:
            keys = [None] * len(places)
        elif self.sticky.kind == "feature":
            at = place_of(self.sticky.name, self.stable.predictor.schema)
            keys = [feature_key(row[at]) for row in rows]
        else:
            headers = [records[place].headers.get(self.sticky.name) for place in places]
            keys = [None if header is None else header.encode(errors="surrogatepass") for header in headers]
        # Nothing is left to chance: an event that is handed out again has the same answer again.
        known = [records[place].key.encode() if key is None else key for place, key in zip(places, keys, strict=True)]
        return [place for place, key in zip(places, known, strict=True) if goes_to_canary(key, self.weight, self.name)]

    def _ask_canary(
        self, records: Sequence[Record], places: Sequence[int], found: list[Scored | Reason | None]
    ) -> None:
        """Answer events with the canary; what it cannot answer is left for the stable version."""
        assert self.canary is not None
        start = perf_counter_ns()
        read = self.canary.reader.read([records[place] for place in places])
        answered: dict[int, Scored] = {}
        if read.rows:
            results = self._predict(self.canary, read.rows, read.events, len(read.refused), gives_up=True)
            answered = {
                at: result for at, result in zip(read.places, results, strict=True) if isinstance(result, Scored)
            }
        each_ns = (perf_counter_ns() - start) // len(places)
        for at, place in enumerate(places):
            found[place] = answered.get(at)
        self.on_canary(len(places), len(places) - len(answered), each_ns)

    def _predict(
        self, member: Member, rows: Sequence[Row], events: Sequence[Event], n_refused: int, gives_up: bool
    ) -> list[Scored | Reason]:
        start = perf_counter_ns()
        answers, late = _answers(member, rows, gives_up) if rows else ([], {})
        took_ns = perf_counter_ns() - start
        self.on_run(Run(member.variant.version, len(rows) - len(late), n_refused + len(late), took_ns))
        if not late:
            version = member.variant.version
            if self.envelope.id:
                name = self.envelope.id[-1]
                for answer, event in zip(answers, events, strict=True):
                    answer[name] = event.id  # type: ignore[index]  # none is None
            return [
                Scored(answer, version, event.partition_key)  # type: ignore[arg-type]  # none is None
                for answer, event in zip(answers, events, strict=True)
            ]
        return [
            late[i] if i in late else self._told(member, answer, event)
            for i, (answer, event) in enumerate(zip(answers, events, strict=True))
        ]

    def _told(self, member: Member, answer: Answer | None, event: Event) -> Scored:
        assert answer is not None
        if event.id is not None:
            answer[self.envelope.id[-1]] = event.id
        return Scored(answer, member.variant.version, event.partition_key)

    def message(self, scored: Scored, key: str) -> Message:
        """Wrap an answer as it is published.

        Parameters
        ----------
        key : of the event.
        """
        head = self._heads.get(scored.version) or self._head(scored.version)
        # The same as one dict encoded whole, in a third of the time.
        data = b"%b%b%b%b}" % (head, _encode(scored.results), _KEY, _encode(key))
        return Message(data, key, scored.partition_key)

    def _head(self, version: str) -> bytes:
        """Begin an answer, up to its results."""
        told = _encode({MODEL: self.name, VERSION: version})
        head = self._heads[version] = told[:-1] + b"," + _encode(self.envelope.results) + b":"
        return head


def _answered(member: Member, rows: Sequence[Row]) -> tuple[Sequence[Answer | None], Mapping[int, tuple[Problem, ...]]]:
    """Predict rows; whatever the user's code raises, even what ends a program, is the model's failure."""
    try:
        return member.predictor.answer(rows)
    except FairleadError:
        raise
    except BaseException as error:
        raise ModelFailed(f"the model raised {type(error).__name__}") from error


def _answers(member: Member, rows: Sequence[Row], gives_up: bool) -> tuple[Sequence[Answer | None], dict[int, Reason]]:
    """Predict rows together, and alone where the model raises; give the reasons for those without an answer."""
    try:
        answers, refused = _answered(member, rows)
        return answers, {row: member.reader.refusal(problems) for row, problems in refused.items()}
    except ModelFailed as error:
        if len(rows) == 1:
            if not gives_up:
                raise
            return [None], {0: Reason("model_failed", str(error))}
    found: list[Answer | None] = []
    late: dict[int, Reason] = {}
    for place, row in enumerate(rows):
        one, reasons = _answers(member, [row], gives_up=True)
        found += one
        if reasons:
            late[place] = reasons[0]
    if not gives_up and all(place in late and late[place].code == "model_failed" for place in range(len(rows))):
        raise ModelFailed(late[0].detail)
    return found, late
