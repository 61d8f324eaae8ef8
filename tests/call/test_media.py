"""The queue while rtpengine is pending, and its commands. Whole calls: tests/ladder."""

from __future__ import annotations

from relay.call.media import COUNTS_S, MOST_WAITING, Media, Sender
from relay.model.actions import MediaReply, Mediate, RtpCounts
from tests.call.support import FLOW, Parts, ok, peer
from tests.support.stored import ended_record

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 10.0.0.31\r\ns=-\r\nc=IN IP4 10.0.0.31\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
)


def reserving(ground: Parts) -> tuple[Media, list[str]]:
    """A call that reserves an instance, and the order of its steps."""
    media, done = Media(ground.ua, ground.settings.media_check_s, "call"), list[str]()
    media.reserve(lambda _: done.append("reserved"))
    return media, done


def asked(ground: Parts) -> Mediate:
    (command,) = (action for action in ground.outbox.take_actions() if isinstance(action, Mediate))
    return command


def up(ground: Parts) -> Media:
    """A call with an instance."""
    return Media(ground.ua, ground.settings.media_check_s, "call", ("one", "a", "b", ""))


def offers(ground: Parts, media: Media) -> Mediate:
    """The callee's 200 brings an offer. Returns the command."""
    answer = ok("CSeq: 1 INVITE", "Content-Type: application/sdp", body=OFFER)
    media.anchor("offer", Sender("callee", peer(), FLOW.host), answer, lambda side, now: None, lambda now: None, 0.0)
    return asked(ground)


def test_step_runs_at_once_unless_a_command_is_pending() -> None:
    ground = Parts()
    done: list[str] = []
    media = Media(ground.ua, ground.settings.media_check_s, "call")
    assert media.take(lambda _: done.append("at once"), 0.0)
    assert done == ["at once"]


def test_steps_are_queued_in_order() -> None:
    ground = Parts()
    media, done = reserving(ground)
    for step in ("first", "second"):
        assert media.take(lambda _, step=step: done.append(step), 0.0)
    assert done == []
    ground.outbox.mediated(asked(ground).token, MediaReply("one"), 0.0)
    assert done == ["reserved", "first", "second"]


def test_offer_after_a_reservation_may_go_to_any_instance() -> None:
    """The one that answered may be down by now."""
    ground = Parts()
    media, _ = reserving(ground)
    ground.outbox.mediated(asked(ground).token, MediaReply("one"), 0.0)
    assert (media.reserved, media.instance) == (True, "")
    command = offers(ground, media)
    assert (command.command, command.instance) == ("offer", "")
    assert media.suits("2001:db8::6")  # the offer was not in the INVITE
    ground.outbox.mediated(command.token, MediaReply("two", sdp=OFFER), 0.0)
    assert media.instance == "two"


def test_nothing_is_reserved_if_no_instance_answers() -> None:
    ground = Parts()
    media, done = reserving(ground)
    ground.outbox.mediated(asked(ground).token, None, 0.0)
    assert (media.reserved, done) == (False, ["reserved"])


def test_step_that_sends_a_command_blocks_the_others() -> None:
    ground = Parts()
    media, done = reserving(ground)
    media.take(lambda _: media.reserve(lambda _: done.append("again")), 0.0)
    media.take(lambda _: done.append("last"), 0.0)
    ground.outbox.mediated(asked(ground).token, MediaReply("one"), 0.0)
    assert done == ["reserved"]
    ground.outbox.mediated(asked(ground).token, None, 0.0)
    assert done == ["reserved", "again", "last"]


def test_queue_is_bounded() -> None:
    ground = Parts()
    media, done = reserving(ground)
    assert all([media.take(lambda _: done.append("waited"), 0.0) for _ in range(MOST_WAITING)])
    assert not media.take(lambda _: done.append("not taken"), 0.0)
    ground.outbox.mediated(asked(ground).token, None, 0.0)
    assert done == ["reserved", *["waited"] * MOST_WAITING]


def test_end_runs_the_queue() -> None:
    ground = Parts()
    media, done = reserving(ground)
    media.take(lambda _: done.append("waited"), 0.0)
    media.end(None, 0.0)
    assert done == ["reserved", "waited"]
    assert media.over


def test_delete_waits_for_the_pending_command() -> None:
    """An offer arriving after the delete would open a new session."""
    ground = Parts()
    media = Media(ground.ua, ground.settings.media_check_s, "call")
    token = offers(ground, media).token
    media.end(None, 0.0)
    assert ground.outbox.take_actions() == []
    ground.outbox.mediated(token, MediaReply("one"), 0.0)
    assert asked(ground) == Mediate(0, "delete", "call", "one")


def test_call_without_an_instance_is_not_deleted() -> None:
    ground = Parts()
    media = Media(ground.ua, ground.settings.media_check_s, "call")
    heard: list[float] = []
    media.end(heard.append, 5.0)
    assert heard == [5.0]
    assert ground.outbox.take_actions() == []
    assert len(ground.timers) == 0


def test_counts_are_awaited_for_counts_s() -> None:
    ground = Parts()
    media, heard = up(ground), list[float]()
    media.end(heard.append, 5.0)
    command = asked(ground)
    ground.timers.run(5.0 + COUNTS_S)
    assert heard == [5.0 + COUNTS_S]
    ground.outbox.mediated(command.token, MediaReply("one", counts=((media.caller_tag, RtpCounts(9, 1, 2)),)), 9.0)
    assert heard == [5.0 + COUNTS_S]


def test_counts_belong_to_the_side_of_their_tag() -> None:
    ground = Parts()
    media, heard = up(ground), list[float]()
    media.end(heard.append, 5.0)
    counts = (
        (media.callee_tag, RtpCounts(7, None, None)),
        ("other", RtpCounts(1, 1, 1)),
        (media.caller_tag, RtpCounts(9, 1, 2)),
    )
    ground.outbox.mediated(asked(ground).token, MediaReply("one", counts=counts), 5.1)
    assert heard == [5.1]
    record = media.write_counts(ended_record())
    assert (record.caller_packets, record.caller_lost, record.caller_jitter_ms) == (9, 1, 2)
    assert (record.callee_packets, record.callee_lost, record.callee_jitter_ms) == (7, None, None)


def test_first_checks_of_calls_are_spread() -> None:
    ground = Parts(media_check_s=20.0)
    times = []
    for _ in range(2):
        up(ground).watch(lambda _: None, 0.0)
        due = ground.timers.next()
        assert due is not None
        times.append(due)
        ground.timers.run(due)
        ground.outbox.take_actions()
    assert all(10.0 <= when <= 30.0 for when in times)


def test_session_is_the_same_after_a_restart() -> None:
    ground = Parts()
    media = Media(ground.ua, ground.settings.media_check_s, "call", ("one", "a", "b", "en"))
    assert media.state == ("one", "a", "b", "en")
    assert Media(ground.ua, ground.settings.media_check_s, "call", media.state).state == media.state
