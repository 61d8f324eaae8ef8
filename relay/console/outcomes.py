"""Outcomes of calls in words: what happened, why, and what to do. docs/CALLS.md has the same with SIP."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from relay.translation import N_

# good: answered or delivered; calm: a person's doing; refused: a rule's; bad: a fault's
Class = Literal["good", "calm", "refused", "bad"]
CLASSES: Final[tuple[Class, ...]] = ("good", "calm", "refused", "bad")


class OutcomeText(NamedTuple):
    """`title`: two or three words; `why` and `do`: sentences, "" if there is nothing to say."""

    class_: Class
    title: str
    why: str = ""
    do: str = ""


_WAIT = N_("Wait, and call again.")
_NONE = N_("Nothing to do.")

OUTCOMES: Final[dict[str, OutcomeText]] = {
    "answered": OutcomeText("good", N_("answered")),
    "delivered": OutcomeText("good", N_("delivered")),
    "busy": OutcomeText("calm", N_("busy"), N_("The called phone was busy."), _WAIT),
    "no_answer": OutcomeText("calm", N_("no answer"), N_("It rang, and nobody answered."), _WAIT),
    "cancelled": OutcomeText("calm", N_("cancelled"), N_("The caller hung up before an answer."), _NONE),
    "rejected": OutcomeText("calm", N_("rejected"), N_("The called phone or its network rejected the call."), _NONE),
    "no_binding": OutcomeText(
        "refused",
        N_("no binding"),
        N_("This caller has no binding on this number, or it was unbound."),
        N_("Look at the number's bindings: the caller must be one of its two parties."),
    ),
    "expired": OutcomeText(
        "refused", N_("expired"), N_("The binding had expired."), N_("Bind again, or renew in time.")
    ),
    "caller_not_allowed": OutcomeText(
        "refused",
        N_("caller not allowed"),
        N_("The source is no peer, or this peer may not call as this number."),
        N_("Add the address to the peer's sources, or the number to its numbers, unless it is forged."),
    ),
    "frequency_caller": OutcomeText(
        "refused",
        N_("called too often"),
        N_("This caller has called this number as often as the caps allow."),
        N_("Wait, or change the caps: policy.caller_caps."),
    ),
    "frequency_number": OutcomeText(
        "refused",
        N_("number called too often"),
        N_("This number was called as often as the caps allow."),
        N_("Wait, or change the caps: policy.number_caps."),
    ),
    "party_not_allowed": OutcomeText(
        "refused",
        N_("party not allowed"),
        N_("The configuration does not allow this kind of number as a party."),
        N_("Allow it in numbers.parties, or bind another number."),
    ),
    "number_in_text": OutcomeText(
        "refused",
        N_("number in the text"),
        N_("The text message holds a real number."),
        N_("Send it without, or let numbers be masked: sms.numbers."),
    ),
    "number_unknown": OutcomeText(
        "refused",
        N_("number unknown"),
        N_("The number dialled is not one of ours, or has too few digits."),
        N_("Dial all 15 digits; look at the prefixes."),
    ),
    "caller_anonymous": OutcomeText(
        "refused",
        N_("caller anonymous"),
        N_("The caller sends no number."),
        N_("Have the peer send it, or allow it: policy.anonymous."),
    ),
    "caller_international": OutcomeText(
        "refused",
        N_("caller from abroad"),
        N_("The caller's number is from abroad, which the policy refuses."),
        N_("Allow it if you must: policy.international."),
    ),
    "caller_blacklisted": OutcomeText(
        "refused",
        N_("caller on the blacklist"),
        N_("The caller is on the business user's blacklist."),
        N_("Remove the caller from the list if it is there in error."),
    ),
    "caller_not_listed": OutcomeText(
        "refused",
        N_("caller not on the whitelist"),
        N_("The binding lets only callers of the whitelist through."),
        N_("Add the caller to the list, or change the binding."),
    ),
    "direction_barred": OutcomeText(
        "refused",
        N_("direction barred"),
        N_("The binding allows calls in the other direction only."),
        N_("Change the direction of the binding."),
    ),
    "outside_hours": OutcomeText(
        "refused", N_("outside hours"), N_("The call came outside the service hours."), N_("Call within the hours.")
    ),
    "number_locked": OutcomeText(
        "refused",
        N_("number locked"),
        N_("The number is locked: by an operator, or for signs of fraud."),
        N_("Look at the number's page for the reason, and unlock it."),
    ),
    "legacy_ended": OutcomeText(
        "refused",
        N_("old number ended"),
        N_("The old middle numbers are no longer in service."),
        N_("Give the parties their 700 number."),
    ),
    "phase_over": OutcomeText(
        "refused",
        N_("pilot over"),
        N_("The pilot has ended, and the binding has no expiry of its own."),
        N_("Move `[pilot] ends` if the pilot goes on; otherwise end the binding."),
    ),
    "own_number": OutcomeText("refused", N_("own number"), N_("The caller dialled a number that leads back."), _NONE),
    "no_callee": OutcomeText(
        "refused",
        N_("nobody to call"),
        N_("The binding has no other party to call now."),
        N_("Add the missing party, or a member to the group."),
    ),
    "not_filed": OutcomeText(
        "refused",
        N_("not filed"),
        N_("The A number is not filed with the carriers."),
        N_("File it, then call again."),
    ),
    "business_suspended": OutcomeText(
        "refused",
        N_("business suspended"),
        N_("The business user is suspended."),
        N_("Resume it once the reason is gone."),
    ),
    "business_revoked": OutcomeText(
        "refused", N_("business revoked"), N_("The approval of the business user was revoked."), _NONE
    ),
    "business_rate": OutcomeText(
        "refused",
        N_("business over its rate"),
        N_("The business user makes more calls a second than its quota."),
        N_("Raise max_cps, or call more slowly."),
    ),
    "business_busy": OutcomeText(
        "refused",
        N_("business over its calls"),
        N_("The business user has as many calls at once as its quota."),
        N_("Raise max_calls, or wait."),
    ),
    "number_busy": OutcomeText(
        "refused",
        N_("number over its calls"),
        N_("The number has as many calls at once as allowed."),
        N_("Spread the bindings over more numbers, or raise policy.max_calls_per_number."),
    ),
    "verification_refused": OutcomeText(
        "refused",
        N_("refused by a hook"),
        N_("The operator's hook or the business user's refused the call: decided_by in the record."),
        N_("Ask who runs the hook."),
    ),
    "verification_failed": OutcomeText(
        "bad",
        N_("hook failed"),
        N_("The hook did not answer in time, or its answer was wrong: decided_by in the record."),
        N_("See that it runs. The log names a wrong field: hook.answer_wrong."),
    ),
    "unreachable": OutcomeText(
        "bad",
        N_("unreachable"),
        N_("No peer answered, the phone is off, or no route leads to the number."),
        N_("Look at the peers on the overview; check the called phone and the routes."),
    ),
    "not_secure": OutcomeText(
        "refused",
        N_("not secure"),
        N_("The call asks for TLS all the way, and one side has none."),
        N_("Use TLS to the peer, or call a sip: address."),
    ),
    "media_failed": OutcomeText(
        "bad",
        N_("media failed"),
        N_("No rtpengine answered, or the description of the media is too long."),
        N_("See that rtpengine runs: media.rtpengine."),
    ),
    "over_limit": OutcomeText(
        "bad",
        N_("over a limit"),
        N_("A limit of the relay, or this peer's share of it, was reached."),
        N_("The log says which; wait, or raise it."),
    ),
    "draining": OutcomeText(
        "bad", N_("draining"), N_("The relay was about to stop."), N_("Call another node, or after the restart.")
    ),
    "store_failed": OutcomeText(
        "bad",
        N_("store failed"),
        N_("The store did not answer."),
        N_("Look at its disk or server: the log has the fault."),
    ),
    "failed": OutcomeText(
        "bad",
        N_("failed"),
        N_("The message was faulty, the other side gave an error, or the relay or an operator ended the call."),
        N_("The ladder shows the message; the end reason says more."),
    ),
}


def class_of(outcome: str) -> Class:
    """The class of an outcome, which has a colour; that of a fault if it is unknown."""
    return OUTCOMES[outcome].class_ if outcome in OUTCOMES else "bad"


# The API's other names in words: states, lists, scenarios.
NAMES: Final[dict[str, str]] = {
    "call": N_("call"),
    "message": N_("text message"),
    "live": N_("live"),
    "ended": N_("ended"),
    "free": N_("free"),
    "bound": N_("bound"),
    "cooling": N_("cooling"),
    "locked": N_("locked"),
    "active": N_("active"),
    "returned": N_("returned"),
    "applied": N_("applied"),
    "approved": N_("approved"),
    "submitted": N_("submitted"),
    "rejected": N_("refused by the carrier"),
    "withdrawn": N_("withdrawn"),
    "true": N_("yes"),
    "id_card": N_("identity card"),
    "passport": N_("passport"),
    "permit": N_("travel permit"),
    "business_licence": N_("business licence"),
    "suspended": N_("suspended"),
    "revoked": N_("revoked"),
    "business_applied": N_("business not approved"),
    "black": N_("blacklist"),
    "white": N_("whitelist"),
    "express": N_("express"),
    "takeaway": N_("takeaway"),
    "ride_hailing": N_("ride-hailing"),
    "other": N_("other"),
}
