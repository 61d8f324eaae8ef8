"""A pjsua2 softphone as a separate program: JSON events on standard output, commands on standard input.

Run as `python -m tests.support.pjsua_phone HOST PORT NUMBER udp|tcp|tls LOG [CERTIFICATE KEY]`. Commands: `dial URI`,
`register URI USER PASSWORD`, `text URI WORDS`, `hangup`, `hold`, `resume`, `digits 123`, `packets`, `play WAV`,
`record WAV`, `stop` (both). It answers calls by itself. Events are named as in baresip.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pjsua2 as pj  # type: ignore[import-untyped]

TRANSPORTS = {
    "udp": pj.PJSIP_TRANSPORT_UDP,
    "tcp": pj.PJSIP_TRANSPORT_TCP,
    "tls": pj.PJSIP_TRANSPORT_TLS,
}
STATES = {
    pj.PJSIP_INV_STATE_EARLY: "CALL_RINGING",
    pj.PJSIP_INV_STATE_CONFIRMED: "CALL_ESTABLISHED",
    pj.PJSIP_INV_STATE_DISCONNECTED: "CALL_CLOSED",
}


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": True, "type": event, **fields}), flush=True)


class PhoneCall(pj.Call):  # type: ignore[misc]
    player: Any = None
    recorder: Any = None
    recorded = Path()

    def play(self, path: str) -> None:
        self.player = pj.AudioMediaPlayer()
        self.player.createPlayer(path)
        self.player.startTransmit(self.getAudioMedia(-1))

    def record(self, path: str) -> None:
        self.recorded = Path(path)
        self.recorder = pj.AudioMediaRecorder()
        self.recorder.createRecorder(path)
        self.getAudioMedia(-1).startTransmit(self.recorder)

    def stop(self) -> None:
        """Return when the file is complete: its header is written when the conference releases it, at its next tick."""
        self.player = self.recorder = None
        while not any(self.recorded.read_bytes()[40:44]):  # the length of the data
            time.sleep(0.01)

    def onCallState(self, prm: Any) -> None:
        info = self.getInfo()
        if info.state in STATES:
            say(
                STATES[info.state],
                peeruri=info.remoteUri,
                contact=info.remoteContact,
                status=info.lastStatusCode,
                reason=info.lastReason,
            )

    def onCallMediaState(self, prm: Any) -> None:
        info = self.getInfo()  # keeps the media below alive
        for media in info.media:
            say("CALL_MEDIA", active=media.status == pj.PJSUA_CALL_MEDIA_ACTIVE, direction=media.dir)

    def onDtmfDigit(self, prm: Any) -> None:
        say("CALL_DTMF", param=prm.digit)

    def packets_received(self) -> int:
        return int(self.getStreamStat(0).rtcp.rxStat.pkt)


class PhoneAccount(pj.Account):  # type: ignore[misc]
    call: PhoneCall | None = None
    settings: Any = None
    texted: Any = None

    def text(self, uri: str, words: str) -> None:
        config = pj.BuddyConfig()
        config.uri = uri
        self.texted = pj.Buddy()
        self.texted.create(self, config)
        message = pj.SendInstantMessageParam()
        message.content = words
        self.texted.sendInstantMessage(message)

    def onInstantMessage(self, prm: Any) -> None:
        say("MESSAGE", peeruri=prm.fromUri, text=prm.msgBody, content_type=prm.contentType)

    def onInstantMessageStatus(self, prm: Any) -> None:
        say("MESSAGE_STATUS", status=prm.code)

    def register(self, registrar: str, username: str, password: str) -> None:
        self.settings.regConfig.registrarUri = registrar
        self.settings.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", username, 0, password))
        self.modify(self.settings)

    def onIncomingCall(self, prm: Any) -> None:
        self.call = PhoneCall(self, prm.callId)
        say("CALL_INCOMING", peeruri=self.call.getInfo().remoteUri, whole=prm.rdata.wholeMsg)
        for status in (pj.PJSIP_SC_RINGING, pj.PJSIP_SC_OK):
            answer = pj.CallOpParam()
            answer.statusCode = status
            self.call.answer(answer)


def obey(account: PhoneAccount, command: str, argument: str) -> None:
    call = account.call
    parameters = pj.CallOpParam(True)
    if command == "dial":
        account.call = PhoneCall(account)
        account.call.makeCall(argument, parameters)
    elif call is None:
        say("NO_CALL")
    elif command == "hangup":
        call.hangup(parameters)
    elif command == "hold":
        call.setHold(parameters)
    elif command == "resume":
        parameters.opt.flag = pj.PJSUA_CALL_UNHOLD
        call.reinvite(parameters)
    elif command == "digits":
        call.dialDtmf(argument)
    elif command in ("play", "record"):
        getattr(call, command)(argument)
    elif command == "stop":
        call.stop()
        say("STOPPED")
    elif command == "packets":
        say("PACKETS", received=call.packets_received())


def start(endpoint: pj.Endpoint, arguments: list[str]) -> PhoneAccount:
    host, port, number, transport, log, codec, *tls = arguments
    settings = pj.EpConfig()
    settings.uaConfig.threadCnt = 0
    settings.uaConfig.mainThreadOnly = True
    settings.medConfig.clockRate = settings.medConfig.sndClockRate = 8_000  # of the files that it plays and records
    settings.logConfig.level = 5
    settings.logConfig.consoleLevel = 0
    settings.logConfig.msgLogging = 1
    settings.logConfig.filename = log
    endpoint.libCreate()
    endpoint.libInit(settings)
    binding = pj.TransportConfig()
    binding.port = int(port)
    binding.boundAddress = host
    if tls:
        binding.tlsConfig.certFile, binding.tlsConfig.privKeyFile = tls
    endpoint.transportCreate(TRANSPORTS[transport], binding)
    for known in endpoint.codecEnum2():  # ours first, and no codec that the relay would prefer: a tone stays a tone
        endpoint.codecSetPriority(known.codecId, {"PCMU/8000/1": 128, codec: 255}.get(known.codecId, 0))
    endpoint.audDevManager().setNullDev()
    endpoint.libStart()
    account_settings = pj.AccountConfig()
    account_settings.idUri = f"sip:{number}@{host}"
    account_settings.mediaConfig.transportConfig.boundAddress = host
    # Otherwise its Contact names the source port of its outgoing connections, where it does not listen.
    account_settings.sipConfig.contactForced = f"<sip:{number}@{host}:{port};transport={transport}>"
    account = PhoneAccount()
    account.settings = account_settings
    account.create(account_settings)
    return account


def commands() -> Iterator[tuple[str, str]]:
    """The commands from standard input; ends the program at its end."""
    if select.select([sys.stdin], [], [], 0)[0]:
        data = os.read(sys.stdin.fileno(), 4096).decode()
        if not data:
            raise SystemExit
        for line in data.splitlines():
            command, _, argument = line.partition(" ")
            yield command, argument


def main() -> None:
    endpoint = pj.Endpoint()
    account = start(endpoint, sys.argv[1:])
    say("READY")
    while True:
        endpoint.libHandleEvents(10)
        for command, argument in commands():
            if command == "register":
                account.register(*argument.split())
            elif command == "text":
                account.text(*argument.split(" ", 1))
            else:
                obey(account, command, argument)


if __name__ == "__main__":
    main()
