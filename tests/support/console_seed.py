"""A store for the console's tests and pictures: something of everything, and hostile text where a tenant may write.

Real numbers are those of REAL alone, so that a page that shows one is found by its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from relay.events.webhooks import make as make_webhook
from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.service.businesses import change, set_state
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import make_group, set_entry
from relay.service.keys import BUSINESS_SCOPES, OPERATOR_SCOPES, make_key, revoke
from relay.service.numbers import ensure_numbers, load_prefix, lock, make_pool, move, new_pool, new_prefix
from relay.service.placement import BindRules
from relay.store.database import open_store
from relay.store.unit_of_work import OPERATOR, Actor, UnitOfWork
from relay.store.webhooks import dead_letter, queue_event_for
from relay.store.writer import Writer, now_ms
from tests.support.papers import PAPERS, apply
from tests.support.relay_process import A, B
from tests.support.shelf import Shelf
from tests.support.written import bind, bind_all, written

C, D, CONTACT = "13800000003", "13900000004", "13700000005"
REAL = (A, B, C, D, CONTACT)
SEEDER = Actor("cli:wang", None, OPERATOR)
RULES = BindRules(cool_down_ms=0)
RIVAL = "qingniao"  # the tenant that writes hostile text
LONG_ORDER = f"SF{20261128:>062}"  # 64 characters
LONG_NAME = "顺达速运（上海）国际供应链管理集团有限责任公司华东区域客户隐私保护与运营管理中心"
MANY = 120  # further bindings: more than a page
WEEK_MS = 7 * 24 * 3_600_000


Text = Callable[[str], str]  # the text of a field


def hostile(field: str) -> str:
    """Text that runs as a script, or as a template's expression, if a page does not quote it; without blanks."""
    return f"{field}'\"><img/src=x/onerror=alert(1)>{{{{7*7}}}}"


class Seeds(NamedTuple):
    """What the tests name. The keys are the texts to log in with."""

    operator: str
    masked_operator: str  # may see no real numbers
    tenant: str  # of shunda, with all scopes of a business user
    evil: str
    calls_only: str  # of shunda
    expired: str
    revoked: str
    binding: Binding  # of shunda: A and B
    evil_binding: Binding  # C and D
    failing_webhook: str  # of shunda, with dead letters
    webhook: str  # of shunda, to the receiver, with a dead letter
    evil_webhook: str


def seed(folder: Path, receiver: str, nobody: str, text: Text = hostile, past: Sequence[CallRecord] = ()) -> Seeds:
    """Make the store beside a relay's configuration. `receiver` and `nobody` are URLs that take events, and do not.

    `text`: what one tenant writes everywhere. `past`: ended calls, oldest first.
    """
    path = folder / "relay.db"
    sealer = open_store(path, folder / "relay.key")
    with closing(Writer(path, sealer, clock_ms=lambda: now_ms() - WEEK_MS)) as week_ago:
        week_ago.run(SEEDER, lambda unit: _businesses(unit, text))
        expired = week_ago.run(SEEDER, lambda unit: _key(unit, "shunda", now_ms() - WEEK_MS // 2))
    with closing(Writer(path, sealer)) as writer:
        writer.run(SEEDER, lambda unit: _states(unit, text))
        writer.run(SEEDER, lambda unit: _numbers(unit, text))
        binding, evil_binding = writer.run(SEEDER, lambda unit: _bindings(unit, text))
        writer.run(SEEDER, lambda unit: _lists(unit, text))
        webhook, failing, evil_webhook = writer.run(SEEDER, lambda unit: _webhooks(unit, receiver, nobody, text))
        Shelf(path, sealer).add(*past)
        return writer.run(
            SEEDER,
            lambda unit: Seeds(
                operator=make_key(unit, None, OPERATOR_SCOPES)[1],
                masked_operator=make_key(unit, None, OPERATOR_SCOPES - {"parties:read"})[1],
                tenant=_key(unit, "shunda"),
                evil=_key(unit, RIVAL),
                calls_only=make_key(unit, "shunda", ["calls:read"])[1],
                expired=expired,
                revoked=_revoked(unit),
                binding=binding,
                evil_binding=evil_binding,
                failing_webhook=failing,
                webhook=webhook,
                evil_webhook=evil_webhook,
            ),
        )


def _businesses(unit: UnitOfWork, text: Text) -> None:
    contact = f"李雷 {CONTACT}"
    apply(unit, LONG_NAME, "shunda", **PAPERS | {"scenario": "express", "contact": contact, "max_bindings": 5_000})
    apply(unit, "闪电外卖", "shandian", **PAPERS | {"scenario": "takeaway", "contact": contact})
    apply(unit, "Didi Drive Ltd.", "drive", **PAPERS | {"scenario": "ride_hailing"})
    apply(unit, "旧日快递", "jiuri", **PAPERS)
    apply(unit, "材料不全的公司", "incomplete")
    papers = {name: text(name) for name in PAPERS}
    apply(unit, text("name"), RIVAL, **papers)
    for business in ("shunda", RIVAL, "drive", "jiuri"):
        set_state(unit, business, "approve", "材料齐全")


def _states(unit: UnitOfWork, text: Text) -> None:
    set_state(unit, "drive", "suspend", "24 小时内投诉超过 3 起")
    set_state(unit, "jiuri", "revoke", "试点退出")
    change(unit, "shunda", contact=f"韩梅梅 {CONTACT}")
    set_state(unit, RIVAL, "suspend", text("reason"))
    set_state(unit, RIVAL, "resume", text("reason"))


def _key(unit: UnitOfWork, business: str, expires_at: int | None = None) -> str:
    return make_key(unit, business, BUSINESS_SCOPES, expires_at)[1]


def _revoked(unit: UnitOfWork) -> str:
    key, text = make_key(unit, "shunda", BUSINESS_SCOPES)
    revoke(unit, key.id, "laptop lost")
    return text


def _numbers(unit: UnitOfWork, text: Text) -> None:
    ensure_numbers(unit, ["70010000001"])
    make_pool(unit, new_pool("shunda-pool", "shunda", "上海"))
    make_pool(unit, new_pool("rival-pool", RIVAL, text("area"), max_bindings=1, warn_percent=50))
    load_prefix(unit, new_prefix("70010000002"), "shunda-pool")
    move(unit, ["700100000010001", "700100000010002"], "rival-pool")
    lock(unit, "700100000029999", "被标记为骚扰号码")


def _bindings(unit: UnitOfWork, text: Text) -> tuple[Binding, Binding]:
    own = {"business": "shunda", "order_id": LONG_ORDER, "consent": "同意书 2026-11", "user_data": '{"寄件": 17}'}
    binding = bind(unit, written("AXB", A, B, x="700100000020001", **own), RULES)
    texts = {name: text(name) for name in ("order_id", "consent", "user_data")}
    evil = bind(unit, written("AXB", C, D, business=RIVAL, **texts), RULES)
    make_group(unit, text("riders"), RULES, RIVAL, [C])
    more = [written("AXB", f"1360000{n:04}", B, business="shunda", order_id=f"订单-{n}") for n in range(MANY)]
    assert not [one for one in bind_all(unit, more, RULES) if not isinstance(one, Binding)]
    return binding, evil


def _lists(unit: UnitOfWork, text: Text) -> None:
    set_entry(unit, "business", "shunda", C, "black")
    set_entry(unit, "business", RIVAL, A, "black")
    add_filing(unit, "shunda", FilingWords(A, "CT-2026-0001", "张三", document="11010519491231002X"))
    add_filing(unit, RIVAL, FilingWords(C, text("reference"), text("holder"), "other", text("document"), text("photo")))


def _webhooks(unit: UnitOfWork, receiver: str, nobody: str, text: Text) -> tuple[str, str, str]:
    good = make_webhook(unit, "shunda", f"{receiver}/events", ["binding.expired", "number.cooling"])[0].id
    failing = make_webhook(unit, "shunda", f"{nobody}/events", ["binding.expired"])[0].id
    evil = make_webhook(unit, RIVAL, f"{nobody}/{text('url')}", ["binding.expired"])[0].id
    _dead(unit, good, 1, "HTTP 500 Internal Server Error")
    _dead(unit, failing, MANY, "connection refused or unreachable")
    _dead(unit, evil, 2, text("error"))
    return good, failing, evil


def _dead(unit: UnitOfWork, webhook: str, count: int, error: str) -> None:
    for number in range(count):
        data: dict[str, object] = {"call_id": f"{number:032x}", "caller": A, "callee": B, "outcome": "answered"}
        queue_event_for(unit, webhook, "call.ended", f"{webhook}.{number}", data)
    found = unit.connection.execute("SELECT seq FROM outbox WHERE webhook = ?", (webhook,)).fetchall()
    dead_letter(unit, [seq for (seq,) in found], error)
