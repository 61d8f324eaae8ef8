"""Photographs pages of the console: a relay with a day of calls behind it, and some under way."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from relay.model.call import CallRecord
from tests.support.console import Ground, LiveCall, ground
from tests.support.console_browser import Room, chromium
from tests.support.console_seed import C
from tests.support.relay_process import A, B
from tests.support.stored import ended_record

HOUR_S = 3600
WEEK_S = 7 * 24 * HOUR_S
# Outcome -> weight, SIP status, Q.850 cause, who ended it.
OUTCOMES = {
    "answered": (70, 200, 16, "caller"),
    "no_answer": (9, 480, 19, "callee"),
    "busy": (7, 486, 17, "callee"),
    "cancelled": (6, 487, 16, "caller"),
    "no_binding": (4, 403, 21, "relay"),
    "unreachable": (2, 480, 20, "relay"),
    "frequency_caller": (2, 403, 21, "relay"),
}
TEXTS = {"name": "青鸟同城配送有限公司", "order_id": "外卖 1128-0917", "display": "Qingniao", "area": "上海"}
DESKTOP, LAPTOP, TALL, PHONE = (
    {"width": 1440, "height": 720},
    {"width": 1280, "height": 800},
    {"width": 1440, "height": 1280},
    {"width": 390, "height": 844},
)


def past() -> Iterator[CallRecord]:
    """Calls of today and of the day a week ago, most of them in the last two hours."""
    dice = random.Random(700)
    now_ms = time.time_ns() // 1_000_000
    today = [dice.triangular(0, 12 * HOUR_S, 0) for _ in range(1_500)]
    lately = [dice.triangular(0, 2 * HOUR_S, 0) for _ in range(3_000)]
    before = [WEEK_S + dice.triangular(0, 12 * HOUR_S, 0) for _ in range(3_500)]
    for number, ago_s in enumerate(sorted((*today, *lately, *before), reverse=True)):
        received = now_ms - int(1000 * (ago_s + 120))  # all have ended by now
        outcome = dice.choices([*OUTCOMES], [weight for weight, *_ in OUTCOMES.values()])[0]
        _, status, cause, ended_by = OUTCOMES[outcome]
        refused, answered = ended_by == "relay" and outcome != "unreachable", outcome == "answered"
        ring_ms, wait_ms = dice.randrange(300, 1_400), dice.randrange(2_000, 20_000)
        length_ms = dice.randrange(5_000, 90_000) if answered else None
        yield ended_record(
            f"{number:032x}",
            business=dice.choice(("shunda", "shunda", "shunda", "qingniao")),
            order_id=f"订单-{number}",
            caller=f"86{A}",
            callee=None if refused else f"86{B}",
            peer_in="caller_side",
            peer_out=None if refused else "callee_side_1",
            received_at=received,
            routed_at=None if refused else received + 1,
            ringing_at=None if refused else received + ring_ms,
            answered_at=received + ring_ms + wait_ms if answered else None,
            ended_at=received + (2 if refused else ring_ms + wait_ms + (length_ms or 0)),
            duration_ms=length_ms,
            sip_status=status,
            q850_cause=cause,
            outcome=outcome,
            ended_by=ended_by,
            end_reason="bye" if answered else outcome if refused else f"sip_{status}",
        )


async def photograph(made: Ground, folder: Path) -> None:
    """Write the pictures: name -> page, in a language, colours and size."""
    async with chromium() as browser:
        room = Room(made, browser, {})
        (busy, *_), (refused, *_) = await room.calls("busy"), await room.calls("no_binding")
        shots = {
            "overview": ("/", "en-GB", "light", DESKTOP),
            "overview-dark": ("/", "zh-CN", "dark", DESKTOP),
            "overview-phone": ("/", "zh-CN", "light", PHONE),
            "call": (f"/calls/{busy}", "en-GB", "light", TALL),
            "refused": (f"/calls/{refused}", "zh-CN", "dark", LAPTOP),
            "live": ("/live", "zh-CN", "light", LAPTOP),
            "businesses": ("/businesses", "zh-CN", "light", LAPTOP),
            "webhook": (f"/webhooks/{made.seeds.failing_webhook}", "en-GB", "light", LAPTOP),
        }
        for name, (path, locale, scheme, size) in shots.items():
            looks = {"locale": locale, "color_scheme": scheme, "viewport": size, "device_scale_factor": 1.5}
            async with room.page(path, **looks) as page:
                if name == "call":  # with one message open, beside what was withheld
                    await page.locator("summary", has_text="486").last.click()
                await page.screenshot(path=folder / f"{name}.png", animations="disabled")


async def main(work: str, folder: str) -> None:
    def text(field: str) -> str:
        return TEXTS.get(field, "QN-2026-1128")

    async with ground(Path(work), text=text, past=[*past()]) as made:
        made.up += [await (await LiveCall(made).ring()).answer() for _ in range(4)]
        await (await LiveCall(made, C, made.seeds.evil_binding.x).ring()).refuse(486)
        await photograph(made, Path(folder))


asyncio.run(main(*sys.argv[1:]))
