"""A second version of a plugin beside the one that is obeyed: asked the same, compared, never obeyed.

What the plugin was asked goes, once it has answered or failed, into a short queue of each of its shadows, with what it
said. The shadow is asked behind it, in a process of its own that gives way to all others: nothing waits for a shadow,
and a question that finds its queue full is dropped and counted. What a shadow emits is compared and then forgotten.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import msgspec
import trio

from ipss_headend.config import ShadowConfig
from ipss_headend.errors import PluginError
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.plugins import columns
from ipss_headend.plugins.flags import flag_names
from ipss_headend.plugins.host import TRIAL_NICE
from ipss_headend.plugins.process import START_S, Answer, PluginProcess, Question
from ipss_headend.plugins.specs import HOOKS

Verdict = Literal["same", "different", "failed", "alone", "dropped"]
VERDICTS: Mapping[Verdict, str] = {
    "same": "both said the same, or both failed",
    "different": "they said different things",
    "failed": "the shadow failed, was too slow, or was not there",
    "alone": "the shadow answered, the other one failed",
    "dropped": "the shadow was not asked: it was too far behind",
}
APART = frozenset({"plugin_health", "rpc_methods"})
"""What a plugin says of itself is no answer that another version should give."""
WAITING = 32
"""Questions that wait for a shadow; more are dropped."""
SHARED_OCTETS = 64 << 20
"""Memory of the batches among them."""
EXAMPLES = 20
"""The newest of what was not the same."""
SHOWN = 400
"""Letters of each part of an example."""
SHOWN_ROWS = 5

_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Example:
    """One question that had not the same answer."""

    at_us: int
    hook: str
    verdict: Verdict
    asked: str
    live: str
    shadow: str


@dataclass(slots=True)
class _Heard:
    question: Question
    said: str | list[Any] | array[int]
    """A text: it failed so."""
    duration_s: float
    octets: int = 0


class Shadow:
    """One shadow. It listens to its plugin; `run` keeps its process and compares."""

    def __init__(
        self,
        name: str,
        of: ShadowConfig,
        figures: Figures,
        *,
        memory_mib: int,
        cpu_s: int,
        settings: Mapping[str, Any],
        wall_us: Callable[[], int],
    ) -> None:
        self.name = name
        self.of = of
        self.since_us = wall_us()
        self.counts: Counter[tuple[str, Verdict]] = Counter()
        """Questions by hook and verdict."""
        self.durations_s: dict[str, tuple[float, float]] = {}
        """What both took together for the questions that both answered, by hook: the plugin, the shadow."""
        self.examples: deque[Example] = deque(maxlen=EXAMPLES)
        self.process = PluginProcess(
            name, figures.plugin(name), memory_mib=memory_mib, cpu_s=cpu_s, wall_us=self._asked_at, settings=settings,
            source=of.source, known_as=of.shadow_of, nice=TRIAL_NICE,
        )  # fmt: skip
        self._figures = figures
        self._now_us = 0
        self._octets = 0
        self._send, self._receive = trio.open_memory_channel[_Heard](WAITING)
        self._log: Logger = logger("plugin").bind(plugin=of.shadow_of, shadow=name)
        self._told: set[str] = set()

    def heard(self, question: Question, answer: Answer | None, error: PluginError | None, duration_s: float) -> None:
        """Have it asked the same. Never waits."""
        if question.hook in APART:
            return
        spec = HOOKS[question.hook]
        octets = 0 if question.shared is None else sum(column[3] for column in question.shared.layout)
        if self._octets + octets > SHARED_OCTETS or self._send.statistics().current_buffer_used >= WAITING:
            self._count(question.hook, "dropped")
            return
        said: str | list[Any] | array[int]
        if answer is None:
            said = str(error)
        elif spec.mode == "batch" and question.shared is not None:
            said = question.shared.flags()
        else:
            said = _said(answer)
        if question.shared is not None:
            # The columns are sealed: another name for the same memory, and no copy.
            shared = replace(question.shared, descriptor=os.dup(question.shared.descriptor), answer=-1)
            question = replace(question, shared=shared)
        self._octets += octets
        self._send.send_nowait(_Heard(question, said, duration_s, octets))

    async def run(self) -> None:
        """Keep the process alive and compare, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.process.run)
                with trio.move_on_after(START_S):
                    await self.process.told.wait()
                while True:
                    await self._compare(await self._receive.receive())
        finally:
            self.process.figures.up = 0
            while self._send.statistics().current_buffer_used:
                _forget(self._receive.receive_nowait())
            self._octets = 0

    async def _compare(self, heard: _Heard) -> None:
        hook = heard.question.hook
        began = trio.current_time()
        try:
            said = await self._ask(heard.question)
        except PluginError as error:
            verdict: Verdict = "same" if isinstance(heard.said, str) else "failed"
            await self._note(heard, verdict, str(error))
        except Exception:  # noqa: BLE001 - round what is only tried: nobody else is to hear of it
            self._log.exception("a shadow cannot be asked, by a fault of ours", hook=hook)
            self._count(hook, "dropped")
        else:
            if isinstance(heard.said, str):
                verdict = "alone"
            else:
                verdict = "same" if said == heard.said else "different"
                live_s, shadow_s = self.durations_s.get(hook, (0.0, 0.0))
                took_s = trio.current_time() - began
                self.durations_s[hook] = live_s + heard.duration_s, shadow_s + took_s
            await self._note(heard, verdict, said)
        finally:
            self._octets -= heard.octets
            _forget(heard)

    async def _ask(self, question: Question) -> list[Any] | array[int]:
        self._now_us = question.now_us
        if question.shared is None:
            return _said(await self.process.ask(question.hook, question.arguments, limit_s=question.limit_s))
        shared = columns.again(question.shared)
        try:
            await self.process.ask(question.hook, {}, limit_s=question.limit_s, shared=shared)
            return shared.flags()
        finally:
            os.close(shared.answer)

    def _asked_at(self) -> int:
        return self._now_us

    def _count(self, hook: str, verdict: Verdict) -> None:
        self.counts[hook, verdict] += 1
        self._figures.shadow_answers[self.of.shadow_of, self.name, hook, verdict] += 1

    async def _note(self, heard: _Heard, verdict: Verdict, said: str | list[Any] | array[int]) -> None:
        hook = heard.question.hook
        if verdict == "same":
            self._count(hook, verdict)
            return
        live, shadow = await trio.to_thread.run_sync(_shown, heard.said, said)
        self.examples.append(Example(heard.question.now_us, hook, verdict, _asked(heard.question), live, shadow))
        self._count(hook, verdict)
        if hook not in self._told:
            self._told.add(hook)
            self._log.info("a shadow does not say the same; plugin.shadow shows more", hook=hook, verdict=verdict)


def _forget(heard: _Heard) -> None:
    if heard.question.shared is not None:
        os.close(heard.question.shared.descriptor)


def _said(answer: Answer) -> list[Any]:
    """The answer, and what was emitted with it."""
    return [answer.value, [[effect.key, effect.kind, effect.content] for effect in answer.effects]]


def _asked(question: Question) -> str:
    if question.shared is not None:
        return f"{question.shared.rows} intervals"
    return text(question.arguments)


def _shown(live: str | list[Any] | array[int], shadow: str | list[Any] | array[int]) -> tuple[str, str]:
    """Both answers in words; of batches the first rows that are not the same."""
    if isinstance(live, array) and isinstance(shadow, array):
        differing = (row for row, (one, other) in enumerate(zip(live, shadow, strict=True)) if one != other)
        rows = list(islice(differing, SHOWN_ROWS))
        return _rows(live, rows), _rows(shadow, rows)
    return _words(live), _words(shadow)


def _rows(flags: array[int], rows: list[int]) -> str:
    return "; ".join(f"interval {row}: {', '.join(flag_names(flags[row])) or 'nothing'}" for row in rows)


def _words(said: str | list[Any] | array[int]) -> str:
    if isinstance(said, str):
        return said[:SHOWN]
    if isinstance(said, array):
        return f"flags of {len(said)} intervals"
    value, effects = said
    return text(value) + (f", emits {text(effects)}" if effects else "")


def text(value: object) -> str:
    """A value as JSON, cut off where it is long."""
    try:
        whole = _json.encode(value).decode("utf-8", "replace")
    except (TypeError, ValueError, msgspec.MsgspecError):
        whole = repr(value)
    return whole if len(whole) <= SHOWN else whole[:SHOWN] + "..."
