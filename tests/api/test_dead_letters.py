"""Dead letters over HTTP: sent again, also many by one request, each once."""

from __future__ import annotations

import pytest

from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import dead_letter
from tests.api.conftest import Api

URL = "https://platform.example/events"


async def test_dead_letters_are_listed_and_sent_again(api: Api) -> None:
    company = await api.company("acme")
    webhook = await company.post("/v1/webhooks", {"url": URL})
    path = f"/v1/webhooks/{webhook['id']}"
    tested = await company.post(f"{path}/test", None, 200)

    def give_up(unit: UnitOfWork) -> None:
        seqs = [seq for (seq,) in unit.connection.execute("SELECT seq FROM outbox")]
        dead_letter(unit, seqs, "HTTP 500")

    await api.run(give_up)
    (dead,) = (await company.get(f"{path}/dead"))["items"]
    assert (dead["event_id"], dead["last_error"]) == (tested["event_id"], "HTTP 500")
    assert "seq" not in dead  # one sequence numbers the events of all business users
    assert await company.post(f"{path}/dead/resend", {"events": [dead["event_id"]]}, 200) == {"resent": 1}
    assert (await company.get(f"{path}/dead"))["items"] == []


async def test_many_dead_letters_are_sent_again_by_one_request(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.events.webhooks.AT_ONCE", 2)
    company = await api.company("acme")
    path = f"/v1/webhooks/{(await company.post('/v1/webhooks', {'url': URL}))['id']}"
    for _ in range(5):
        await company.post(f"{path}/test", None, 200)
    give_up = "UPDATE outbox SET dead_at = 1"
    await api.run(lambda unit: unit.connection.execute(give_up))
    asked = ("POST", f"{path}/dead/resend")
    answers = [await company.http.request(*asked, json={}, headers={"idempotency-key": "k1"})]
    assert (await company.get(f"{path}/dead"))["items"] == []
    await api.run(lambda unit: unit.connection.execute(give_up))
    answers.append(await company.http.request(*asked, json={}, headers={"idempotency-key": "k1"}))
    assert [answer.json() for answer in answers] == [{"resent": 5}] * 2
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"]
    assert len((await company.get(f"{path}/dead"))["items"]) == 5
