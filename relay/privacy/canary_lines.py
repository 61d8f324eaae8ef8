"""The lines of the canary: where a SIP message or a session description has room for a mark.

`relay.privacy.canary` fills in: {w} a word, {n} a number in some notation, {h} an address, {i} one behind NAT, {c} a
cell id.
"""

from __future__ import annotations

from typing import Final

# The headers that masking knows, those of the IANA registry, and what carriers and programs add.
HEADERS: Final = """
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
z: {w}
q: {n}
"""

# Headers of which a part passes: the rest must not.
PARTLY: Final = """
k: timer, 100rel, {w}
Supported: {w}, norefersub
Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK, INFO, {w}
Allow: OPTIONS, NOTIFY
x: 1800;refresher=uac;{w}={n}
Min-SE: 90;{w}="{n}"
Reason: Q.850;cause=16;text="{w} {n}", SIP;cause=200;text="{w}"
Reason: {w};cause=16
"""
RETRY_AFTER: Final = 'Retry-After: 120 ("{w}");duration=3600;{w}'

# -- Session descriptions

SESSION_LINES: Final = """
i={w}
u=http://{w}.example/{n}
e={w}@{w}.example ({w})
p={n}
"""
AFTER_TIME: Final = """
r=604800 3600 0 90000
z=2882844526 -1h 2898848070 0
k=clear:{w}{n}
"""
ATTRIBUTES: Final = """
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
BANDWIDTHS: Final = """
b={w}:64
b=AS:{n}
b=X-{w}:1
"""
MORE_MEDIA: Final = """
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
