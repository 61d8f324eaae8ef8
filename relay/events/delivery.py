"""Delivery of events to webhooks: at least once, in order, with retries, until they are accepted or given up.

Each webhook has one task with one request at a time, oldest events first, which keeps the order per call. The outbox
holds all state, so that a restart resumes. A row is removed after the answer; if the removal is lost, the event is sent
again with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import aiohttp
from structlog.typing import FilteringBoundLogger

from relay.defence.limits import Tally, is_within_share
from relay.errors import RelayError
from relay.events import alibaba
from relay.events.webhooks import MOST_WEBHOOKS, DeliveryRules, write_events
from relay.log import Outage
from relay.net.bell import Bell
from relay.net.hook_client import SIGNATURE, signature_header
from relay.net.http_client import OWNER, AnswerTooLong, BoundedConnector, SystemResolver
from relay.net.public_address import NotPublic, any_socket, public_socket
from relay.net.spans import Attributes, RequestSpan, Spans
from relay.store.connection import Place
from relay.store.database import Reader
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import (
    LONGEST_WAIT_MS,
    OutboxEvent,
    Webhook,
    count_refusal,
    dead_letter,
    dead_letter_old,
    disable,
    find_webhook,
    next_events,
    pending_webhooks,
    remove,
    set_error,
    set_schedule,
)
from relay.store.writer import GroupWriter, now_ms

T = TypeVar("T")

LOOK_S = 0.1  # interval of polling the outbox while events wait, at least
IDLE_S = 0.5  # longest further wait for the bell: commands of other processes do not ring it
LAST_ANSWERS_S = 2.0  # time for requests under way after `finish`
RETRY_S = 1.0  # pause after an error of the store
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 600.0
LONGEST_RETRY_AFTER_S = LONGEST_WAIT_MS / 1000
REFUSALS = 3  # of one event sent alone, until it is given up
LATER = frozenset([408, 425, 429])  # statuses to retry besides 3xx and 5xx: not the events' fault
GONE = 410
NOT_ACCEPTED = 'the answer has no number as its code, as {"code": 0} has'
ALTERED = "its row was altered: relay700 verify finds it"
FAULT = "a fault of relay700, which its log has"

# Unknown host names too: a business user must not find out which names the operator's network has.
NO_PUBLIC_ADDRESS = "the host has no public address"

_UNKNOWN_HOST = (aiohttp.ClientConnectorDNSError, UnicodeError)
_WORDS = (
    (_UNKNOWN_HOST, "unknown host name"),
    (aiohttp.ClientSSLError, "TLS failed, or the certificate is not trusted"),
    (aiohttp.ClientConnectorError, "connection refused or unreachable"),
    (AnswerTooLong, "the answer is too long"),
)


class _Answer(NamedTuple):
    """The result of a request. Status 0: no answer."""

    status: int
    reason: str
    retry_after_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_for_later(self) -> bool:
        return self.status == 0 or 300 <= self.status < 400 or self.status >= 500 or self.status in LATER


class DeliveryTask:
    """The delivery task of the backend: `run` it until it is cancelled."""

    def __init__(
        self,
        path: Place,
        sealer: Sealer,
        writer: GroupWriter,
        log: FilteringBoundLogger,
        rules: DeliveryRules,
        clock_ms: Callable[[], int] = now_ms,
        spans: Spans | None = None,
        bell: Bell | None = None,
    ) -> None:
        """`bell`: rung when this process has queued events; None: it polls, as others queue them too."""
        self._bell = bell
        self._sealer = sealer
        self._writer = writer
        self._log = log
        self._looking = Outage("delivery", log)
        self._storing = Outage("delivery", log)  # while results of deliveries cannot be written
        self._rules = rules
        self._clock_ms = clock_ms
        self._spans = spans
        self._finishing = asyncio.Event()
        self._reader = Reader(path)  # in the loop: single rows and short lists
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._requests: dict[str, str] = {}  # webhooks with a request under way or to come, and their business users
        self._used = Tally()  # the same by business user
        # Webhooks that found no room, first come first; their business users, None before the webhook is read.
        self._waiting: dict[str, str | None] = {}
        self._batches: dict[str, int] = {}  # batch size by webhook, where refusals have reduced it
        self._counts = {"events_delivered": 0, "events_given_up": 0, "deliveries": 0, "deliveries_failed": 0}

    async def run(self) -> None:
        """Poll the outbox until `finish`; each webhook with events gets a task."""
        sessions = open_sessions()
        try:
            while not self._finishing.is_set():
                await self._pause(self._look(sessions))
            if self._under_way:
                await asyncio.wait(self._under_way.values(), timeout=LAST_ANSWERS_S)
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
            await sessions.close()
            self._reader.close()

    async def _pause(self, least_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finishing.wait(), least_s)
        is_idle = not (self._under_way or self._waiting or self._finishing.is_set())
        if self._bell is not None and is_idle:
            await self._bell.wait(IDLE_S)

    def apply_config(self, rules: DeliveryRules) -> None:
        """Apply the rules from the next delivery on."""
        self._rules = rules

    def finish(self) -> None:
        """Make `run` return once requests under way are answered, LAST_ANSWERS_S at most. The rest stays queued."""
        self._finishing.set()
        if self._bell is not None:
            self._bell.ring()

    def statistics(self) -> dict[str, int]:
        return {**self._counts, "webhooks_under_way": len(self._under_way)}

    def _look(self, sessions: DeliverySessions) -> float:
        """Start tasks of webhooks that are due. Returns the seconds until the next poll."""
        try:
            due = dict.fromkeys(self._reader.read(lambda connection: pending_webhooks(connection, self._clock_ms())))
        except RelayError as error:
            self._looking.failed(error)
            return RETRY_S
        self._looking.over()
        self._cancel_removed(due)
        self._waiting = {webhook_id: its for webhook_id, its in self._waiting.items() if webhook_id in due}
        for webhook_id in (*self._waiting, *due):
            if webhook_id not in self._under_way and self._may_begin(webhook_id):
                task = asyncio.create_task(self._serve(sessions, webhook_id), name=f"webhook {webhook_id}")
                self._under_way[webhook_id] = task
        return LOOK_S

    def _may_begin(self, webhook_id: str) -> bool:
        """Whether the webhook may find room. Asked before it is read: thousands may wait at each poll."""
        business = self._waiting.setdefault(webhook_id, None)
        if len(self._under_way) >= MOST_CONNECTIONS:
            return False
        return business is None or self._take_place(webhook_id, business)

    def _cancel_removed(self, due: Collection[str]) -> None:
        """Cancel the request of a removed webhook: it would keep a connection from the webhook that replaces it."""
        for webhook_id in self._requests.keys() - due:
            with contextlib.suppress(RelayError):
                if self._find(webhook_id) is None:
                    self._under_way[webhook_id].cancel()

    def _find(self, webhook_id: str) -> Webhook | None:
        return self._reader.read(lambda connection: find_webhook(connection, self._sealer, webhook_id))

    def _take_place(self, webhook_id: str, business: str) -> bool:
        """Whether the business user may have one more request under way. If not, each poll tries the webhook again."""
        if webhook_id in self._requests:
            return True
        used, in_all = self._used.count(business) + 1, len(self._requests) + 1
        if used > MOST_WEBHOOKS or not is_within_share(used, in_all, MOST_CONNECTIONS):
            self._waiting[webhook_id] = business
            return False
        self._waiting.pop(webhook_id, None)
        self._requests[webhook_id] = business
        self._used.begin(business)
        return True

    def _leave_place(self, webhook_id: str) -> None:
        business = self._requests.pop(webhook_id, None)
        if business is not None:
            self._used.end(business)

    def _is_wanted(self, business: str) -> bool:
        """Whether others may wait for the place of a finished request of this business user."""
        return business in self._waiting.values() or len(self._under_way) >= MOST_CONNECTIONS

    async def _serve(self, sessions: DeliverySessions, webhook_id: str) -> None:
        """Send the events of one webhook until none is left or a retry must wait."""
        try:
            while not self._finishing.is_set() and await self._send_next(sessions, webhook_id):
                pass
            self._storing.over()
        except RelayError as error:
            self._storing.failed(error)
            await asyncio.sleep(RETRY_S)
        finally:
            self._leave_place(webhook_id)
            del self._under_way[webhook_id]

    async def _send_next(self, sessions: DeliverySessions, webhook_id: str) -> bool:
        """Send one request. Returns False if the webhook has to wait."""
        webhook = self._find(webhook_id)
        if webhook is None or webhook.disabled_at is not None or not webhook.is_due(self._clock_ms()):
            return False
        await self._give_up_old(webhook)
        if not self._take_place(webhook_id, webhook.business):
            return False
        most = self._batches.get(webhook_id, self._rules.batch)
        events = self._reader.read(lambda connection: next_events(connection, self._sealer, webhook_id, most))
        if not events:
            return False
        if webhook.format == "alibaba" and any(event.data is None for event in events):
            await self._give_up(webhook, [event.seq for event in events if event.data is None], ALTERED)
            return True  # a form without a word for it
        try:
            answer = await self._post(sessions, webhook, events)
        except Exception:  # a bug, here or in a library: without a wait each poll would repeat it
            self._log.exception("webhook.fault", webhook=webhook_id)
            answer = _Answer(0, FAULT)
        finally:
            self._leave_place(webhook_id)
        self._counts["deliveries"] += 1
        if answer.is_good:
            await self._taken(webhook, events)
            return not self._is_wanted(webhook.business)
        self._counts["deliveries_failed"] += 1
        return await self._not_taken(webhook, events, answer)

    async def _post(self, sessions: DeliverySessions, webhook: Webhook, events: Sequence[OutboxEvent]) -> _Answer:
        OWNER.set(webhook.business)
        body = write_events(webhook, events)
        headers = {
            "content-type": "application/json",
            SIGNATURE: signature_header(webhook.secret, int(time.time()), body),
            "relay700-delivery": secrets.token_hex(16),
        }
        session = sessions.internal if webhook.internal else sessions.public
        timeout = aiohttp.ClientTimeout(total=self._rules.timeout_s)
        about: Attributes = {
            "http.request.method": "POST",
            "relay700.webhook": webhook.id,
            "relay700.events": len(events),
        }
        with RequestSpan(self._spans, "webhook", about) as span:
            headers |= span.headers
            try:
                async with session.post(
                    webhook.url, data=body, headers=headers, allow_redirects=False, timeout=timeout
                ) as response:
                    span.status = response.status
                    if webhook.format == "alibaba" and not await _is_accepted(response):  # whatever it is: later
                        reason = NOT_ACCEPTED if response.status == 200 else f"status {response.status}"
                        return _Answer(0, reason, _retry_after_s(response))
                    return _Answer(response.status, f"status {response.status}", _retry_after_s(response))
            except TimeoutError:
                return _Answer(0, f"no answer within {self._rules.timeout_s:g} s")
            except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
                return _Answer(0, _word(error, internal=webhook.internal))

    # -- results

    async def _taken(self, webhook: Webhook, events: Sequence[OutboxEvent]) -> None:
        def do(unit: UnitOfWork) -> None:
            remove(unit, [event.seq for event in events])
            if webhook.failures:
                set_schedule(unit, webhook.id, 0, 0)

        await self._write(do)
        self._counts["events_delivered"] += len(events)
        if webhook.id in self._batches:
            self._grow(webhook.id)

    async def _not_taken(self, webhook: Webhook, events: Sequence[OutboxEvent], answer: _Answer) -> bool:
        if answer.status == GONE:
            await self._disable(webhook, answer)
            return False
        if answer.is_for_later:
            await self._wait(webhook, answer)
            return False
        if len(events) > 1:  # halve the batch to find the refused event
            self._batches[webhook.id] = len(events) // 2
            return True
        return await self._refused(webhook, events[0], answer)

    async def _refused(self, webhook: Webhook, event: OutboxEvent, answer: _Answer) -> bool:
        """A refusal of one event sent alone. It is given up after REFUSALS, so that later events can go on."""
        await self._write(lambda unit: count_refusal(unit, event.seq, answer.reason))
        if event.tries + 1 < REFUSALS:
            await self._wait(webhook, answer)
            return False
        await self._give_up(webhook, [event.seq], answer.reason)
        return True

    async def _give_up(self, webhook: Webhook, seqs: Sequence[int], reason: str) -> None:
        def do(unit: UnitOfWork) -> None:
            set_error(unit, webhook.id, reason)
            dead_letter(unit, seqs, reason)
            set_schedule(unit, webhook.id, 0, 0)

        await self._write(do)
        self._report_given_up(webhook, len(seqs), reason)

    async def _wait(self, webhook: Webhook, answer: _Answer) -> None:
        """Schedule the next try; the wait doubles with each failure. It is stored: a restart does not retry at once."""
        wait_s = min(FIRST_WAIT_S * 2 ** min(webhook.failures, 20), LONGEST_WAIT_S) * random.uniform(0.8, 1.2)
        wait_s = max(wait_s, min(answer.retry_after_s, LONGEST_RETRY_AFTER_S))
        next_at = self._clock_ms() + int(1000 * wait_s)

        def do(unit: UnitOfWork) -> None:
            set_error(unit, webhook.id, answer.reason)
            set_schedule(unit, webhook.id, webhook.failures + 1, next_at)

        await self._write(do)
        if not webhook.failures:
            self._log.warning("webhook.failing", webhook=webhook.id, business=webhook.business, reason=answer.reason)

    async def _disable(self, webhook: Webhook, answer: _Answer) -> None:
        """Disable the webhook after a 410. Its events become dead letters, to be resent once it is enabled."""

        def do(unit: UnitOfWork) -> None:
            disable(unit, webhook.id)
            set_error(unit, webhook.id, answer.reason)
            unit.audit("webhook.disable", webhook.id, business=webhook.business, reason=answer.reason)

        def give_up(unit: UnitOfWork) -> int:
            return dead_letter_old(unit, webhook.id, unit.now_ms + 1, answer.reason)

        await self._write(do)
        given_up = 0
        while count := await self._write(give_up):
            given_up += count
        self._report_given_up(webhook, given_up, answer.reason)

    async def _give_up_old(self, webhook: Webhook) -> None:
        before_ms = self._clock_ms() - self._rules.give_up_ms
        events = self._reader.read(lambda connection: next_events(connection, self._sealer, webhook.id, 1))
        while events and events[0].at_ms < before_ms:
            count = await self._write(lambda unit: dead_letter_old(unit, webhook.id, before_ms, "not accepted in time"))
            self._report_given_up(webhook, count, "not accepted in time")
            events = (
                self._reader.read(lambda connection: next_events(connection, self._sealer, webhook.id, 1))
                if count
                else []
            )

    def _grow(self, webhook_id: str) -> None:
        """Double a reduced batch size, up to that of the rules."""
        batch = 2 * self._batches[webhook_id]
        if batch < self._rules.batch:
            self._batches[webhook_id] = batch
        else:
            del self._batches[webhook_id]

    def _report_given_up(self, webhook: Webhook, count: int, reason: str) -> None:
        self._counts["events_given_up"] += count
        self._log.error("webhook.gave_up", webhook=webhook.id, business=webhook.business, events=count, reason=reason)

    async def _write(self, do: Callable[[UnitOfWork], T]) -> T:
        return await self._writer.run(RELAY, do)


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """Seconds of a Retry-After (RFC 9110 10.2.3: seconds or a date); 0 if there is none."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


async def _is_accepted(response: aiohttp.ClientResponse) -> bool:
    """Whether a receiver of Alibaba's form has taken the records."""
    body = b""
    while part := await response.content.read(alibaba.MOST_ANSWER + 1 - len(body)):
        body += part
    return alibaba.is_accepted(response.status, body)


def _word(error: Exception, *, internal: bool) -> str:
    """The reason of a failed request, without the error's own text, which may quote the far end."""
    if not internal and (isinstance(error, _UNKNOWN_HOST) or isinstance(getattr(error, "os_error", None), NotPublic)):
        return NO_PUBLIC_ADDRESS
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "the connection broke")


# -- HTTP sessions of deliveries

MOST_CONNECTIONS = 200  # requests under way of all webhooks: aiohttp's time limits include waiting for a connection
MOST_TO_ONE_HOST = 10


class DeliverySessions(NamedTuple):
    """Two sessions, so that a public webhook never reuses a connection of an internal one."""

    public: aiohttp.ClientSession
    internal: aiohttp.ClientSession
    resolver: SystemResolver

    async def close(self) -> None:
        await self.public.close()
        await self.internal.close()
        await self.resolver.close()


def open_sessions() -> DeliverySessions:
    """Open the sessions, in the event loop that uses them."""
    resolver = SystemResolver()
    return DeliverySessions(_session(public_socket, resolver), _session(any_socket, resolver), resolver)


def _session(make_socket: Any, resolver: SystemResolver) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=BoundedConnector(
            alibaba.MOST_ANSWER,
            limit=MOST_CONNECTIONS,
            limit_per_host=MOST_TO_ONE_HOST,
            resolver=resolver,
            socket_factory=make_socket,
        ),
        headers={"user-agent": "relay700"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )
