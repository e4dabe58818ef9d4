"""The page of a board without a browser: it keeps what every component shows, and asks callbacks as a browser does.

Layer L3; needs nothing but the board's own server.

Source: the requests of dash-renderer, https://github.com/plotly/dash/tree/dev/dash/dash-renderer/src
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.dashboard.boards.board import Board

# A component, and one of its properties.
Place = tuple[str, str]
_DONE = 200
_NOTHING_TO_DO = 204
# Where a person chooses a row; other selectors follow one of these where there is one.
_SELECTOR = re.compile(r"^random-index-(clas|reg)-index-")
_FOLLOWING_SELECTOR = re.compile(r"-index-")


@dataclass(frozen=True)
class Callback:
    """A callback as the page's own list has it.

    Parameters
    ----------
    output : what it fills in, as the list has it.
    inputs : what it listens to.
    state : what it is told besides.
    """

    output: str
    inputs: tuple[Place, ...]
    state: tuple[Place, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Callback:
        """Read an entry of the list."""
        inputs, state = (tuple((one["id"], one["property"]) for one in told[kind]) for kind in ("inputs", "state"))
        return cls(told["output"], inputs, state)

    @property
    def outputs(self) -> list[Place]:
        """What it fills in."""
        several = self.output.startswith("..")
        texts = self.output[2:-2].split("...") if several else [self.output]
        # What several callbacks fill in is told apart by what follows an `@`.
        places = (text.partition("@")[0].rpartition(".") for text in texts)
        return [(name, prop) for name, _, prop in places]


class Page:
    """The page as it is in a browser: the properties of every component.

    Parameters
    ----------
    board : whose page it is.

    Attributes
    ----------
    callbacks : of the page, once it is open.
    failed : requests that failed, and how.
    """

    def __init__(self, board: Board) -> None:
        self.callbacks: list[Callback] = []
        self.failed: list[str] = []
        self._prefix: str = board.dashboard.app.config.requests_pathname_prefix
        self._client = board.server.test_client()
        self._components: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()

    def open(self) -> None:
        """Ask for the page, and for every callback in the order that the page does."""
        for path in ("", "_dash-layout", "_dash-dependencies"):
            answer = self._client.get(self._prefix + path)
            if answer.status_code != _DONE:
                self.failed.append(f"{self._prefix}{path}: status {answer.status_code}")
                return
            if path == "_dash-layout":
                self._take(answer.get_json())
        self.callbacks = [Callback.of(told) for told in answer.get_json()]
        waiting = [callback for callback in self.callbacks if self._has(callback)]
        while waiting:
            to_come = {place for callback in waiting for place in callback.outputs}
            ready = [callback for callback in waiting if not to_come.intersection(callback.inputs)] or waiting[:1]
            for callback in ready:
                waiting.remove(callback)
                self._ask(callback, ())

    def find(self, pattern: re.Pattern[str]) -> list[str]:
        """Name the components with a value whose names have a pattern."""
        listened = {place for callback in self.callbacks for place in callback.inputs}
        return [name for name in self._components if pattern.search(name) and (name, "value") in listened]

    def choose(self, row: str) -> None:
        """Choose a row wherever one can be chosen."""
        for selector in self.find(_SELECTOR) or self.find(_FOLLOWING_SELECTOR):
            self.change(selector, row)

    def value(self, place: Place) -> Any:
        """Give a property of a component; None where there is none."""
        name, prop = place
        return self._components.get(name, {}).get(prop)

    def options(self, name: str) -> list[Any]:
        """List what can be chosen in a component."""
        found = self.value((name, "options")) or ()
        return [option["value"] if isinstance(option, dict) else option for option in found]

    def another(self, name: str) -> Any:
        """Give another value for a component: the first other option, or a number more."""
        value = self.value((name, "value"))
        options = self.options(name)
        return next((option for option in options if option != value), value) if options else (value or 0) + 1

    def change(self, name: str, value: Any) -> None:
        """Do what a person does: put in a value; ask all callbacks that listen, and those that listen to these."""
        self._components[name]["value"] = value
        changed: list[Place] = [(name, "value")]
        asked: set[str] = set()
        while changed:
            ready = [
                callback
                for callback in self.callbacks
                if callback.output not in asked and self._has(callback) and set(changed).intersection(callback.inputs)
            ]
            before, changed = changed, []
            for callback in ready:
                asked.add(callback.output)
                changed += self._ask(callback, [place for place in before if place in callback.inputs])

    def ask_the_rest(self) -> None:
        """Ask the callbacks that nothing so far led to, such as those of buttons."""
        for callback in self.callbacks:
            if callback.output in self._asked:
                continue
            if not self._has(callback):
                self.failed.append(f"{callback.output}: listens to what is not on the page")
                continue
            for name, prop in callback.inputs:
                if prop == "n_clicks":
                    self._components[name][prop] = 1
            self._ask(callback, callback.inputs)

    def _has(self, callback: Callback) -> bool:
        places = (*callback.inputs, *callback.state, *callback.outputs)
        return all(name in self._components for name, _ in places)

    def _ask(self, callback: Callback, changed: Sequence[Place]) -> list[Place]:
        """Ask a callback, take what it answers into the page, and give what that changed."""
        self._asked.add(callback.output)
        outputs = [{"id": name, "property": prop} for name, prop in callback.outputs]
        body = {
            "output": callback.output,
            "outputs": outputs if callback.output.startswith("..") else outputs[0],
            "inputs": list(map(self._told, callback.inputs)),
            "state": list(map(self._told, callback.state)),
            "changedPropIds": [f"{name}.{prop}" for name, prop in changed],
        }
        answer = self._client.post(f"{self._prefix}_dash-update-component", json=body)
        if answer.status_code != _DONE:
            if answer.status_code != _NOTHING_TO_DO:
                self.failed.append(f"{callback.output}: status {answer.status_code}")
            return []
        taken = []
        for name, props in answer.get_json()["response"].items():
            for prop, value in props.items():
                self._components.setdefault(name, {})[prop] = value
                taken.append((name, prop))
                self._take(value)
        return taken

    def _told(self, place: Place) -> dict[str, Any]:
        name, prop = place
        return {"id": name, "property": prop, "value": self.value(place)}

    def _take(self, node: Any) -> None:
        """Take the components of a tree into the page."""
        for component in _components(node):
            props = component["props"]
            if isinstance(props.get("id"), str):
                self._components[props["id"]] = dict(props)


def _components(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for one in node:
            yield from _components(one)
    elif isinstance(node, dict):
        if isinstance(node.get("props"), dict) and "namespace" in node:
            yield node
            node = node["props"]
        for one in node.values():
            if isinstance(one, list | dict):
                yield from _components(one)
