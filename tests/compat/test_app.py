"""Signatures, limits and errors of the gateway, by both SDKs."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable

import msgspec
import pytest
from alibabacloud_dyplsapi20170525 import models
from alibabacloud_dyplsapi20170525.client import Client as NewSdk
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config as SdkConfig
from aliyunsdkcore.acs_exception.exceptions import ClientException as SdkClientException
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkdyplsapi.request.v20170525.UnbindSubscriptionRequest import UnbindSubscriptionRequest
from darabonba.exceptions import UnretryableException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.compat.actions import ACTIONS
from relay.service.keys import revoke
from tests.compat.conftest import POOL, A, B, Client, Compat, Json, in_china
from tests.support.addresses import RELAY


def code_of_new(client: Client) -> str:
    """The code that the new SDK raises."""
    with pytest.raises(ClientException) as raised:
        client.ask("UnbindSubs700", pool_key=POOL, subs_id=1, tel_x="700100000070009")
    assert raised.value.code is not None
    return str(raised.value.code)


def code_of_old(client: Client) -> str:
    """The code that the older SDK raises, which has no action of 700 numbers."""
    with pytest.raises(ServerException) as raised:
        client.ask_old("UnbindSubscription", PoolKey=POOL, SubsId=1, SecretNo="700100000070009")
    return str(raised.value.get_error_code())


BOTH = pytest.mark.parametrize("code_of", [code_of_new, code_of_old])
CodeOf = Callable[[Client], str]


@BOTH
def test_a_wrong_secret(compat: Compat, client: Client, code_of: CodeOf) -> None:
    assert code_of(Client(client.address, client.key_id, "0" * 64)) == "SignatureDoesNotMatch"


@BOTH
def test_the_secret_of_the_key_itself_does_not_sign(compat: Compat, code_of: CodeOf) -> None:
    """It is not stored, and so cannot check a signature: SHA-256 of it does."""
    wrong = Client(str(compat.address), compat.key().id, "the-secret-itself")
    assert code_of(wrong) == "SignatureDoesNotMatch"


@BOTH
def test_an_unknown_key(client: Client, code_of: CodeOf) -> None:
    assert code_of(Client(client.address, "0" * 12, client.secret)) == "InvalidAccessKeyId.NotFound"


@BOTH
def test_a_revoked_key(compat: Compat, client: Client, code_of: CodeOf) -> None:
    compat.run(lambda unit: revoke(unit, client.key_id))
    assert code_of(client) == "InvalidAccessKeyId.Inactive"


@BOTH
@pytest.mark.parametrize("ahead_s", [-360, 902])
def test_a_clock_more_than_15_minutes_behind_or_5_ahead(
    compat: Compat, client: Client, code_of: CodeOf, ahead_s: float
) -> None:
    compat.ahead_s = ahead_s
    assert code_of(client) == "InvalidTimeStamp.Expired"


@BOTH
def test_more_requests_than_the_limit(compat: Compat, code_of: CodeOf) -> None:
    compat.limit(requests_per_s=1, burst=1)
    throttled = compat.client("busy")
    throttled.ask("UnbindSubs700", pool_key=POOL, subs_id=1, tel_x="700100000070009")
    assert code_of(throttled) == "Throttling.User"


@BOTH
def test_many_wrong_signatures_are_throttled_by_source(compat: Compat, client: Client, code_of: CodeOf) -> None:
    compat.limit(failures_per_s=1)
    wrong = Client(client.address, client.key_id, "0" * 64)
    assert code_of(wrong) == "SignatureDoesNotMatch"
    assert code_of(wrong) == "Throttling.User"


@pytest.mark.parametrize("field", ["pool_key", "tel_a", "tel_b", "expiration"])
def test_a_missing_parameter(client: Client, field: str) -> None:
    given = {"pool_key": POOL, "tel_a": A, "tel_b": B, "expiration": in_china(hours=1)}
    with pytest.raises(ClientException) as raised:
        client.ask("BindAxb700", **{**given, field: None})
    assert raised.value.code == "Missing" + "".join(word.capitalize() for word in field.split("_"))
    assert raised.value.status_code == 400


def test_a_malformed_parameter_is_not_repeated(client: Client) -> None:
    with pytest.raises(ClientException) as raised:
        client.ask("BindAxb700", pool_key=POOL, tel_a=A, tel_b=B, expiration=in_china(hours=1), call_timeout=A + "x")
    assert raised.value.code == "InvalidCallTimeout"
    assert A not in str(raised.value)


def test_an_action_that_does_not_exist_here(client: Client) -> None:
    with pytest.raises(ClientException) as raised:
        client.ask("BuySecretNo", pool_key=POOL, spec_id=1, city="x")
    assert (raised.value.code, raised.value.status_code) == ("InvalidApi.NotFound", 404)


def test_a_key_without_the_scope(compat: Compat) -> None:
    body = compat.client(scopes=["bindings:read"]).ask("UnbindSubs700", pool_key=POOL, subs_id=1, tel_x="7001")
    assert (body["Code"], body["Success"]) == ("isp.RAM_PERMISSION_DENY", False)


def test_an_operators_key(compat: Compat) -> None:
    key = compat.operator_key()
    operator = Client(str(compat.address), key.id, key.access_key_secret)
    body = operator.ask("UnbindSubs700", pool_key=POOL, subs_id=1, tel_x="7001")
    assert body["Code"] == "isp.RAM_PERMISSION_DENY"


# -- Requests as an SDK sends them, recorded and sent again


class Recorder:
    """Listens as the service would, keeps the bytes of one request, and hangs up."""

    def __init__(self) -> None:
        self._listening = socket.create_server((RELAY, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.taken = b""

    @property
    def address(self) -> str:
        host, port = self._listening.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        connected, _ = self._listening.accept()
        with connected:
            while b"\r\n\r\n" not in self.taken:
                self.taken += connected.recv(65536)
        self._listening.close()

    def request(self) -> bytes:
        self._thread.join(timeout=10)
        return self.taken


def record_new(client: Client) -> bytes:
    recorder = Recorder()
    with pytest.raises(UnretryableException):
        Client(recorder.address, client.key_id, client.secret).ask(
            "UnbindSubs700", pool_key=POOL, subs_id=1, tel_x="700100000070009"
        )
    return recorder.request()


def record_old(client: Client) -> bytes:
    recorder = Recorder()
    with pytest.raises(SdkClientException):
        Client(recorder.address, client.key_id, client.secret).ask_old(
            "UnbindSubscription", PoolKey=POOL, SubsId=1, SecretNo="700100000070009"
        )
    return recorder.request()


def send(client: Client, request: bytes) -> tuple[int, Json]:
    host, _, port = client.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connected:
        connected.sendall(request)
        answer = http.client.HTTPResponse(connected)
        answer.begin()
        document: Json = json.loads(answer.read())
        return answer.status, document


RECORDED = pytest.mark.parametrize("record", [record_new, record_old])
Record = Callable[[Client], bytes]


@RECORDED
def test_a_replayed_request(client: Client, record: Record) -> None:
    request = record(client)
    assert send(client, request)[1]["Code"] == "isv.SUBS_NOT_EXIST"
    status, document = send(client, request)
    assert (status, document["Code"]) == (400, "SignatureNonceUsed")
    assert document.keys() == {"Code", "Message", "RequestId", "HostId"}


@RECORDED
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"SubsId=1", b"SubsId=2"), (b"PoolKey=acme-pool", b"PoolKey=acme-pond"), (b"POST /", b"GET /")],
)
def test_an_altered_request(client: Client, record: Record, old: bytes, new: bytes) -> None:
    request = record(client)
    assert old in request
    status, document = send(client, request.replace(old, new, 1))
    assert (status, document["Code"]) == (400, "SignatureDoesNotMatch")


@RECORDED
def test_a_parameter_given_twice(client: Client, record: Record) -> None:
    _, document = send(client, record(client).replace(b"SubsId=1", b"SubsId=1&SubsId=1", 1))
    assert document["Code"] == "InvalidParameter"


def test_a_body_that_is_not_the_signed_one(client: Client) -> None:
    head, end, _ = record_new(client).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    altered = b"\r\n".join([*lines, b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: 8"])
    _, document = send(client, altered + end + b"SubsId=2")
    assert document["Code"] in ("SignatureDoesNotMatch", "InvalidParameter")


@pytest.mark.parametrize(
    "name", [b"x-acs-action", b"x-acs-date", b"x-acs-signature-nonce", b"x-acs-content-sha256", b"x-acs-version"]
)
def test_a_header_that_is_missing(client: Client, name: bytes) -> None:
    request = record_new(client)
    lines = [line for line in request.split(b"\r\n") if not line.lower().startswith(name + b":")]
    _, document = send(client, b"\r\n".join(lines))
    assert document["Code"] == "MissingParameter"


def test_a_header_that_is_not_signed(client: Client) -> None:
    request = re.sub(rb"x-acs-date;", b"", record_new(client))
    assert send(client, request)[1]["Code"] == "IncompleteSignature"


def test_methods_other_than_get_and_post(client: Client) -> None:
    status, document = send(client, record_old(client).replace(b"POST /", b"DELETE /", 1))
    assert (status, document["Code"]) == (400, "UnsupportedHTTPMethod")


def test_the_new_sdk_with_the_older_signature(client: Client) -> None:
    """As `signature_algorithm="v2"`: the parameters are in a form."""
    config = SdkConfig(
        access_key_id=client.key_id,
        access_key_secret=client.secret,
        endpoint=client.address,
        protocol="http",
        signature_algorithm="v2",
    )
    request = models.UnbindSubs700Request(pool_key=POOL, subs_id=1, tel_x="700100000070009")
    assert NewSdk(config).unbind_subs_700(request).body.code == "isv.SUBS_NOT_EXIST"


def test_a_get_request_by_the_older_sdk(client: Client) -> None:
    request = UnbindSubscriptionRequest()
    request.set_PoolKey(POOL)
    request.set_SubsId("1")
    request.set_SecretNo("700100000070009")
    request.set_method("GET")
    request.set_endpoint(client.address)
    request.set_protocol_type("http")
    assert json.loads(client.old.do_action_with_exception(request))["Code"] == "isv.SUBS_NOT_EXIST"


@pytest.mark.parametrize("name", sorted(ACTIONS))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_value_of_a_parameter_fails_an_action(client: Client, name: str, data: st.DataObject) -> None:
    """Signed, and so read by the action: it answers with a code, whatever the text."""
    text = st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
        st.sampled_from([POOL, A, B, "1", "0", "-1", "true", "700100000070001", in_china(hours=1), str((1 << 63) - 1)]),
    )
    given = {field.encode_name: data.draw(text) for field in msgspec.structs.fields(ACTIONS[name].parameters)}
    status, document = client.ask_raw(name, given)
    assert status in (200, 400)
    assert document["Code"] in ("OK", "0000") or document["Code"].startswith(("isv.", "isp.RAM", "Invalid"))


def test_an_access_key_id_of_odd_signs(client: Client) -> None:
    for key_id in ("\0", "é", "x" * 300):
        _, document = Client(client.address, key_id, client.secret).ask_raw("QuerySubsId", {"PhoneNoX": "1"})
        assert document["Code"] == "InvalidAccessKeyId.NotFound"


def test_what_does_not_parse(client: Client) -> None:
    for target in ("/", "/?%ff=1", "/?Action=BindAxb700"):
        status, document = send(client, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status == 400
        assert document["Code"].startswith(("Missing", "InvalidParameter"))
