"""One world: a plan is played on a node, and the invariants hold at each step and at the end.

The model of bindings here knows nothing of routes, proofs or statements: who may call whom, at this millisecond.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple

from relay.errors import ParseError, Refused, StoreError
from relay.model.binding import Binding
from relay.model.call import CallRecord, Refusal, Route
from relay.service import bindings
from relay.service.businesses import set_state
from relay.service.placement import BindRules, release_due
from relay.sip.message import Flow, Request, Response, parse_message
from relay.store.audit import verify_audit
from relay.store.database import connect_reader
from relay.store.ledger_check import ledger_faults
from relay.store.records import RecordFilter, live_calls, read_all, verify_records
from relay.store.unit_of_work import UnitOfWork, operator_cli
from tests.ladder.checks import Checks
from tests.ladder.ladder import LEFT_BEHIND
from tests.ladder.phones import _DELAYS, Fate
from tests.simulation.actors import SimCallee, SimCaller, act
from tests.simulation.node import CARRIER, PBX, PREFIX, RELAY, SECOND, Node
from tests.simulation.plan import Attempt, Happening, Letter, Plan, Story
from tests.simulation.virtual import Killed, Machine, VirtualLoop, in_force
from tests.support.places import first_store
from tests.support.written import bind, written

RULES = BindRules(cool_down_ms=0)
UNKNOWN = PREFIX + "9998"
ALL_HANG_UP_S, SETTLE_S = 60.0, 400.0
_MARK = re.compile(rb"\b([ab])q(\d+)n\d+q")
_NUMBER = re.compile(rb"(?<![0-9a-f])(?:86)?1(3[789])(\d{8})(?![0-9a-f])")
_SIDE: dict[bytes, Letter] = {b"38": "a", b"37": "a", b"39": "b"}


class Violation(AssertionError):
    """An invariant did not hold."""

    trace: list[tuple[float, str, str, bytes]] = []  # noqa: RUF012 - of the wire; set as it leaves the world


class Arrival(NamedTuple):
    """A message as a node received it."""

    at_s: float
    kind: str  # "INVITE", "BYE", "200 INVITE", ...
    data: bytes


class Result(NamedTuple):
    digest: str  # of the whole trace of the wire
    calls: int
    records: int
    outcomes: dict[str, int]
    trace: list[tuple[float, str, str, bytes]]
    log: list[tuple[str, dict[str, Any]]]


def number_of(letter: str, story: int) -> str:
    return f"1{'38' if letter == 'a' else '39'}{story:08d}"


def play(plan: Plan) -> Result:
    """Play it in a folder of its own. Raises Violation."""
    folder = Path(tempfile.mkdtemp(prefix="relay700-world-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    machine = Machine(f"{plan.seed}")
    world = None
    try:
        first_store(folder, PREFIX)
        with in_force(machine) as loop:
            world = World(plan, machine, loop, folder)
            loop.run_until_complete(world.play())
            return world.result()
    except Violation as violation:
        violation.trace = world.trace if world else []
        raise
    finally:
        if world is not None:
            world.node.release()
        shutil.rmtree(folder, ignore_errors=True)


class World:
    def __init__(self, plan: Plan, machine: Machine, loop: VirtualLoop, folder: Path) -> None:
        self.plan = plan
        self.machine = machine
        self.loop = loop
        self.trace: list[tuple[float, str, str, bytes]] = []
        self.violation: Violation | None = None
        self.callers: dict[str, SimCaller] = {}  # by Call-ID
        self.callees: dict[str, list[SimCallee]] = {}
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)  # at a node, by Call-ID
        self.finals: dict[str, int] = {}  # sent by the node, by branch
        self.invites: dict[str, float] = {}  # branch of an initial INVITE -> when it first arrived
        self.disturbed: list[float] = []  # when the node died, its disk failed or its clock was set
        self.stepped_at = 0.0
        self.suspended = False
        self.checks = Checks()
        self._context = copy_context()  # not that of a node's life, in which a phone may be told something
        self._graveyard: list[object] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._letters: dict[str, tuple[Letter, int]] = {}  # by Call-ID: whose side, of which story
        self._bound: dict[int, Binding] = {}
        self._numbers: dict[int, Binding] = {}  # what each story's phones know, also later
        self._fates: dict[int, Iterator[Fate]] = {story.index: iter(story.fates) for story in plan.stories}
        self._attempts: dict[tuple[int, Letter], list[Attempt]] = defaultdict(list)  # begun, by story and called side
        self._kill_at = ""  # the step at which the node dies
        self._down_s = 1.0
        self.node = Node(machine, folder, self._sent, self._decided, lambda: self._reach("keep"))
        self.node.disk.on_commit = lambda when: self._reach(f"{when} commit")

    # -- as a phone's `Line`

    @property
    def now(self) -> float:
        return self.machine.now

    def relay_host(self, _: str) -> str:
        return RELAY

    def listener(self, _: str) -> int:
        return 0

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.loop.call_later(seconds, self._safely, event, context=self._context)

    def deliver(self, data: bytes, flow: Flow) -> None:
        """A phone sends."""
        story = self._story_of(data)
        for delay in self._delays(story):
            self.loop.call_later(delay, self._safely, lambda: self._arrive(data, flow), context=self._context)

    def _safely(self, event: Callable[[], None]) -> None:
        try:
            event()
        except Killed:
            pass
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.violation is None:
            self.violation = error if isinstance(error, Violation) else Violation(f"{type(error).__name__}: {error}")
            self.violation.__cause__ = error

    def _delays(self, story: int) -> tuple[float, ...]:
        fates = self._fates.get(story)
        return _DELAYS["arrives" if fates is None else next(fates, "arrives")]

    def _story_of(self, data: bytes) -> int:
        mark = _MARK.search(data)
        return int(mark[2]) if mark else -1

    def _arrive(self, data: bytes, flow: Flow) -> None:
        self._trace("->" if self.node.is_up else "x>", flow.host, data)
        if not self.node.is_up:
            return
        self.checks.note_delivered(data)
        try:
            message = parse_message(data)
            call_id = message.call_id
            if isinstance(message, Request):
                kind = message.method
                if kind == "INVITE" and message.to_tag is None:
                    self.invites.setdefault(message.branch, self.now)
            else:
                kind = f"{message.status} {message.cseq.method}"
            self.arrivals[call_id].append(Arrival(self.now, kind, data))
        except ParseError:
            pass
        self.node.receive(data, flow)

    # -- the node sends

    def _sent(self, data: bytes, flow: Flow) -> None:
        self._reach("send")
        self._trace("<-", flow.host, data)
        try:
            message = parse_message(data)
            letter, story = self._whose(message, flow)
            self._check_privacy(data, letter, story)
            durable = self.node.durable.get(message.call_id, {})
            self.checks.check_sent(data, flow, list(durable.values()))
            if isinstance(message, Response) and message.status >= 200 and message.cseq.method == "INVITE":
                self.finals.setdefault(message.branch, message.status)
        except AssertionError as error:
            self._fail(Violation(f"{error}\n{data.decode(errors='replace')}"))
            return
        for delay in self._delays(story):
            self.loop.call_later(delay, self._safely, lambda: self._receive(data, flow), context=self._context)

    def _whose(self, message: Request | Response, flow: Flow) -> tuple[Letter, int]:
        known = self._letters.get(message.call_id)
        if known is None and isinstance(message, Request) and message.method in ("INVITE", "CANCEL"):
            found = _NUMBER.search(message.uri.encode())
            if found is None:
                raise Violation(f"an INVITE to nobody: {message.uri}")
            known = self._letters[message.call_id] = (_SIDE[found[1]], int(found[2]))
            self._callee_of(message, flow, *known)  # a CANCEL first: the node died before the INVITE
        if known is None:
            raise Violation(f"a message of no dialog that {flow.host} knows: {message.call_id}")
        return known

    def _callee_of(self, invite: Request, flow: Flow, letter: Letter, story: int) -> None:
        begun = self._attempts[story, letter]
        attempt = begun[-1]
        tried = sum(a.name.startswith(f"{letter}q{story}n{len(begun)}1") for c in self.callees.values() for a in c)
        answer = attempt.answers[1 if flow.host == SECOND else 0]
        name = f"{letter}q{story}n{len(begun)}1{tried}q"
        self.callees[invite.call_id] = [SimCallee(self, flow.host, name, answer)]

    def _check_privacy(self, data: bytes, letter: Letter, story: int) -> None:
        for side, number in _MARK.findall(data):
            if (side.decode(), int(number)) != (letter, story):
                raise Violation(f"a mark of side {side.decode()} of story {int(number)} went to {letter} of {story}")
        for kind, number in _NUMBER.findall(data):
            if (_SIDE[kind], int(number)) != (letter, story):
                raise Violation(
                    f"a real number of side {_SIDE[kind]}, story {int(number)}, went to {letter} of {story}"
                )

    def _receive(self, data: bytes, flow: Flow) -> None:
        """A phone receives."""
        message = parse_message(data)
        caller = self.callers.get(message.call_id)
        if caller is not None:
            caller.receive(data)
            return
        phones = self.callees.get(message.call_id, [])
        tag = message.to_tag if isinstance(message, Request) else message.from_tag
        chosen = [phone for phone in phones if phone.tag == tag] or phones[:1]
        for phone in chosen:
            phone.receive(data)
            if phone.twin is not None and phone.twin not in phones:
                phones.append(phone.twin)

    def _trace(self, arrow: str, host: str, data: bytes) -> None:
        self.trace.append((round(self.now, 4), arrow, host, data))

    # -- the model of bindings

    def allows(self, number: str, caller: str) -> tuple[str, str] | None:
        """Whom the call reaches and what is shown to them, both without "86"; None: it must be refused."""
        story = int(caller[-8:]) if caller[-11:-8] in ("138", "139") else -1
        binding = self._bound.get(story)
        if (
            binding is None
            or self.suspended
            or (binding.expires_at is not None and self.machine.wall_ms >= binding.expires_at)
        ):
            return None
        x, y = binding.x, binding.y
        if caller == binding.a and number == x:
            return binding.b or "", y or x
        if caller == binding.b and number == (y or x):
            return binding.a or "", x
        return None

    def _decided(self, number: str, caller: str, answer: Route | Refusal) -> None:
        allowed = self.allows(number, caller)
        if self.now < self.stepped_at + 1.1:  # the engine looks at the clock once a second
            return
        if isinstance(answer, Route):
            if (answer.callee, answer.shown) != allowed:
                self._fail(Violation(f"granted: {caller} to {number} gives {answer}, the model {allowed}"))
        elif allowed is not None and answer.outcome != "store_failed":
            self._fail(Violation(f"refused: {caller} to {number}: {answer}, the model allows {allowed}"))

    # -- operators

    def _operate(self, do: Callable[[UnitOfWork], Any]) -> Any:
        try:
            return self.node.writer.run(operator_cli(), do)
        finally:  # each releases what has expired by now, and a clock that is set back brings none back
            now_ms = self.machine.wall_ms
            self._bound = {
                story: it for story, it in self._bound.items() if it.expires_at is None or it.expires_at > now_ms
            }

    def _bind(self, story: Story) -> None:
        asked = written(story.mode, number_of("a", story.index), number_of("b", story.index), order_id="order-1")
        if story.expires_in_s is not None:
            asked["expires_in"] = f"{story.expires_in_s}s"
        try:
            bound = self._operate(lambda unit: bind(unit, asked, RULES))
            self._bound[story.index] = self._numbers[story.index] = bound
        except Refused as refused:
            if not (self.suspended and refused.kind == "business_not_approved"):
                raise Violation(f"story {story.index} could not be bound: {refused}") from refused

    def _unbind(self, story: Story) -> None:
        binding = self._bound.get(story.index)
        if binding is None:
            return
        try:
            self._operate(lambda unit: bindings.end(unit, binding.binding_id, RULES))
        except Refused:
            assert binding.expires_at is not None and binding.expires_at <= self.machine.wall_ms
        self._bound.pop(story.index, None)

    # -- stories

    async def play(self) -> None:
        await self.node.start()
        for story in self.plan.stories:
            self.after(story.at_s, lambda story=story: self._begin(story))  # type: ignore[misc]
        for happening in self.plan.happenings:
            self.after(happening.at_s, lambda it=happening: self._run(self._happen(it)))  # type: ignore[misc]
        lasts = self.plan.ends_s + ALL_HANG_UP_S
        self.after(self.plan.ends_s, self._hang_up_all)
        self.after(self.plan.ends_s + 3.0, self._hang_up_all)
        await self._pass(lasts + SETTLE_S)
        self._check_end()

    async def _pass(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            await asyncio.sleep(5.0)
            if self.violation is not None:
                raise self.violation
            if self.loop.faults:
                raise Violation(self.loop.faults[0])
            for event, fields in self.node.log.lines:
                if event in ("relay.bug", "call.unexpected_event", "leak_check"):
                    raise Violation(f"{event}: {fields}")
            if self.node.is_up:
                self.node.context.run(self._release_due)

    def _release_due(self) -> None:
        if int(self.now) % 10 < 5:
            with suppress(StoreError):
                self._operate(lambda unit: release_due(unit, RULES))

    def _begin(self, story: Story) -> None:
        self._bind(story)
        if story.unbound_at_s is not None:
            self.after(story.unbound_at_s, lambda: self._unbind(story))
        for place, attempt in enumerate(story.attempts):
            self.after(attempt.at_s, lambda p=place, a=attempt: self._call(story, p, a))  # type: ignore[misc]

    def _call(self, story: Story, place: int, attempt: Attempt) -> None:
        host = PBX if attempt.by == "a" else CARRIER
        called: Letter = "b" if attempt.by == "a" else "a"
        binding = self._numbers.get(story.index)
        number = UNKNOWN if attempt.unknown or binding is None else binding.x
        if not attempt.unknown and binding is not None and attempt.by == "b":
            number = binding.y or binding.x
        caller = (
            f"137{story.index:08d}" if attempt.stranger and attempt.by == "a" else number_of(attempt.by, story.index)
        )
        phone = SimCaller(self, host, f"{attempt.by}q{story.index}n{place}q", caller)
        self.callers[phone.call_id] = phone
        self._letters[phone.call_id] = attempt.by, story.index
        self._attempts[story.index, called].append(attempt)
        phone.dial(number, attempt.headers)

        def callees() -> list[SimCallee]:
            return [it for its in self.callees.values() for it in its if it.name.startswith(f"{called}q{story.index}n")]

        for when, event in attempt.events:
            self.after(when, lambda event=event: act(event, phone, callees()))  # type: ignore[misc]

    def _hang_up_all(self) -> None:
        for phone in (*self.callers.values(), *(it for its in self.callees.values() for it in its)):
            phone.bye()

    # -- what befalls the node

    async def _happen(self, happening: Happening) -> None:
        kind, lasts_s = happening.kind, happening.value
        if kind == "step":
            self.machine.wall_offset_s += lasts_s
            self.stepped_at = self.now
            self.disturbed.append(self.now)
        elif kind == "suspend":
            await self._suspend(lasts_s)
        elif kind.startswith("disk"):
            await self._break_disk(kind, lasts_s)
        elif self.node.is_up:
            await self._befall(kind, lasts_s)

    async def _befall(self, kind: str, lasts_s: float) -> None:
        """What only befalls a node that is up."""
        if kind == "reload":
            await self.node.reload()
        elif kind == "drain":
            await self._drain(lasts_s)
        else:
            self._kill_at, self._down_s = kind.removeprefix("kill ").removeprefix("at "), lasts_s
            if self._kill_at == "now":
                self._kill()

    async def _suspend(self, lasts_s: float) -> None:
        if self.suspended:
            return
        self.suspended = True
        self._operate(lambda unit: set_state(unit, "default", "suspend", "simulated"))
        await asyncio.sleep(lasts_s)
        self._operate(lambda unit: set_state(unit, "default", "resume", "simulated"))
        self.suspended = False

    async def _break_disk(self, kind: str, lasts_s: float) -> None:
        disk = self.node.disk
        disk.fault = kind.split()[-1]
        self.disturbed.append(self.now)
        await asyncio.sleep(lasts_s)
        self.disturbed.append(self.now)
        disk.fault = ""

    async def _drain(self, lasts_s: float) -> None:
        life = self.node.life
        self.disturbed.append(self.now)
        await self.node.stop(lasts_s)
        if self.node.life == life and not self.node.is_up:
            self.disturbed.append(self.now)
            await self._start_again()

    def _reach(self, step: str) -> None:
        """Raises Killed if the node is to die at this step."""
        if self._kill_at == step and self.node.is_up:
            self._kill()
            raise Killed

    def _kill(self) -> None:
        self._kill_at = ""
        self.disturbed.append(self.now)
        self._graveyard.append(asyncio.all_tasks(self.loop))  # what is left of a life is not to be collected
        self.node.kill()
        self.after(self._down_s, lambda: self._run(self._start_again()))

    async def _start_again(self) -> None:
        self.checks.restarted = True
        self.disturbed.append(self.now)
        await self.node.start()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        async def safely() -> None:
            try:
                await work
            except Killed:
                pass
            except Exception as error:
                self._fail(error)

        self._tasks.append(self.loop.create_task(safely(), context=self._context))

    # -- at the end

    def _check_end(self) -> None:
        if self.violation is not None:
            raise self.violation
        engine = self.node.service._engine
        left = {name: count for name, count in engine.statistics().items() if name in LEFT_BEHIND and count}
        _require(not left, f"left behind: {left}")
        counts = engine._counts
        for tally in (counts.calls_by_key, counts.quotas_in.calls, counts.quotas_out.calls):
            _require(not tally.counts(), "still counted towards a limit")
        _require(not self.node.attempts._slots, f"attempts are still kept: {list(self.node.attempts._slots)}")
        with closing(connect_reader(self.node.path)) as connection:
            records = list(read_all(connection, self.node.sealer, RecordFilter()))
            _require(not list(live_calls(connection, self.node.sealer)), "a call is still stored as up")
            checked = verify_records(connection, self.node.sealer, lambda stored: None)
            _require(checked.broken is None, f"the chain of records: {checked.broken}")
            audit = verify_audit(connection, self.node.sealer)
            _require(audit.broken is None, f"the audit log: {audit.broken}")
            faults = list(ledger_faults(connection, self.node.sealer))
            _require(not faults, f"the ledger: {faults}")
        self.stored = records
        lost = self.node.records.keys() - {record.call_id for record in records}
        _require(not lost, f"durable records are not in the store: {lost}")
        try:
            self.checks.check_records(records)
        except AssertionError as error:
            raise Violation(f"{error}") from error
        begun = self.checks._provisional if self.disturbed else self.invites
        unanswered = [branch for branch in begun if branch not in self.finals]
        _require(not unanswered, f"INVITEs without a final response: {unanswered}")
        for record in records:
            self._check_record(record)

    def _check_record(self, record: CallRecord) -> None:
        """The record tells what the phones saw."""
        caller = self.callers[record.caller_leg_call_id]
        callees = self.callees.get(record.callee_leg_call_id or "", [])
        told = f"\n{record}\ncaller {caller.name}: {caller.seen}\ncallees: {[it.seen for it in callees]}"
        _require(record.caller[-11:] == caller.number, f"another caller{told}")
        if record.callee_leg_call_id is not None:
            _require(bool(callees), f"a leg to nobody{told}")
        if self._was_disturbed(record):
            return
        if caller.finals:
            first = caller.finals[0]
            _require(first == record.sip_status, f"the caller saw {first}{told}")
        is_answered = record.answered_at is not None
        _require(is_answered == (record.outcome == "answered"), f"answered, or not?{told}")
        if is_answered:
            _require(any(200 in it.sent_finals for it in callees), f"nobody answered{told}")
            self._check_times(record, told)
        self._check_end_reason(record, caller, callees, told)
        if record.outcome == "busy":
            _require(any(it.answer.status in (486, 600, 699) for it in callees), f"nobody was busy{told}")

    @staticmethod
    def _check_end_reason(record: CallRecord, caller: SimCaller, callees: list[SimCallee], told: str) -> None:
        match record.end_reason, record.ended_by:
            case "bye", "caller":
                _require(caller.bye_sent_at is not None, f"the caller sent no BYE{told}")
            case "bye", "callee":
                _require(any(it.bye_sent_at is not None for it in callees), f"the callee sent no BYE{told}")
            case "bye", _:
                raise Violation(f"a BYE of nobody{told}")
            case "cancel", _:
                _require(caller._cancel_wanted and record.ended_by == "caller", f"the caller did not cancel{told}")
            case "leak_check" | "lost_at_restart" | "not_restorable", _:
                raise Violation(f"{record.end_reason} without a cause{told}")
            case _:
                pass

    def _check_times(self, record: CallRecord, told: str) -> None:
        came = [it.at_s for it in self.arrivals[record.caller_leg_call_id] if it.kind == "INVITE"]
        callee_leg = self.arrivals[record.callee_leg_call_id or ""]
        answers = [it.at_s for it in callee_leg if it.kind.startswith("200 INVITE")]
        ender = record.caller_leg_call_id if record.ended_by == "caller" else record.callee_leg_call_id
        byes = [it.at_s for it in self.arrivals[ender or ""] if it.kind == "BYE"]
        assert record.answered_at is not None and record.ended_at is not None and record.duration_ms is not None
        took = (record.answered_at - record.received_at) / 1000
        _require(min((abs(took - (it - came[0])) for it in answers), default=9) < 0.1, f"answered after {took} s{told}")
        lasted = (record.ended_at - record.received_at) / 1000
        if record.end_reason == "bye":
            _require(
                min((abs(lasted - (it - came[0])) for it in byes), default=9) < 0.1, f"ended after {lasted} s{told}"
            )
        _require(record.duration_ms == record.ended_at - record.answered_at, f"duration{told}")

    def _was_disturbed(self, record: CallRecord) -> bool:
        """Whether it lived through a restart, or a step of the clock."""
        came = self.arrivals[record.caller_leg_call_id]
        if not came or not self.disturbed:
            return not came
        legs = [*came, *self.arrivals[record.callee_leg_call_id or ""]]
        until_s = max(arrival.at_s for arrival in legs) + 40.0
        return any(came[0].at_s - 1.0 <= at_s <= until_s for at_s in self.disturbed)

    def result(self) -> Result:
        digest = hashlib.sha256(repr(self.trace).encode()).hexdigest()
        outcomes: dict[str, int] = defaultdict(int)
        for record in self.stored:
            outcomes[record.outcome or ""] += 1
        return Result(digest, self.plan.calls, len(self.stored), dict(outcomes), self.trace, self.node.log.lines)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
