"""Call ladders as a telephony engineer draws them, converted to SIPp scenarios.

One step per line, seen from the ladder's phone:

    > INVITE sdp              sends; `sdp` (or `sdp=sendonly`) adds a body, `dtmf` an application/dtmf-relay one,
                          `text=WORD` a text/plain one
        Require: 100rel       indented: header lines of the message above, verbatim
    < 100?                    receives; "?": optional
    < 183 save=RSeq           receives, and keeps that header's value as [$RSeq]
    > 487 to INVITE           answers the last INVITE received instead of the last request received
    < 481? last               if this comes instead, the ladder ends
    < 401 challenge           receives a challenge, which `[authentication username=… password=…]` answers later
    > INVITE fresh            sends a new INVITE, without a To tag; likewise `< INVITE fresh`
    < INVITE proves=u:p       receives it with valid credentials of user u with password p, else fails
    pause 200                 milliseconds
    pause [field2]            milliseconds, from the file of numbers
    timewait 2000             the call is over; retransmissions are still answered for 2000 ms

A caller's ladder begins with a sent request, a callee's with a received one. The contents of messages are checked from
SIPp's message log (`tests.support.sipp`), not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import quoteattr

CALLER_NUMBER = "[field0]"
DIALLED_NUMBER = "[field1]"
RETRANSMIT_AFTER_MS = 500
_END = "1"

REASONS = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 302: "Moved Temporarily", 401: "Unauthorized",
    404: "Not Found", 407: "Proxy Authentication Required", 408: "Request Timeout",
    480: "Temporarily Unavailable", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
    491: "Request Pending", 500: "Server Internal Error", 503: "Service Unavailable", 603: "Decline",
}  # fmt: skip

SDP = """\
v=0
o=u[call_number] 53655765 2353687637 IN IP[media_ip_type] [media_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 0 101
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a={direction}"""

DTMF = """\
Signal=5
Duration=160"""


@dataclass
class Step:
    """One line of a ladder."""

    direction: str  # ">", "<", "pause", "timewait"
    name: str  # a method, a status, or milliseconds
    optional: bool = False
    options: dict[str, str] = field(default_factory=dict)
    headers: list[str] = field(default_factory=list)

    @property
    def is_response(self) -> bool:
        return self.name.isdigit()


def parse_ladder(text: str) -> list[Step]:
    """Raises ValueError for an invalid line."""
    steps: list[Step] = []
    lines = [line for line in text.splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    for line in lines:
        if line[margin] == " ":
            steps[-1].headers.append(line.strip())
            continue
        words = line.replace(" to ", " to=").split()
        if words[0] not in (">", "<", "pause", "timewait") or len(words) < 2:
            raise ValueError(f"no step of a ladder: {line.strip()}")
        direction, name, *rest = words
        options = dict(option.partition("=")[::2] for option in rest)
        steps.append(Step(direction, name.rstrip("?"), name.endswith("?"), options))
    return steps


def scenario(name: str, ladder: str) -> str:
    """The SIPp XML of a ladder."""
    return _Compiler(parse_ladder(ladder)).compile(name)


class _Compiler:
    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._transactions = _transactions(steps)
        self._calling = steps[0].direction == ">"
        self._cseq = 0
        self._invite_cseq = 0
        self._invite_index = 0  # the last INVITE sent: CANCEL and the ACK to a non-2xx share its branch
        self._invite_refused = False
        self._invites_received = 0  # the first one's To has no tag yet
        self._last_request = ""  # the method of the last request received
        self._responses = 0  # sent to it
        self._saved: set[str] = set()
        self._dialog_known = False  # in-dialog requests go to the remote target

    def compile(self, name: str) -> str:
        body = "\n".join(self._step(index, step) for index, step in enumerate(self._steps))
        end = f'<label id="{_END}"/>' if any("last" in step.options for step in self._steps) else ""
        saved = ",".join(sorted(self._saved))  # SIPp refuses unused variables unless they are named here
        reference = f"<Reference variables={quoteattr(saved)}/>" if saved else ""
        return f'<?xml version="1.0"?>\n<scenario name={quoteattr(name)}>\n{body}\n{end}{reference}\n</scenario>\n'

    def _step(self, index: int, step: Step) -> str:
        match step.direction:
            case "pause":
                return _pause(step.name)
            case "timewait":
                return f'<timewait milliseconds="{step.name}"/>'
            case "<":
                return self._repeated(step) + self._receive(step, self._transactions.get(index, ""))
            case _:
                self._responses += step.is_response
                text = self._response(step) if step.is_response else self._request(index, step)
                attributes = self._retransmission(step) + self._transactions.get(index, "")
                return f"<send{attributes}><![CDATA[\n{text}\n]]></send>"

    # --- receiving

    def _repeated(self, step: Step) -> str:
        """The first INVITE once more: after two responses SIPp no longer knows it, and would take it for a fault."""
        is_possible = self._invites_received == 1 and self._last_request == "INVITE" and self._responses > 1
        is_other = not step.is_response and step.name != "INVITE"
        return '<recv request="INVITE" optional="true"></recv>\n' if is_possible and is_other else ""

    def _receive(self, step: Step, transaction: str) -> str:
        actions = []
        if "save" in step.options:
            actions.append(self._save(step.options["save"], step.options["save"]))
        if step.is_response:
            kind = f'response="{step.name}"'
            if not step.optional and int(step.name) >= 200:
                self._invite_refused = int(step.name) >= 300
        else:
            kind = f'request="{step.name}"'
            self._last_request, self._responses = step.name, 0
            if step.name == "INVITE":
                actions += [self._save("Via", "via"), self._save("CSeq", "cseq")]
                self._invites_received = 1 if "fresh" in step.options else self._invites_received + 1
                if self._invites_received == 1:
                    actions += [self._save("From", "from"), self._save("To", "to")]
        has_contact = not step.is_response or 100 < int(step.name) < 300
        # Save no header of an optional message: SIPp keeps the first value, which may belong to another early dialog.
        keep_route = ' rrs="true"' if has_contact and not step.optional and not self._dialog_known else ""
        if step.name == "INVITE" or (step.is_response and not step.optional and 100 < int(step.name) < 300):
            self._dialog_known = True
        optional = ' optional="true"' if step.optional else ""
        last = f' next="{_END}"' if "last" in step.options else ""
        challenge = ' auth="true"' if "challenge" in step.options else ""
        proof = ""
        if "proves" in step.options:
            username, password = step.options["proves"].split(":")
            self._saved.add("proved")
            actions.append(f'<verifyauth assign_to="proved" username="{username}" password="{password}"/>')
            proof = (
                '<nop condexec="proved" condexec_inverse="true">'
                '<action><error message="wrong credentials"/></action></nop>'
            )
        inner = f"<action>{''.join(actions)}</action>" if actions else ""
        return f"<recv {kind}{transaction}{optional}{last}{challenge}{keep_route}>{inner}</recv>{proof}"

    def _save(self, header: str, variable: str) -> str:
        self._saved.add(variable)
        return f'<ereg regexp=".*" search_in="hdr" header="{header}:" assign_to="{variable}"/>'

    # --- sending

    def _retransmission(self, step: Step) -> str:
        if step.name == "ACK":
            return ""
        answers_invite = self._last_request == "INVITE" or step.options.get("to") == "INVITE"
        if step.is_response and not (int(step.name) >= 200 and answers_invite):
            return ""
        return f' retrans="{RETRANSMIT_AFTER_MS}"'

    def _request(self, index: int, step: Step) -> str:
        branch = "[branch]"
        in_invite = step.name == "CANCEL" or (step.name == "ACK" and self._invite_refused)
        if in_invite:
            branch = f"[branch-{index - self._invite_index}]"
        if step.name not in ("ACK", "CANCEL"):
            self._cseq += 1
        if step.name == "INVITE":
            self._invite_index, self._invite_cseq, self._invite_refused = index, self._cseq, False
        number = self._invite_cseq if step.name in ("ACK", "CANCEL") else self._cseq
        fresh = f"sip:{DIALLED_NUMBER}@[remote_ip]:[remote_port]"
        target = "[next_url]" if self._dialog_known and not in_invite else fresh
        lines = [
            f"{step.name} {target} SIP/2.0",
            f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}",
            *(["[routes]"] if self._dialog_known and not in_invite else []),
            *self._party_lines(step),
            "Call-ID: [call_id]",
            f"CSeq: {number} {step.name}",
            "Max-Forwards: 70",
        ]
        if step.name in ("INVITE", "UPDATE"):
            lines.append(self._contact())
        return _with_body(lines, step)

    def _party_lines(self, step: Step) -> list[str]:
        if not self._calling:
            return [f"From:[$to];tag={self._tag()}", "To:[$from]"]
        tag = "" if step.name == "CANCEL" or "fresh" in step.options else "[peer_tag_param]"
        return [
            f"From: <sip:{CALLER_NUMBER}@[local_ip]:[local_port]>;tag={self._tag()}",
            f"To: <sip:{DIALLED_NUMBER}@[remote_ip]:[remote_port]>{tag}",
        ]

    def _response(self, step: Step) -> str:
        first = f"SIP/2.0 {step.name} {REASONS[int(step.name)]}"
        answers_saved = step.options.get("to") == "INVITE"
        if answers_saved:
            lines = [first, "Via:[$via]", "From:[$from]", "To:[$to]", "Call-ID: [call_id]", "CSeq:[$cseq]"]
        else:
            lines = [first, "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]"]
        if not self._calling and (answers_saved or (self._last_request == "INVITE" and self._invites_received == 1)):
            lines[3] += f";tag={self._tag()}"
        if int(step.name) < 300:
            lines.append(self._contact())
        return _with_body(lines, step)

    def _contact(self) -> str:
        user = CALLER_NUMBER if self._calling else "callee"
        return f"Contact: <sip:{user}@[local_ip]:[local_port];transport=[transport]>"

    def _tag(self) -> str:
        return "[pid]a[call_number]" if self._calling else "[pid]b[call_number]"


def _transactions(steps: list[Step]) -> dict[int, str]:
    """The attributes that name an INVITE's transaction, by step, where nothing else is sent before its ACK.

    SIPp then takes no repeated answer to an earlier INVITE for one to this, and sends the earlier ACK again.
    """
    sent = [index for index, step in enumerate(steps) if step.direction == ">" and not step.is_response]
    found = {}
    for start, end in pairwise(sent):
        if (steps[start].name, steps[end].name) == ("INVITE", "ACK"):
            found[start], found[end] = f' start_txn="invite{start}"', f' ack_txn="invite{start}"'
            for index in range(start + 1, end):
                if steps[index].direction == "<" and steps[index].is_response:
                    found[index] = f' response_txn="invite{start}"'
    return found


def _pause(length_ms: str) -> str:
    if not length_ms.startswith("["):
        return f'<pause milliseconds="{length_ms}"/>'
    name = length_ms.strip("[]")
    text, number = f"{name}_text", f"{name}_ms"
    assigned = f'<assignstr assign_to="{text}" value="{length_ms}"/><todouble assign_to="{number}" variable="{text}"/>'
    return f'<nop><action>{assigned}</action></nop><pause variable="{number}"/>'


def _with_body(lines: list[str], step: Step) -> str:
    body = ""
    if "sdp" in step.options:
        lines = [*lines, "Content-Type: application/sdp"]
        body = SDP.format(direction=step.options["sdp"] or "sendrecv") + "\n"
    elif "dtmf" in step.options:
        lines = [*lines, "Content-Type: application/dtmf-relay"]
        body = DTMF + "\n"
    elif "text" in step.options:
        lines = [*lines, "Content-Type: text/plain"]
        body = step.options["text"] + "\n"
    return "\n".join([*lines, *step.headers, "Content-Length: [len]", "", body])
