"""Numbers beside bindings: black lists, numbers held from new bindings, and the filing of A numbers."""

from __future__ import annotations

from msgspec import field

from relay.compat.actions import Caller, Parameters, Reply, action
from relay.compat.errors import ILLEGAL_ARGUMENT, CodedRefusal
from relay.compat.fields import own_number, own_pool, unused
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import remove_entry, set_entry
from relay.service.numbers import hold, unhold
from relay.service.placement import BindRules
from relay.store.unit_of_work import UnitOfWork

_OF_POOL = "PARTNER_GLOBAL_NUMBER_BLACK"

# -- Black lists. The business user has one list, for all its pools


class _Blacklist(Parameters):
    pool_key: str
    black_no: str
    black_type: str
    way_control: str = ""
    remark: str = ""

    def check(self) -> None:
        """Raises CodedRefusal for a pair of numbers: here a list refuses a caller whomever it calls."""
        if self.black_type != _OF_POOL:
            problem = f"BlackType must be {_OF_POOL}: CallRestrict of their binding bars a pair"
            raise CodedRefusal(ILLEGAL_ARGUMENT, problem)
        unused(WayControl=self.way_control)


class AddSecretBlacklist(_Blacklist):
    """Refuse the calls of a number."""


@action(AddSecretBlacklist, "lists", names={"number": "BlackNo"})
async def add_secret_blacklist(asked: AddSecretBlacklist, caller: Caller) -> Reply:
    asked.check()
    return await _listed(asked.pool_key, asked.black_no, caller, add=True)


class DeleteSecretBlacklist(_Blacklist):
    """Take a number off the black list."""


@action(DeleteSecretBlacklist, "lists", names={"number": "BlackNo"})
async def delete_secret_blacklist(asked: DeleteSecretBlacklist, caller: Caller) -> Reply:
    asked.check()
    return await _listed(asked.pool_key, asked.black_no, caller, add=False)


class OperateBlackNo(Parameters):
    """Put a number on the black list, or take it off."""

    pool_key: str
    black_no: str
    operate_type: str
    tips: str = ""


@action(OperateBlackNo, "lists", names={"number": "BlackNo"})
async def operate_black_no(asked: OperateBlackNo, caller: Caller) -> Reply:
    if asked.operate_type not in ("AddBlack", "DeleteBlack"):
        raise CodedRefusal(ILLEGAL_ARGUMENT, "OperateType must be AddBlack or DeleteBlack")
    return await _listed(asked.pool_key, asked.black_no, caller, add=asked.operate_type == "AddBlack")


async def _listed(pool_key: str, number: str, caller: Caller, *, add: bool) -> Reply:
    def do(unit: UnitOfWork, rules: BindRules) -> None:
        own_pool(unit.connection, caller.business, pool_key)
        if add:
            set_entry(unit, "business", caller.business, number, "black")
        else:
            remove_entry(unit, "business", caller.business, number, "black")

    await caller.change(do)
    return {}


# -- Numbers held from new bindings. Calls go on, as there


class _SecretNo(Parameters):
    pool_key: str
    secret_no: str


class LockSecretNo(_SecretNo):
    """Choose a number for no new binding."""


@action(LockSecretNo, "bindings:write", names={"number": "SecretNo"})
async def lock_secret_no(asked: LockSecretNo, caller: Caller) -> Reply:
    await caller.change(lambda unit, _: hold(unit, _number(unit, asked, caller), "LockSecretNo"))
    return {}


class UnlockSecretNo(_SecretNo):
    """Let a locked number get bindings again."""


@action(UnlockSecretNo, "bindings:write", names={"number": "SecretNo"})
async def unlock_secret_no(asked: UnlockSecretNo, caller: Caller) -> Reply:
    await caller.change(lambda unit, _: unhold(unit, _number(unit, asked, caller), "UnlockSecretNo"))
    return {}


def _number(unit: UnitOfWork, asked: _SecretNo, caller: Caller) -> str:
    """Raises CodedRefusal unless the number is of the pool."""
    _, number = own_number(unit.connection, caller.business, asked.pool_key, asked.secret_no, unit.now_ms)
    return number.number


# -- Filing


class CreatePhoneNoAReport(Parameters):
    """File an A number with its holder. It waits for the carrier's answer."""

    ano_white_group_id: int = field(name="ANoWhiteGroupId")
    cust_name: str
    document_number: str
    document_type: int
    id_card_alive_photo: str
    phone_no_a: str
    id_card_back_photo: str = ""
    id_card_front_photo: str = ""
    remark: str = ""


_FILED = {
    "number": "PhoneNoA",
    "holder": "CustName",
    "document": "DocumentNumber",
    "photo": "IdCardAlivePhoto",
    "reference": "ANoWhiteGroupId",
}


@action(CreatePhoneNoAReport, "filings", names=_FILED, has_success=True)
async def create_phone_no_a_report(asked: CreatePhoneNoAReport, caller: Caller) -> Reply:
    if asked.document_type != 1:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "DocumentType must be 1, an identity card")
    words = FilingWords(
        number=asked.phone_no_a,
        reference=str(asked.ano_white_group_id),
        holder=asked.cust_name,
        document_type="id_card",
        document=asked.document_number,
        photo=asked.id_card_alive_photo,
    )
    await caller.change(lambda unit, rules: add_filing(unit, caller.business, words, rules.parties))
    return {"Data": {"CreateResult": True, "FailType": 1}}
