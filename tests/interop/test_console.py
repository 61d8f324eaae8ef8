"""The console in a browser: sessions, forms, calls under way, without script and by the keyboard alone."""

from __future__ import annotations

from contextlib import closing

import pytest
from playwright.async_api import Page, expect

from relay.store.database import open_store
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.console import FORGED, LiveCall
from tests.support.console_browser import ENGLISH, Room, act, watch
from tests.support.console_seed import REAL
from tests.support.recorded import keep
from tests.support.recorded_rtp import CALLEE_PORT, CALLER_PORT, a_law, capture_of, speech
from tests.support.relay_process import A
from tests.support.waiting import until

pytestmark = [pytest.mark.outside, pytest.mark.asyncio(loop_scope="module")]


# -- Sessions


async def test_wrong_expired_and_revoked_keys_are_refused_alike(room: Room) -> None:
    seeds = room.ground.seeds
    said = set()
    for key in ("rk_000000000000_" + "x" * 43, "nonsense", seeds.expired, seeds.revoked):
        async with room.page("/login", None) as page:
            await page.get_by_text("With an API key").click()
            await page.get_by_label("API key").fill(key)
            await page.get_by_role("button", name="Log in").click()
            said.add(await page.get_by_role("alert").inner_text())
            await page.context.close()
    assert said == {"The key is unknown, wrong, expired or revoked."}


async def test_a_page_that_was_asked_for_comes_after_log_in(room: Room) -> None:
    async with room.page("/businesses?state=applied", None) as page:
        await page.get_by_text("With an API key").click()
        await page.get_by_label("API key").fill(room.ground.seeds.operator)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{room.url}/businesses?state=applied")
        await page.context.close()


async def test_a_session_ends_by_log_out_and_with_its_key(room: Room) -> None:
    context = await room.context()
    operator = {"authorization": f"Bearer {room.ground.seeds.operator}"}
    made = await context.request.post(
        f"{room.ground.url}/v1/businesses/shunda/keys", headers=operator, data={"scopes": ["calls:read"]}
    )
    key = await made.json()
    async with room.page("/login", None) as page:
        await room.log_in(page, key["secret"])
        await page.get_by_text(key["id"]).first.click()
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url(f"{room.url}/login*")
        await room.log_in(page, key["secret"])
        await context.request.delete(f"{room.ground.url}/v1/keys/{key['id']}", headers=operator)
        await expect(page.get_by_text("The session has ended")).to_be_visible()
        await page.context.close()


async def test_an_unknown_session_is_asked_to_log_in(room: Room) -> None:
    async with room.page("/login", None) as page:
        await room.log_in(page, room.ground.seeds.tenant)
        cookies = await page.context.cookies()
        assert {(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies if "session" in cookie["name"]} == {
            (True, "Strict")
        }
        await page.goto("about:blank")  # a live page would ask with the new cookie first, and lose it
        await page.context.add_cookies([{**cookie, "value": "x" * 43} for cookie in cookies])  # type: ignore[typeddict-item]
        await page.goto(f"{room.url}/calls")
        await expect(page.get_by_text("The session has ended")).to_be_visible()
        await page.context.close()


@pytest.mark.parametrize("token", ["", "x" * 32])
async def test_a_form_without_the_session_s_token_does_nothing(room: Room, token: str) -> None:
    path = f"/bindings/{room.ground.seeds.binding.binding_id}"
    async with room.page(path) as page:
        await page.locator("summary", has_text="End this binding").click()
        form = page.locator("form", has=page.get_by_role("button", name="End this binding"))
        await form.get_by_label("Reason").fill("forged")
        await form.locator("[name=csrf]").evaluate("(input, token) => input.value = token", token)
        await form.get_by_role("button").click()
        await expect(page.get_by_role("heading", name="The form was too old")).to_be_visible()
    assert (await room.api(f"/v1{path}"))["state"] == "live"


# -- Calls under way


async def test_a_call_appears_and_ends_by_itself(room: Room) -> None:
    async with room.page("/live") as page:
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(2)
        call = await LiveCall(room.ground).ring()
        await expect(rows).to_have_count(3)
        assert [number for number in REAL if number in await page.content()] == []
        await (await call.answer()).hang_up()
        await expect(rows).to_have_count(2)


async def test_a_live_call_is_hung_up_by_the_keyboard_alone(room: Room) -> None:
    """Log in, search, open the call, hang up."""
    ground = room.ground
    call = await (await LiveCall(ground).ring()).answer()
    call_id = (await room.api("/v1/calls/live"))["items"][0]["call_id"]
    async with room.page("/", None) as page:
        await expect(page.get_by_label("Name")).to_be_focused()  # the browser may set the focus after the load event
        await tab_to(page, "With an API key")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.insert_text(ground.seeds.operator)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{room.url}/")
        await page.keyboard.press("Control+k")
        await page.keyboard.insert_text(call_id)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{room.url}/calls/{call_id}*")
        await tab_to(page, "Hang up")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.insert_text("case 7")
        await page.keyboard.press("Enter")
        await call.is_hung_up()
        await expect(page.get_by_role("status")).to_contain_text("hung up")
        await page.context.close()


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("size", [(1280, 800), (1366, 768)], ids=str)
async def test_hang_up_and_its_form_are_wholly_in_view(room: Room, size: tuple[int, int], locale: str) -> None:
    width, height = size
    async with room.page("/live", viewport={"width": width, "height": height}, locale=locale) as page:
        last = page.locator("td.actions summary").last
        await last.click()
        for part in (last, page.locator("details[open] form")):
            box = await part.bounding_box()
            frame = await page.locator(".scroll").bounding_box()
            assert box is not None and frame is not None
            assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] <= width
            assert box["y"] + box["height"] <= height
        assert await page.locator("details[open] [name=reason][required]").count() == 1


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element with that name has the focus, visibly."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        focus = page.locator("*:focus")
        text, outline = await focus.evaluate("it => [it.innerText, getComputedStyle(it).outlineStyle]")
        if text.strip() == name:
            assert outline != "none", f"the focus on {name} cannot be seen"
            return
    raise AssertionError(f"no {name} can be reached by the keyboard")


async def test_a_real_number_in_the_search_of_everything_reaches_no_url(room: Room) -> None:
    asked: list[str] = []
    async with room.page("/") as page:
        page.on("request", lambda request: asked.append(f"{request.url} {request.headers.get('referer', '')}"))
        await page.keyboard.press("Control+k")
        await page.keyboard.insert_text(A)
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr").first).to_contain_text("138****0001")
        await page.locator("tbody tr td a").first.click()
        await expect(page.get_by_role("heading", name="Ladder")).to_be_visible()
        await page.goto(f"{room.url}/calls")
        await page.get_by_label("Order").fill(A)
        await page.get_by_role("button", name="Search", exact=True).click()
        await expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
        assert await page.get_by_label("Order").input_value() == A
    assert len(asked) > 4 and A not in "".join(asked)


async def test_a_refused_call_says_why_and_what_to_do(room: Room) -> None:
    (call_id,) = await room.calls("no_binding")
    async with room.page("/calls?outcome=no_binding") as page:
        await page.locator(f"a[href*='{call_id}']").first.click()
        await page.wait_for_url(f"{room.url}/calls/{call_id}*")
        main = page.locator("main")
        await expect(main).to_contain_text("This caller has no binding on this number")
        await expect(main).to_contain_text("Look at the number's bindings")


async def test_a_ladder_opens_message_by_message(room: Room) -> None:
    (call_id, *_) = await room.calls("busy")
    async with room.page(f"/calls/{call_id}") as page:
        ladder = page.locator("section", has=page.get_by_role("heading", name="Ladder"))
        await ladder.locator("summary", has_text="INVITE").first.click()
        await expect(ladder).to_contain_text("CSeq")
        await expect(ladder).to_contain_text("486")


async def test_a_refusal_is_explained_check_by_check(room: Room) -> None:
    async with room.page("/explain") as page:
        await page.get_by_label("Caller").fill(FORGED)
        await page.get_by_label("Dialled").fill(room.ground.seeds.binding.x)
        await page.get_by_label("From peer").fill("caller_side")
        await page.get_by_role("button", name="Explain").click()
        await expect(page.locator("main")).to_contain_text("failed here")
        await expect(page.locator("main")).to_contain_text("no binding")
        assert FORGED not in page.url


# -- Actions


async def test_an_application_is_approved_with_a_reason(room: Room) -> None:
    async with room.page("/businesses?state=applied") as page:
        await page.get_by_role("link", name="闪电外卖").click()
        await act(page, "Approve", "papers checked")
        await expect(page.get_by_role("status")).to_contain_text("Approved")
        await expect(page.locator("ol.story li").first).to_contain_text("papers checked")
    business = await room.api("/v1/businesses/shandian")
    assert business["state"] == "approved"


async def test_a_refused_action_names_what_is_missing(room: Room) -> None:
    async with room.page("/businesses/incomplete") as page:
        await act(page, "Approve", "in a hurry")
        await expect(page.locator(".notice.bad")).to_contain_text("licence")


async def test_a_dead_letter_is_sent_again(room: Room) -> None:
    ground = room.ground
    async with room.page(f"/webhooks/{ground.seeds.webhook}") as page:
        await expect(page.get_by_role("row", name="HTTP 500")).to_have_count(1)
        await page.get_by_role("button", name="Send again").click()
        await expect(page.get_by_role("status")).to_contain_text("Queued again")
        await until(lambda: [body for body in ground.received if "call.ended" in body])
        await page.reload()
        await expect(page.get_by_text("No dead letter")).to_be_visible()
    assert not [number for number in REAL for body in ground.received if number in body]


async def test_a_number_is_locked_and_unlocked(room: Room) -> None:
    async with room.page("/numbers/700100000020500") as page:
        await act(page, "Lock", "reported")
        await expect(page.get_by_role("status")).to_contain_text("locked")
        await act(page, "Unlock", "was a mistake")
        await expect(page.get_by_role("status")).to_contain_text("unlocked")


async def test_an_address_is_banned_and_heard_again(room: Room) -> None:
    async with room.page("/bans") as page:
        await page.get_by_label("Address").fill("192.0.2.77")
        await page.get_by_role("button", name="Ban").click()
        row = page.get_by_role("row", name="192.0.2.77")
        await row.locator("summary").click()
        await row.get_by_label("Reason").fill("customer's office")
        await row.get_by_role("button", name="Lift").click()
        await expect(page.get_by_role("row", name="192.0.2.77")).to_have_count(0)


async def test_the_audit_log_is_verified(room: Room) -> None:
    async with room.page("/audit") as page:
        await page.get_by_role("button", name="Verify").click()
        await expect(page.get_by_role("status")).to_contain_text("intact")


async def test_everything_works_without_script(room: Room) -> None:
    async with room.page("/bindings", java_script_enabled=False) as page:
        await page.get_by_label("700 number").fill(room.ground.seeds.evil_binding.x)
        await page.get_by_role("button", name="Search").click()
        await page.locator("tbody tr td a").first.click()
        await act(page, "End this binding", "without script")
        await expect(page.get_by_role("status")).to_contain_text("has ended")
    async with room.page("/bindings", java_script_enabled=False) as page:
        await page.get_by_role("link", name="Next page").click()
        await expect(page.locator("tbody tr").first).to_be_visible()


async def test_the_switch_changes_language_and_colours(room: Room) -> None:
    async with room.page("/numbers", "tenant") as page:
        await page.get_by_role("link", name="中文").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("号码")
        await page.get_by_role("link", name="EN").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Numbers")


# -- The API's documentation, which is no page of the console


async def test_the_documentation_sends_a_request_with_a_key_and_loads_nothing_else(room: Room) -> None:
    context = await room.browser.new_context(**ENGLISH)
    page = await context.new_page()
    faults, asked = watch(page), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{room.ground.url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    bearer = page.locator(".auth-container", has_text="bearer")
    await bearer.get_by_role("textbox").fill(room.ground.seeds.tenant)
    await bearer.get_by_role("button", name="Apply credentials").click()
    await page.locator(".modal-ux").get_by_role("button", name="Close").first.click()
    listing = page.locator("#operations-bindings-listBindings")
    await listing.click()
    await listing.get_by_role("button", name="Try it out").click()
    await listing.get_by_role("button", name="Execute").click()
    await expect(listing.locator(".live-responses-table .response-col_status").nth(1)).to_have_text("200")
    await expect(listing.locator(".live-responses-table")).to_contain_text('"business_id": "shunda"')
    assert not faults
    assert {url for url in asked if not url.startswith(f"{room.ground.url}/")} == set()
    assert asked[-1].startswith(f"{room.ground.url}/v1/bindings")
    await context.close()


# -- Recordings


async def test_a_recording_is_played_by_the_page(room: Room) -> None:
    """What the page's policy allows, and the browser can decode."""
    relay, call_id = room.ground.relay, (await room.calls("answered"))[-1]
    path = relay.folder / "relay.db"
    data = capture_of(*speech(CALLER_PORT, a_law(440, 2)), *speech(CALLEE_PORT, a_law(1300, 2), ssrc=8))
    with closing(Writer(path, open_store(path, relay.folder / "relay.key"))) as writer:
        writer.run(RELAY, lambda unit: keep(unit, relay.folder / "var/recordings", call_id, data, "shunda"))
    for key, reason in (("operator", "case 7"), ("tenant", "")):
        async with room.page(f"/calls/{call_id}", key) as page:  # type: ignore[arg-type]
            await page.get_by_role("link", name="Recording", exact=True).click()
            await page.get_by_label("Sides").select_option("stereo")
            if reason:
                await page.locator(".filters [name=reason]").fill(reason)
            await page.get_by_role("button", name="Listen").click()
            seconds = await page.locator("audio").evaluate(
                "sound => new Promise((done, fail) => { sound.oncanplaythrough = () => done(sound.duration);"
                " sound.onerror = () => fail(sound.error.message); sound.preload = 'auto'; sound.load() })"
            )
            assert seconds == pytest.approx(2.0, abs=0.01)
