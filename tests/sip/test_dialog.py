"""Dialogs: RFC 3261 12, as caller and as callee, with loose and strict routers."""

from __future__ import annotations

import pytest

from relay.errors import ParseError, ProtocolError
from relay.sip.dialog import Dialog
from relay.sip.headers import NameAddr, parse_name_addr
from relay.sip.message import Request
from tests.sip.virtual_time import request, response

CONTACT = "Contact: <sip:138@192.0.2.1:5062;transport=tcp>\r\n"
LOOSE = "Record-Route: <sip:p1.test;lr>, <sip:p2.test:5070;lr;x=1>;y=2\r\nRecord-Route: <sip:p3.test;lr>\r\n"
STRICT = "Record-Route: <sip:strict.test;maddr=192.0.2.9;method=INVITE>, <sip:p2.test;lr>\r\n"


def as_uas(more: str = CONTACT, uri: str = "sip:70010000001@relay.test") -> Dialog:
    return Dialog.as_uas(request("INVITE", uri=uri, cseq=7, more=more), "ours")


def as_uac(
    more: str = CONTACT, *, status: int = 200, to_tag: str = "callee", remote_uri: str = "sip:139@b.test"
) -> Dialog:
    return Dialog.as_uac(
        call_id="c2",
        local_tag="ours",
        local_uri="sip:70010000001@relay.test",
        remote_uri=remote_uri,
        local_cseq=1,
        response=response(status, to_tag=to_tag, more=more),
    )


def parts(dialog: Dialog) -> dict[str, object]:
    """What the dialog holds. `dir` names it in the compiled build too."""
    values = {name: getattr(dialog, name) for name in dir(dialog) if not name.startswith("_")}
    return {name: value for name, value in values.items() if not callable(value)}


def contact(text: str) -> NameAddr:
    return parse_name_addr(text)


# -- creation


def test_uas_dialog_is_built_from_the_request() -> None:
    """RFC 3261 12.1.1."""
    dialog = as_uas(CONTACT + LOOSE)
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("c1@phone.test", "ours", "caller")
    assert (dialog.local_uri, dialog.remote_uri) == ("sip:70010000001@relay.test", "sip:138@phone.test")
    assert (dialog.local_cseq, dialog.remote_cseq) == (0, 7)
    assert dialog.remote_target == "sip:138@192.0.2.1:5062;transport=tcp"
    assert dialog.route_set == ("<sip:p1.test;lr>", "<sip:p2.test:5070;lr;x=1>;y=2", "<sip:p3.test;lr>")
    assert not dialog.confirmed
    assert not dialog.secure


def test_uac_dialog_is_built_from_the_response_with_the_route_set_reversed() -> None:
    """RFC 3261 12.1.2."""
    dialog = as_uac(CONTACT + LOOSE, status=180)
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("c2", "ours", "callee")
    assert (dialog.local_uri, dialog.remote_uri) == ("sip:70010000001@relay.test", "sip:139@b.test")
    assert (dialog.local_cseq, dialog.remote_cseq) == (1, None)
    assert dialog.remote_target == "sip:138@192.0.2.1:5062;transport=tcp"
    assert dialog.route_set == ("<sip:p3.test;lr>", "<sip:p2.test:5070;lr;x=1>;y=2", "<sip:p1.test;lr>")
    assert not dialog.confirmed


@pytest.mark.parametrize(
    "more",
    [
        "",
        "Contact: <tel:+8613800000000>\r\n",
        "Contact: *\r\n",
        "Contact: <sip:>\r\n",
        "Contact: nonsense\r\n",
        CONTACT + "Record-Route: nonsense\r\n",
        CONTACT + "Record-Route: <tel:123>\r\n",
        CONTACT + "Record-Route: <sip:[::z]>\r\n",
    ],
)
def test_request_without_a_usable_contact_or_route_is_400(more: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        as_uas(more)
    assert caught.value.status == 400


@pytest.mark.parametrize("more", ["Contact: <tel:+86138>\r\n", "Contact: nonsense\r\n", "Record-Route: nonsense\r\n"])
def test_response_without_a_usable_contact_or_route_is_an_error(more: str) -> None:
    with pytest.raises((ProtocolError, ParseError)):
        as_uac(more)


def test_requests_go_to_the_invites_target_when_the_response_has_no_contact() -> None:
    dialog = as_uac("", status=180)
    assert dialog.remote_target == dialog.request_uri == "sip:139@b.test"
    assert dialog.next_hop.host == "b.test"


@pytest.mark.parametrize(
    ("uri", "secure"), [("sips:1@relay.test", True), ("SIPS:1@relay.test", True), ("sip:sips", False)]
)
def test_dialog_is_secure_when_its_invite_went_to_a_sips_uri(uri: str, secure: bool) -> None:
    assert as_uas(uri=uri).secure is secure
    assert as_uac(remote_uri=uri).secure is secure


def test_an_rfc_2543_peer_has_no_tag() -> None:
    dialog = as_uac(to_tag="")
    assert dialog.remote_tag == ""
    assert "To: <sip:139@b.test>\r\n" in dialog.request_head


# -- requests in the dialog


def test_request_head_holds_route_from_to_and_call_id() -> None:
    assert as_uas().request_head == (
        "From: <sip:70010000001@relay.test>;tag=ours\r\n"
        "To: <sip:138@phone.test>;tag=caller\r\n"
        "Call-ID: c1@phone.test\r\n"
    )


def test_display_names_of_the_peer_are_not_repeated() -> None:
    invite = request("INVITE", more=CONTACT)
    headers = [(n, f'"Zhang, San" {v}' if n == "from" else v) for n, v in invite.headers]
    invite = Request.of(invite.method, invite.uri, headers)
    assert "Zhang" not in Dialog.as_uas(invite, "ours").request_head


def test_requests_go_to_the_target_without_a_route_set() -> None:
    dialog = as_uas()
    assert dialog.request_uri == "sip:138@192.0.2.1:5062;transport=tcp"
    assert (dialog.next_hop.host, dialog.next_hop.port) == ("192.0.2.1", 5062)
    assert "Route" not in dialog.request_head


def test_loose_router_gets_all_routes_and_the_target() -> None:
    dialog = as_uas(CONTACT + LOOSE)
    assert dialog.request_uri == dialog.remote_target
    assert dialog.next_hop.host == "p1.test"
    assert dialog.request_head.startswith(
        "Route: <sip:p1.test;lr>\r\nRoute: <sip:p2.test:5070;lr;x=1>;y=2\r\nRoute: <sip:p3.test;lr>\r\nFrom: "
    )


def test_strict_router_gets_the_target_as_last_route() -> None:
    """RFC 3261 12.2.1.1, the second case; what may not stand in a Request-URI is left out (19.1.1)."""
    dialog = as_uas(CONTACT + STRICT)
    assert dialog.request_uri == "sip:strict.test;maddr=192.0.2.9"
    assert dialog.next_hop.host == "strict.test"
    assert dialog.request_head.startswith(
        "Route: <sip:p2.test;lr>\r\nRoute: <sip:138@192.0.2.1:5062;transport=tcp>\r\nFrom: "
    )


def test_lr_counts_in_any_spelling() -> None:
    for router in ("<sip:p.test;lr=on>", "<sip:p.test;LR>", "<sip:p.test;a=b;lr;c>"):
        assert as_uas(f"{CONTACT}Record-Route: {router}\r\n").request_uri == "sip:138@192.0.2.1:5062;transport=tcp"
    assert as_uas(f"{CONTACT}Record-Route: <sip:p.test>;lr\r\n").request_uri == "sip:p.test"  # not the URI's


def test_headers_and_method_of_a_contact_are_not_in_the_request_uri() -> None:
    dialog = as_uas("Contact: <sip:138@192.0.2.1;ob;method=BYE?Subject=x>\r\n")
    assert dialog.request_uri == "sip:138@192.0.2.1;ob"


def test_each_of_our_requests_has_the_next_cseq() -> None:
    dialog = as_uac()
    assert [dialog.next_cseq(), dialog.next_cseq()] == [2, 3]
    assert as_uas().next_cseq() == 1


# -- requests of the peer


def test_peer_request_with_an_old_cseq_is_refused() -> None:
    """RFC 3261 12.2.2. Gaps are allowed."""
    dialog = as_uas()
    dialog.receive_cseq(8)
    dialog.receive_cseq(20)
    for late in (20, 19, 1):
        with pytest.raises(ProtocolError) as caught:
            dialog.receive_cseq(late)
        assert caught.value.status == 500
    dialog.receive_cseq(21)


def test_first_request_of_a_callee_may_have_any_cseq() -> None:
    dialog = as_uac()
    dialog.receive_cseq(0)
    with pytest.raises(ProtocolError):
        dialog.receive_cseq(0)


def test_cseqs_of_both_sides_are_independent() -> None:
    dialog = as_uac()
    dialog.receive_cseq(500)
    assert dialog.next_cseq() == 2


# -- the target


def test_new_contact_changes_the_target_but_not_the_routes() -> None:
    dialog = as_uas(CONTACT + LOOSE)
    head = dialog.request_head
    dialog.refresh_target(contact("<sip:138@192.0.2.77>"))
    assert dialog.remote_target == dialog.request_uri == "sip:138@192.0.2.77"
    assert dialog.next_hop.host == "p1.test"
    assert dialog.request_head == head


def test_new_target_is_the_last_route_for_a_strict_router() -> None:
    dialog = as_uas(CONTACT + STRICT)
    assert "192.0.2.1:5062" in dialog.request_head
    dialog.refresh_target(contact("<sip:138@192.0.2.77>"))
    assert "Route: <sip:138@192.0.2.77>\r\nFrom: " in dialog.request_head
    assert "192.0.2.1:5062" not in dialog.request_head


def test_new_target_is_the_next_hop_without_routes() -> None:
    dialog = as_uas()
    dialog.refresh_target(contact("<sip:138@192.0.2.77:5099>"))
    assert (dialog.next_hop.host, dialog.next_hop.port) == ("192.0.2.77", 5099)


@pytest.mark.parametrize("useless", [None, NameAddr("", "tel:+86138", {}), NameAddr("", "sip:", {})])
def test_unusable_contact_leaves_the_target_unchanged(useless: NameAddr | None) -> None:
    dialog = as_uas()
    dialog.refresh_target(useless)
    assert dialog.remote_target == "sip:138@192.0.2.1:5062;transport=tcp"
    assert dialog.next_hop.host == "192.0.2.1"


# -- the 2xx


def test_the_2xx_confirms_an_early_dialog_with_its_own_routes_and_target() -> None:
    """RFC 3261 13.2.2.4."""
    dialog = as_uac(CONTACT + LOOSE, status=180)
    assert "p3.test" in dialog.request_head
    dialog.update_from_2xx(response(200, more="Contact: <sip:139@192.0.2.5>\r\nRecord-Route: <sip:only.test;lr>\r\n"))
    assert dialog.confirmed
    assert dialog.route_set == ("<sip:only.test;lr>",)
    assert dialog.remote_target == "sip:139@192.0.2.5"
    assert dialog.request_head.startswith("Route: <sip:only.test;lr>\r\nFrom: ")


def test_2xx_equal_to_the_180_only_confirms_the_dialog() -> None:
    dialog = as_uac(CONTACT + LOOSE, status=180)
    before = dialog.request_head, dialog.request_uri, dialog.next_hop
    dialog.update_from_2xx(response(200, more=CONTACT + LOOSE))
    assert (dialog.request_head, dialog.request_uri, dialog.next_hop) == before
    assert dialog.confirmed


def test_2xx_without_contact_keeps_the_target_and_without_routes_drops_them() -> None:
    dialog = as_uac(CONTACT + LOOSE, status=180)
    dialog.update_from_2xx(response(200))
    assert dialog.confirmed
    assert dialog.route_set == ()
    assert dialog.next_hop.host == "192.0.2.1"


def test_2xx_in_a_confirmed_dialog_refreshes_only_the_target() -> None:
    dialog = as_uac(CONTACT + LOOSE)
    dialog.confirmed = True
    dialog.update_from_2xx(response(200, more="Contact: <sip:139@192.0.2.5>\r\nRecord-Route: <sip:late.test;lr>\r\n"))
    assert dialog.remote_target == "sip:139@192.0.2.5"
    assert dialog.route_set[0] == "<sip:p3.test;lr>"


@pytest.mark.parametrize("more", ["Contact: <tel:+86138>\r\n", "Contact: nonsense\r\n", "Record-Route: <tel:1>\r\n"])
def test_unusable_2xx_leaves_the_dialog_unchanged(more: str) -> None:
    dialog = as_uac(CONTACT + LOOSE, status=180)
    before = parts(dialog)
    with pytest.raises((ProtocolError, ParseError)):
        dialog.update_from_2xx(response(200, more=more))
    assert parts(dialog) == before
