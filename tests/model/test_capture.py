import msgspec
import pytest

from relay.model.capture import CapturedCall, CapturedDialog, CapturedMessage, Mark, decode, encode, registrations_of

_CALL = CapturedCall(
    "01" * 16,
    (CapturedDialog("a@192.0.2.7", "caller", "pbx"), CapturedDialog("0f" * 8, "callee", "carrier")),
    (
        CapturedMessage(1_700_000_000_000_001, False, "udp", "127.0.0.1:5060", "127.0.0.2:5060", b"INVITE \xff\x00"),
        CapturedMessage(1_700_000_000_000_002, True, "tls", "[::1]:5061", "[2001:db8::7]:5061", b""),
    ),
    (Mark(1_700_000_000_000_003, "media offer"),),
    lost=3,
)


def test_a_captured_call_is_decoded_as_it_was_encoded() -> None:
    assert decode(encode(_CALL)) == _CALL


@pytest.mark.parametrize("data", [b"", b"\xc1", encode(_CALL)[:-1], msgspec.msgpack.encode(["id"])])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(data)


def test_registrations_are_kept_by_peer() -> None:
    assert registrations_of("carrier") == "register:carrier"
