"""Each refusal has a code that Alibaba documents."""

from __future__ import annotations

import pytest

from relay.api.problems import KINDS
from relay.compat.errors import code_of
from relay.errors import Refused

# help.aliyun.com/document_detail/109196.html
DOCUMENTED = {
    *("isp.RAM_PERMISSION_DENY", "isv.OUT_OF_SERVICE", "isv.PRODUCT_UN_SUBSCRIPT", "isv.PRODUCT_UNSUBSCRIBE"),
    *("isv.ACCOUNT_NOT_EXISTS", "isv.ACCOUNT_ABNORMAL", "isp.SYSTEM_ERROR", "isp.UNKNOWN_ERR_CODE"),
    *("isv.PARTNER_NOT_EXIST", "isv.NO_NOT_EXIST", "isv.ILLEGAL_ARGUMENT", "isp.DAO_EXCEPTION"),
    *("isv.NO_AVAILABLE_NUMBER", "isv.FLOW_LIMIT", "isv.FORBIDDEN_ACTION", "isv.EXPIRE_DATE_ILLEGAL"),
    *("isv.MOBILE_NUMBER_ILLEGAL", "isv.BIND_CONFLICT", "isv.SUBS_NOT_EXIST", "isv.BUY_NUM_OVER_LIMIT"),
    *("isv.POOLKEY_NOT_EXISTS", "isp.GATEWAY_ERROR", "isv.INVALID_PARAMETERS", "isv.UPDATE_CONFLICT"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_of_each_kind_has_a_documented_code(kind: str) -> None:
    assert code_of(Refused(kind, "", "problem")) in DOCUMENTED


@pytest.mark.parametrize(
    ("kind", "field", "code"),
    [
        ("invalid", "a", "isv.MOBILE_NUMBER_ILLEGAL"),
        ("invalid", "members.3", "isv.MOBILE_NUMBER_ILLEGAL"),
        ("invalid", "order_id", "isv.ILLEGAL_ARGUMENT"),
        ("not_found", "pool", "isv.POOLKEY_NOT_EXISTS"),
        ("not_found", "binding", "isv.SUBS_NOT_EXIST"),
        ("not_found", "group_id", "isv.ILLEGAL_ARGUMENT"),
        ("quota", "business", "isv.FORBIDDEN_ACTION"),
        ("ended", "binding", "isv.FORBIDDEN_ACTION"),
        ("conflict", "x", "isv.BIND_CONFLICT"),
        ("number_locked", "x", "isv.FORBIDDEN_ACTION"),
    ],
)
def test_the_field_says_which(kind: str, field: str, code: str) -> None:
    assert code_of(Refused(kind, field, "problem")) == code
