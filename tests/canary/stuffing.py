"""Stuffs a clean message with the marks of its sender: in every header, parameter, description and part of a body.

A message stays valid, so that the relay relays what it can of it.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.canary.marks import Marks

_USUAL: tuple[Callable[[str, str], str], ...] = (
    lambda name, value: f"{name}: {value}",
    lambda name, value: f"{name.swapcase()}:{value}",
    lambda name, value: f"{name} \t : {value}",
)
# A folded line counts twice towards the most lines a message may have: every seventh.
STYLES = (*_USUAL, *_USUAL, lambda name, value: f"{name}:\r\n\t {value}")
"""Ways to write a header line: as usual, in odd case, with blanks before the colon, folded."""

# The headers that masking knows, those of the IANA registry, and what carriers and programs add. {w} word, {n} number
# in some notation, {h} address, {i} address behind NAT, {c} cell id.
HEADERS = """
P-Asserted-Identity: "{w}" <sip:{n}@{h};user=phone>
P-Asserted-Identity: <tel:{n};phone-context=+86>
P-Preferred-Identity: <sip:{n}@{h}>
Remote-Party-ID: "{w}" <sip:{n}@{h}>;party=calling;privacy=off;screen=yes
Privacy: {w}
Diversion: <sip:{n}@{h}>;reason=unconditional;counter=1
History-Info: <sip:{n}@{h}?Reason=SIP%3Bcause%3D302>;index=1, <sip:{w}@{i}>;index=1.1
P-Called-Party-ID: <sip:{n}@{h}>
P-Served-User: <sip:{n}@{h}>;sescase=orig;regstate=reg
Referred-By: <sip:{n}@{h}>;cid="{w}@{h}"
Identity: {w}eyJhbGciOiJFUzI1NiJ9;info=<https://{w}.example/cert.pem>;alg=ES256;ppt=shaken
Identity-Info: <https://{w}.example/cert.cer>;alg=rsa-sha1
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp={c}
P-Access-Network-Info: IEEE-802.11;i-wlan-node-id={w}
Cellular-Network-Info: 3GPP-NR;utran-cell-id-3gpp={c};cell-info-age=5
P-Visited-Network-ID: "{w} network"
Geolocation: <cid:{w}@{h}>;inserted-by="{i}"
Geolocation-Routing: {w}
Geolocation-Error: 100;code="{w}"
P-Charging-Vector: icid-value={w};icid-generated-at={i};orig-ioi={w}.example
P-Charging-Function-Addresses: ccf={i};ecf={i}
P-Associated-URI: <tel:{n}>, <sip:{n}@{h}>
Feature-Caps: *;+g.3gpp.{w}
Session-ID: {w};remote={c}
Cisco-Guid: {c}-{w}
X-Real-Number: {n}
X-{w}: {n}
X-Cell: {c}
P-{w}: {n}
P-Asserted-Service: urn:urn-7:{w}
P-Early-Media: {w}
P-Media-Authorization: {c}
P-Profile-Key: <sip:{w}@{h}>
P-User-Database: <aaa://{w}.example>
P-Refused-URI-List: <sip:{n}@{h}>
P-Private-Network-Indication: {w}
P-DCS-Trace-Party-ID: <sip:{n}@{h}>
P-DCS-OSPS: {w}
P-DCS-Billing-Info: {c}/{w}@{h}
P-DCS-LAES: {i}:{w}
P-DCS-Redirect: <sip:{n}@{h}>
P-Answer-State: {w}
P-Charge-Info: <sip:{n}@{h}>
User-to-User: {w}0x{c};encoding=hex
Subject: {w}
Call-Info: <http://{w}.example/photo.jpg>;purpose=icon
Alert-Info: <http://{i}/{w}.wav>
Error-Info: <sip:{w}@{h}>
Organization: {w} {n}
Reply-To: "{w}" <sip:{n}@{h}>
In-Reply-To: {w}@{h}
Date: Sat, 13 Nov 2010 23:29:00 {w}
Timestamp: {c}
Warning: 399 {h} "{w} {n}"
Accept-Language: {w}
Accept: application/sdp, application/{w}
Accept-Encoding: {w}
Accept-Contact: *;+{w}
Accept-Resource-Priority: {w}.1
Reject-Contact: *;+{w}
Request-Disposition: {w}
User-Agent: {w}/1.0 ({i})
Server: {w}/1.0 ({i})
Route: <sip:{w}.example;lr;{w}=1>
Path: <sip:{w}@{i};lr>
Service-Route: <sip:{w}@{i};lr>
Record-Route: "{w}" <sip:{n}@{i};lr;{w}=1>;{w}
Authorization: Digest username="{n}",realm="{w}",nonce="{w}",uri="sip:{h}",response="{c}"
Proxy-Authorization: Digest username="{n}",realm="{w}"
WWW-Authenticate: Digest realm="{w}",nonce="{w}"
Proxy-Authenticate: Digest realm="{w}",nonce="{w}"
Authentication-Info: nextnonce="{w}"
Proxy-Authentication-Info: nextnonce="{w}"
Proxy-Require: {w}
Unsupported: {w}
Content-Disposition: session;handling={w}
Content-Language: {w}
Content-ID: <{w}@{h}>
MIME-Version: 1.0 ({w})
Priority: {w}
Resource-Priority: {w}.0
Expires: {c}
Event: {w}
Allow-Events: {w}
Subscription-State: active;reason={w}
Refer-To: <sip:{n}@{h}>
Refer-Sub: {w}
Refer-Events-At: <sip:{w}@{h}>
Replaces: {w}@{h};from-tag={w};to-tag={w}
Target-Dialog: {w}@{h};local-tag={w};remote-tag={w}
Join: {w}@{h};from-tag={w};to-tag={w}
Max-Breadth: {c}
Info-Package: {w}
Recv-Info: {w}
Answer-Mode: {w}
Priv-Answer-Mode: {w}
Trigger-Consent: sip:{w}@{h}
Permission-Missing: sip:{n}@{h}
Flow-Timer: {c}
Additional-Identity: <sip:{n}@{h}>
Attestation-Info: {w}
Origination-Id: {c}
Dialog-Info: {w}
Relayed-Charge: {w}
Response-Source: {w};fe=<urn:{i}>
Restoration-Info: {w}
Resource-Share: {w}
Priority-Verstat: {w}
Service-Interact-Info: {w}
Call-Control: {w}
Security-Client: {w};alg={w}
Security-Server: {w};alg={w}
Security-Verify: {w};alg={w}
SIP-ETag: {w}
SIP-If-Match: {w}
Suppress-If-Match: {w}
Policy-ID: {w}
Policy-Contact: <sip:{w}@{h}>
Pp: {w}
Hide: {w}
Encryption: PGP version=5.0,encoding={w}
Response-Key: {w}
Remote-Address: {i}
Contact-Address: {h}
RPID-Privacy: {w}
Rtp-Stat: PS=1,OS={w},LA={i}
Cookie: session={w}
Set-Cookie: session={w}
Set-Cookie2: {w}
X-FS-Support: {w}
X-Asterisk-HangupCause: {w}
X-Channel: SIP/{n}-{c}
X-Forwarded-For: {i}
X-IMEI: {c}
IMSI: 46000{n}
{w}: {w}
s: {w}
y: {w}
n: {w}
u: {w}
o: {w}
b: <sip:{n}@{h}>
r: <sip:{n}@{h}>
a: *;+{w}
d: {w}
j: *;+{w}
e: {w}
z: {w}
q: {n}
"""

# What passes in part: the rest of it must not.
PARTLY = """
k: timer, 100rel, {w}
Supported: {w}, norefersub
Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK, INFO, {w}
Allow: OPTIONS, NOTIFY
x: 1800;refresher=uac;{w}={n}
Min-SE: 90;{w}="{n}"
Reason: Q.850;cause=16;text="{w} {n}", SIP;cause=200;text="{w}"
Reason: {w};cause=16
"""
RETRY_AFTER = 'Retry-After: 120 ("{w}");duration=3600;{w}'


def stuff(data: bytes, marks: Marks, turn: int = 0, *, multipart: bool = False) -> bytes:
    """The message with marks wherever they can stand. `turn` turns the ways to write round, line by line."""
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    request = not start.startswith("SIP/2.0")
    content_type = next((line.partition(": ")[2] for line in lines if line.startswith("Content-Type")), "")
    if content_type == "application/sdp":
        body = stuff_sdp(body, marks)
        if multipart:
            content_type, body = _wrap(body, marks)
    given = [line for line in _own_lines(lines, marks, request=request) if not line[0].startswith("Content-")]
    given += planted(marks, request=request)
    if body:
        given.append(("c", f'{content_type};{marks.word}="{marks.word}"'))
    given.append(("l", str(len(body))))
    written = [STYLES[(turn + index) % len(STYLES)](*line) for index, line in enumerate(given)]
    text = "\r\n".join([_start(start, marks), *written, "", ""])
    return text.encode("utf-8", "surrogateescape") + body


def planted(marks: Marks, *, request: bool) -> list[tuple[str, str]]:
    """The header lines that are added, as (name, value)."""
    texts = (HEADERS.strip() + PARTLY.rstrip()).splitlines()
    if not request:
        texts.append(RETRY_AFTER)
    notations = marks.notations()
    lines = []
    for index, text in enumerate(texts):
        number = notations[index % len(notations)]
        filled = text.format(w=marks.word, n=number, h=marks.host, i=marks.inner, c=marks.cell)
        name, _, value = filled.partition(": ")
        lines.append((name, value))
    return lines


def _start(start: str, marks: Marks) -> str:
    if start.startswith("SIP/2.0"):
        return f"{start[:11]} {marks.word} <{marks.friend}@{marks.host}> é"
    method, uri, version = start.split(" ")
    return f"{method} {uri};{marks.word}={marks.friend};maddr={marks.inner}?X={marks.word} {version}"


def _own_lines(lines: list[str], marks: Marks, *, request: bool) -> list[tuple[str, str]]:
    """Via, From, To, Contact and the others of the clean message, with displays and parameters."""
    word, friend = marks.word, marks.friend
    stuffed: list[tuple[str, str]] = []
    vias = 0
    for line in lines:
        name, value = line.split(": ", 1)
        if name in ("From", "To"):
            name = name[0].lower()
            uri, _, params = value.partition(">")
            value = f'"{word} \\"{friend}\\", <{marks.host}>" {uri};{word}={friend}>{params};{word}="{friend}"'
        elif name == "Contact":
            uri = value.partition(">")[0]
            value = f'"{word} {friend}" {uri};{word}={friend}>;+sip.instance="<urn:uuid:{word}>";q=0.5'
            name = "m"
        elif name == "Via":
            vias += 1
            value += f';received={marks.inner};{word}="{word}, {friend}";keep'
            name = "v"
        stuffed.append((name, value))
        if request and vias == 1 and name == "v":
            stuffed.append(
                ("Via", f"SIP/2.0/UDP {word}.example;branch=z9hG4bK{word}, SIP / 2.0 / TCP {marks.inner}:5062")
            )
    return stuffed


SESSION_LINES = """
i={w}
u=http://{w}.example/{n}
e={w}@{w}.example ({w})
p={n}
"""
AFTER_TIME = """
r=604800 3600 0 90000
z=2882844526 -1h 2898848070 0
k=clear:{w}{n}
"""
ATTRIBUTES = """
tool:{w} 1.0
ssrc:1234567 cname:{w}@{h}
ssrc:1234567 msid:{w} {c}
ssrc-group:FID 1234567 {c}
msid:{w} {c}
msid-semantic: WMS {w}
mid:{w}
group:BUNDLE {w}
label:{w}
cat:{w}
keywds:{w}
charset:{w}
sdplang:{w}
lang:{w}
type:{w}
content:{w}
candidate:1 1 UDP 2130706431 {i} 8998 typ host
candidate:2 1 UDP 1694498815 {h} 45664 typ srflx raddr {i} rport 8998
remote-candidates:1 {i} 8998
end-of-candidates
ice-ufrag:{w}
ice-pwd:{w}{c}{w}
ice-options:{w}
ice-lite
fingerprint:sha-256 {c}:{w}
setup:actpass
connection:new
tls-id:{w}
identity:{w}
key-mgmt:mikey {w}
crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{w}|2^20|1:4 {w}
crypto:1 {w} inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj
rtcp:4001 IN IP4 {i}
rtcp-xr:{w}
rtcp-fb:* {w}
rtcp-fb:{n} nack
extmap:1 urn:{w}
imageattr:97 send {w}
rid:{w} send
simulcast:send {w}
sctp-port:{w}
path:msrp://{i}:2855/{w};tcp
accept-types:{w}
file-selector:name:"{w}"
setup-{w}:1
{w}
{w}:{n}
x-{w}:{c}
X-nat:1 {w}
alt:1 1 : {w} {i} 4000
phone-context:{n}
cap:1 audio RTP/AVP {n}
acap:1 {w}:{w}
pcfg:1 {w}
silenceSupp:off - - - {w}
rtpmap:97 {w}/8000
rtpmap:98 PCMU{w}/8000
rtpmap:99 L16/{n}
fmtp:97 {w}={w}
fmtp:8 mode-set={n}
fmtp:8 annexb={w}
fmtp:8 {w};{n};maxptime={n};ptime=138-0000-0001
fmtp:{n} 0-15
fmtp:101 {n}
ptime:{n}
maxptime:{w}
framerate:{n}
T38VendorInfo:{c}
T38FaxVersion:{n}
T38FaxRateManagement:{w}
T38FaxUdpEC:{w}
"""
BANDWIDTHS = """
b={w}:64
b=AS:{n}
b=X-{w}:1
"""
MORE_MEDIA = """
m={w} 9 {w}/{w} {w} {n}
a=rtpmap:96 {w}/90000
m=application 9 UDP/DTLS/SCTP webrtc-datachannel {w}
c=IN IP4 127.0.0.39
b={w}:30
a=sctp-port:5000
a={w}
m=message 7654 TCP/MSRP {w}
a=path:msrp://{i}:7654/{w};tcp
m=audio 9 RTP/AVP 97 98 {w}
a=rtpmap:97 {w}/8000
"""


def stuff_sdp(body: bytes, marks: Marks) -> bytes:
    """A description with marks in every line and attribute; o= and s= hold them as well."""
    filled = _fill_in(marks)
    lines = body.decode().split("\r\n")
    stuffed = []
    for line in lines:
        if line.startswith("o="):
            line = f"o={marks.word}{marks.friend} {marks.friend} {marks.friend} IN IP4 {marks.host}"
        elif line.startswith("s="):
            line = f"s={marks.word} {marks.friend}"
        elif line.startswith("t="):
            line = f"t={marks.friend} {marks.friend}"
        stuffed.append(line)
        if line.startswith("s="):
            stuffed += filled(SESSION_LINES)
        elif line.startswith("t="):
            stuffed += filled(AFTER_TIME) + [f"a={text}" for text in filled(ATTRIBUTES)]
        elif line.startswith("c="):
            stuffed += filled(BANDWIDTHS)
        elif line.startswith("m="):
            stuffed[-1] += " 97 98 99"
            stuffed += [f"i={marks.word}", *filled(BANDWIDTHS), f"k=clear:{marks.word}"]
            stuffed += [f"a={text}" for text in filled(ATTRIBUTES)]
    return "\r\n".join([*stuffed[:-1], *filled(MORE_MEDIA), ""]).encode()


def _fill_in(marks: Marks) -> Callable[[str], list[str]]:
    notations = marks.notations()

    def filled(texts: str) -> list[str]:
        return [
            text.format(w=marks.word, n=notations[index % 5], h=marks.host, i=marks.inner, c=marks.cell)
            for index, text in enumerate(texts.strip().splitlines())
        ]

    return filled


def _wrap(sdp: bytes, marks: Marks) -> tuple[str, bytes]:
    """A multipart body: the description among parts of other types."""
    word = marks.word.encode()
    parts = (
        b"Content-Type: application/pidf+xml\r\nContent-ID: <%b@%b>\r\n\r\n<presence entity='pres:%b'><gml:pos>%b"
        b"</gml:pos></presence>" % (word, marks.host.encode(), word, marks.cell.encode()),
        b"C : application/sdp;%b=1\r\nContent-Disposition: session;x=%b\r\nX-%b: 1\r\n\r\n%b" % (word, word, word, sdp),
        b"Content-Type: application/ISUP;version=%b;base=itu-t92+\r\n\r\n%b" % (word, marks.friend.encode()),
        b"Content-Type: text/plain\r\n\r\nv=0\r\n%b" % word,
    )
    boundary = f"{marks.word}-boundary"
    delimiter = f"\r\n--{boundary}".encode()
    body = word + b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n" + word
    return f'multipart/mixed;boundary="{boundary}"', body
