"""rtpengine commands over real UDP, against a small scripted instance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncio_dgram
import pytest

from relay.model.actions import MediaReply, Mediate, RtpCounts
from relay.model.settings import RtpengineAddress
from relay.net import ng, rtpengine
from relay.net.rtpengine import Instance, NoAnswer, Rtpengine
from tests.net.support import until
from tests.support.addresses import free

SDP = b"v=0\r\n"
SOUND = b"RIFF" + bytes(range(256)) * 200  # 51 kB
OFFER = Mediate(7, "offer", "call", "", "ta", "", SDP)
Say = Callable[[dict[str, Any]], dict[str, Any] | bytes | None]


def agrees(message: dict[str, Any]) -> dict[str, Any]:
    return {"result": "pong"} if message["command"] == "ping" else {"result": "ok", "sdp": "v=1\r\n"}


class Engine:
    """An rtpengine's end of the protocol. `say` returns the answer to a command, or None."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.heard: list[tuple[bytes, dict[str, Any]]] = []
        self.address = RtpengineAddress("", *free("127.0.0.40"))
        self.address = self.address._replace(name=f"udp:{self.address.host}:{self.address.port}")
        self._stream: asyncio_dgram.aio.DatagramServer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stream = await asyncio_dgram.bind((self.address.host, self.address.port))
        self._task = asyncio.create_task(self._run(self._stream))

    async def stop(self) -> None:
        assert self._stream is not None
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._stream.close()

    async def _run(self, stream: asyncio_dgram.aio.DatagramServer) -> None:
        while True:
            data, source = await stream.recv()
            cookie, _, text = data.partition(b" ")
            packed = text.startswith(b"d")
            message = ng.decode_bencode(text) if packed else json.loads(text)
            self.heard.append((cookie, message))
            answer = self.say(message)
            if answer is not None:
                write = ng.encode_bencode if packed else lambda value: json.dumps(value).encode()
                said = answer if isinstance(answer, bytes) else write(answer)
                await stream.send(b"%b %b" % (cookie, said), source)

    def commands(self) -> list[dict[str, Any]]:
        return [message for _, message in self.heard if message["command"] != "ping"]


class Bench:
    def __init__(self, says: tuple[Say, ...]) -> None:
        self.engines = [Engine(say) for say in says]
        self.reports: list[tuple[str, dict[str, object]]] = []
        addresses = [engine.address for engine in self.engines]
        report = lambda event, fields: self.reports.append((event, fields))  # noqa: E731
        self.client = Rtpengine(addresses, report, {("", "busy"): SOUND, ("en", "busy"): SOUND + b"!"})

    async def ask(self, command: Mediate = OFFER) -> MediaReply | None:
        answers: asyncio.Queue[tuple[int, MediaReply | None]] = asyncio.Queue()
        self.client.mediate(command, lambda token, answer: answers.put_nowait((token, answer)))
        token, answer = await asyncio.wait_for(answers.get(), 20)
        assert token == command.token
        return answer

    def events(self) -> list[str]:
        return [event for event, _ in self.reports]


@asynccontextmanager
async def bench(*says: Say, started: bool = True) -> AsyncIterator[Bench]:
    made = Bench(says or (agrees,))
    if started:
        for engine in made.engines:
            await engine.start()
    await made.client.open()
    try:
        yield made
    finally:
        await made.client.close()
        for engine in made.engines:
            if engine._stream is not None:
                await engine.stop()


async def test_an_offer_and_its_answer() -> None:
    async with bench() as b:
        (engine,) = b.engines
        assert await b.ask() == MediaReply(engine.address.name, sdp=b"v=1\r\n")
        (message,) = engine.commands()
        assert (message["command"], message["call-id"], message["from-tag"]) == ("offer", "call", "ta")
        assert message["sdp"] == SDP.decode()
        assert "to-tag" not in message
        assert (message["ICE"], message["DTLS"], message["generate RTCP"]) == ("remove", "off", "on")
        assert "origin" in message["replace"]


async def test_packets_count_from_the_sender_s_own_address_only() -> None:
    """That of its SDP, or, where the address has to be learned, that of its first packet."""
    async with bench() as b:
        for command in (OFFER, OFFER._replace(learned=True)):
            await b.ask(command)
        written, learned = b.engines[0].commands()
        assert (written["endpoint-learning"], learned["endpoint-learning"]) == ("off", "immediate")
        for message in (written, learned):
            assert "strict-source" in message["flags"]


async def test_an_offer_across_address_families_names_the_other_family() -> None:
    async with bench() as b:
        await b.ask(OFFER)
        await b.ask(OFFER._replace(family="IP6"))
        same, other = b.engines[0].commands()
        assert "address family" not in same
        assert other["address family"] == "IP6"


async def test_an_answer_names_both_tags_and_a_delete_has_no_delay() -> None:
    async with bench() as b:
        (engine,) = b.engines
        name = engine.address.name
        await b.ask(Mediate(8, "answer", "call", name, "ta", "tb", SDP))
        await b.ask(Mediate(9, "delete", "call", name))
        answer, delete = engine.commands()
        assert (answer["from-tag"], answer["to-tag"]) == ("ta", "tb")
        assert delete == {"command": "delete", "call-id": "call", "delete-delay": 0}


async def test_an_offer_without_a_second_side() -> None:
    async with bench() as b:
        for command in (OFFER, Mediate(8, "answer", "call", b.engines[0].address.name, "ta", "tb", SDP)):
            await b.ask(command._replace(alone=True))
        offer, answer = b.engines[0].commands()
        for message in (offer, answer):
            assert (message["media-echo"], message["generate RTCP"], message["ICE"]) == ("blackhole", "off", "remove")
        assert offer["transport-protocol"] == "RTP/AVP"
        assert "transport-protocol" not in answer


@pytest.mark.parametrize(("tag", "whom"), [("ta", {"from-tag": "ta"}), ("", {"all": "all"})])
async def test_play_media_carries_the_sound_and_returns_its_length(tag: str, whom: dict[str, str]) -> None:
    def say(message: dict[str, Any]) -> dict[str, Any]:
        return {"duration": 5137, "result": "ok"} if message["command"] == "play media" else agrees(message)

    async with bench(say) as b:
        name = b.engines[0].address.name
        play = Mediate(5, "play", "call", name, tag, sound="busy")
        assert await b.ask(play) == MediaReply(name, lasts_s=5.137)
        (message,) = b.engines[0].commands()
        assert message.pop("blob").encode("utf-8", "surrogateescape") == SOUND
        assert message == {"command": "play media", "call-id": "call", "flags": ["block-egress"], **whom}
        await b.ask(play._replace(language="en"))
        _, message = b.engines[0].commands()
        assert message["blob"].encode("utf-8", "surrogateescape") == SOUND + b"!"


async def test_a_refused_play_media_fails() -> None:
    def say(message: dict[str, Any]) -> dict[str, Any]:
        if message["command"] == "ping":
            return {"result": "pong"}
        return {"result": "error", "error-reason": "Failed to start media playback from blob"}

    async with bench(say) as b:
        assert await b.ask(Mediate(5, "play", "call", b.engines[0].address.name, sound="busy")) is None
        assert "rtpengine.refused" in b.events()


@pytest.mark.parametrize("on", [True, False])
async def test_a_recording_is_confirmed_by_a_query(on: bool) -> None:
    """rtpengine answers "ok" to the command even without a recording folder."""

    def say(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["command"] == "query":
            return {"result": "ok", **({"recording": {"call recording": 1, "forwarding": 0}} if on else {})}
        return {"result": "ok"} if message["command"] == "start recording" else agrees(message)

    async with bench(say) as b:
        name = b.engines[0].address.name
        assert await b.ask(Mediate(5, "record", "call", name)) == (MediaReply(name) if on else None)
        assert [message["command"] for message in b.engines[0].commands()] == ["start recording", "query"]
        assert b.events() == ([] if on else ["rtpengine.refused"])


@pytest.mark.parametrize("lost", ["start recording", "query"])
async def test_an_unknown_call_is_not_recorded(lost: str) -> None:
    def say(message: dict[str, Any]) -> dict[str, Any]:
        unknown = {"result": "error", "error-reason": rtpengine.UNKNOWN_CALL}
        return unknown if message["command"] == lost else {"result": "ok"}

    async with bench(say) as b:
        answer = await b.ask(Mediate(5, "record", "call", b.engines[0].address.name))
        assert answer is not None and not answer.known


async def test_a_command_with_token_0_has_no_callback() -> None:
    called: list[int] = []
    async with bench() as b:
        (engine,) = b.engines
        b.client.mediate(Mediate(0, "delete", "call", engine.address.name), lambda token, _: called.append(token))
        await until(engine.commands)
        assert await b.ask(OFFER._replace(instance=engine.address.name)) is not None  # so that answer has come too
        assert [message["command"] for message in engine.commands()] == ["delete", "offer"]
    assert called == []


async def test_a_lost_command_is_retransmitted_with_the_same_cookie() -> None:
    lost = iter([None, None])

    def say(message: dict[str, Any]) -> dict[str, Any] | None:
        return agrees(message) if message["command"] == "ping" else next(lost, agrees(message))

    async with bench(say) as b:
        assert await b.ask() is not None
        cookies = {cookie for cookie, message in b.engines[0].heard if message["command"] == "offer"}
        assert len(b.engines[0].commands()) == 3
        assert len(cookies) == 1


async def test_calls_go_to_the_instances_round_robin() -> None:
    async with bench(agrees, agrees) as b:
        for _ in range(4):
            await b.ask()
        assert [len(engine.commands()) for engine in b.engines] == [2, 2]


async def test_a_call_stays_on_its_instance() -> None:
    async with bench(agrees, agrees) as b:
        name = b.engines[1].address.name
        for _ in range(3):
            assert await b.ask(OFFER._replace(instance=name)) == MediaReply(name, sdp=b"v=1\r\n")
        assert not b.engines[0].commands()


async def test_a_first_offer_without_answer_goes_to_the_next_instance() -> None:
    def silent(message: dict[str, Any]) -> dict[str, Any] | None:
        return {"result": "pong"} if message["command"] == "ping" else None

    async with bench(silent, silent, agrees) as b:
        answer = await b.ask()
        assert answer is not None
        assert answer.instance == b.engines[2].address.name
        assert "rtpengine.down" in b.events()


async def test_a_refused_first_offer_goes_to_the_next_instance() -> None:
    def full(message: dict[str, Any]) -> dict[str, Any]:
        return {"result": "error", "error-reason": "Parallel session limit reached"}

    async with bench(full, full, agrees) as b:
        answer = await b.ask()
        assert answer is not None
        assert answer.instance == b.engines[2].address.name
        assert ("rtpengine.refused", "Parallel session limit reached") in [
            (event, fields.get("why")) for event, fields in b.reports
        ]


@pytest.mark.parametrize("said", [b"nonsense", b"[]", b'{"sdp": "v=1"}', b"\xff", b"d6:result", b"d3:sdp2:oke"])
async def test_an_invalid_answer_counts_as_none(said: bytes) -> None:
    async with bench(lambda message: agrees(message) if message["command"] == "ping" else said) as b:
        assert await b.ask() is None
        assert b.client.statistics()["rtpengine_failures"] == 1


async def test_an_sdp_with_invalid_utf8_is_returned_unchanged() -> None:
    said = b"d6:result2:ok3:sdp3:\xff\xfe\xfde"
    async with bench(lambda message: agrees(message) if message["command"] == "ping" else said) as b:
        answer = await b.ask()
        assert answer is not None
        assert answer.sdp == b"\xff\xfe\xfd"


async def test_a_command_fails_without_an_instance_that_answers() -> None:
    async with bench(started=False) as b:
        assert await b.ask() is None
        assert await b.ask() is None
        assert b.client.statistics() == {"rtpengines_up": 0, "rtpengine_failures": 2}


async def test_a_recovered_instance_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtpengine, "PING_S", 0.01)
    async with bench(started=False) as b:
        await until(lambda: "rtpengine.down" in b.events())
        await b.engines[0].start()
        await until(lambda: "rtpengine.up" in b.events())
        assert await b.ask() is not None


class Deaf:
    """An rtpengine that answers only pings until `hears`."""

    def __init__(self) -> None:
        self.hears = False

    def __call__(self, message: dict[str, Any]) -> dict[str, Any] | None:
        return agrees(message) if self.hears or message["command"] == "ping" else None


def deletions(engine: Engine) -> set[str]:
    return {message["call-id"] for message in engine.commands() if message["command"] == "delete"}


async def test_an_unanswered_query_does_not_take_an_instance_down() -> None:
    """The call's parties can make the answer longer than a datagram."""
    async with bench(Deaf()) as b:
        name = b.engines[0].address.name
        for command in (Mediate(3, "query", "call", name), Mediate(4, "delete", "call", name)):
            assert await b.ask(command) is None
        assert b.client.statistics()["rtpengines_up"] == 1
        assert "rtpengine.down" not in b.events()


async def test_a_call_whose_offer_went_unanswered_is_deleted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offer may have been executed, and would occupy ports."""
    monkeypatch.setattr(rtpengine, "PING_S", 0.01)
    deaf = Deaf()
    async with bench(deaf) as b:
        assert await b.ask() is None
        assert not deletions(b.engines[0])
        deaf.hears = True
        await until(lambda: deletions(b.engines[0]) == {"call"})


async def test_a_call_that_the_instance_took_after_all_is_not_deleted() -> None:
    async with bench(lambda message: None if message["command"] == "ping" else agrees(message)) as b:
        instance = b.client._instances[b.engines[0].address.name]
        for call in (OFFER.call, "another"):
            instance.forget_later(call)
        assert await b.ask() is not None
        await instance.forget_untold()
        assert deletions(b.engines[0]) == {"another"}


async def test_an_unconfirmed_deletion_is_repeated_on_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtpengine, "PING_S", 0.01)
    async with bench(started=False) as b:
        (engine,) = b.engines
        await until(lambda: "rtpengine.down" in b.events())
        assert await b.ask(Mediate(4, "delete", "ended", engine.address.name)) is None
        await engine.start()
        await until(lambda: deletions(engine) == {"ended"})
        told = len(engine.commands())
        heard = len(engine.heard)
        await until(lambda: len(engine.heard) > heard + 3)
        assert len(engine.commands()) == told  # once


async def test_a_command_for_an_unconfigured_instance_fails() -> None:
    async with bench() as b:
        assert await b.ask(OFFER._replace(instance="udp:127.0.0.1:1")) is None


async def test_an_unknown_call_is_reported_as_unknown() -> None:
    async with bench(lambda _: {"result": "error", "error-reason": "Unknown call-id"}) as b:
        name = b.engines[0].address.name
        assert await b.ask(Mediate(3, "query", "call", name)) == MediaReply(name, known=False)


async def test_counts_of_each_side() -> None:
    def stream(kind: str, packets: int, *ssrcs: int) -> dict[str, Any]:
        ingress = [{"SSRC": ssrc, "packets": packets} for ssrc in ssrcs]
        return {"flags": [kind, "filled"], "stats": {"packets": packets, "bytes": 1}, "ingress SSRCs": ingress}

    answer = {
        "result": "ok",
        "tags": {
            "ta": {"medias": [{"streams": [stream("RTP", 400, 11, 12), stream("RTCP", 9)]}]},
            "tb": {"medias": [{"streams": [stream("RTP", 300, 21)]}, {"streams": [stream("RTP", 5)]}]},
        },
        "SSRC": {
            "11": {"cumulative loss": 3, "average MOS": {"jitter": 10, "samples": 3, "MOS": 43}},
            "12": {"cumulative loss": 1, "average MOS": {"jitter": 2, "samples": 1}},
        },
    }
    async with bench(lambda _: answer) as b:
        got = await b.ask(Mediate(4, "delete", "call", b.engines[0].address.name))
        assert got is not None
        # The reports of "ta" about the other side's media are listed under its own SSRC.
        assert dict(got.counts) == {"ta": RtpCounts(400, None, None), "tb": RtpCounts(305, 4, 8)}


async def test_open_commands_are_answered_on_close() -> None:
    answers: list[MediaReply | None] = []
    async with bench(lambda message: agrees(message) if message["command"] == "ping" else None) as b:
        b.client.mediate(OFFER, lambda _, answer: answers.append(answer))
        await until(b.engines[0].commands)
    assert answers == [None]


# -- Scheduled deletions of one rtpengine


async def test_scheduled_deletions_are_limited_and_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtpengine, "MOST_UNTOLD", 2)
    engine = Engine(agrees)
    await engine.start()
    instance = Instance(engine.address)
    await instance.open()
    for number in range(4):
        instance.forget_later(f"call {number}")
    await instance.forget_untold()
    assert deletions(engine) == {"call 2", "call 3"}
    await instance.close()
    await engine.stop()


async def test_commands_go_unanswered_without_a_route() -> None:
    with pytest.raises(NoAnswer):
        await Instance(Engine(agrees).address).ask({"command": "ping"})
