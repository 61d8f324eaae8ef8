"""Problem documents (RFC 9457): their form for each kind, and what they say of a request."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from relay.api.problems import KINDS, MEDIA_TYPE, Problem, problem_of, problem_response
from relay.errors import Refused
from relay.translation import catalogue
from tests.api.conftest import Client


def document_of(kind: str, *args: Any) -> dict[str, Any]:
    """The document of a response, after checking what is the same for all."""
    response = problem_response("0123456789abcdef", kind, *args)
    document: dict[str, Any] = json.loads(response.body)
    assert response.headers["content-type"] == MEDIA_TYPE == "application/problem+json"
    assert (document["type"], document["status"]) == (f"/problems/{kind}", response.status_code)
    assert document["request_id"] == "0123456789abcdef"
    assert Problem.model_validate(document).model_dump() == document
    return document


@pytest.mark.parametrize(("kind", "status", "title"), [(kind, *said) for kind, said in KINDS.items()], ids=list(KINDS))
def test_each_kind_has_its_status_and_title(kind: str, status: int, title: str) -> None:
    assert 400 <= status < 600 and title
    document = document_of(kind)
    assert (document["status"], document["title"], document["detail"], document["errors"]) == (status, title, title, [])
    assert document_of(kind, "why")["detail"] == "why"


def test_unlisted_kind_is_a_conflict() -> None:
    """As from a relay of another version, whose refusals pass the admin socket."""
    assert document_of("new_kind")["status"] == 409


def test_each_kind_that_is_refused_is_listed() -> None:
    used = {
        node.args[0].value
        for path in Path("relay").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused"
        if isinstance(node.args[0], ast.Constant)
    }
    assert len(used) > 20
    assert used <= KINDS.keys()


async def test_problems_are_in_the_language_that_the_client_accepts(operator: Client) -> None:
    body = {"name": 7, "a: there is no such field": 1}
    for accepted, language, title, number in (
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN", "请求中有字段无效", "没有这个字段：见 /docs"),
        ("en;q=0.9,zh;q=0.5", "en", "A field of the request is invalid", "there is no such field: see /docs"),
        ("fr", "en", "A field of the request is invalid", "there is no such field: see /docs"),
        ("", "en", "A field of the request is invalid", "there is no such field: see /docs"),
    ):
        answer = await operator.http.post("/v1/businesses", json=body, headers={"accept-language": accepted})
        found = answer.json()
        assert (answer.headers["content-language"], answer.headers["vary"]) == (language, "Accept-Language")
        assert (found["title"], found["errors"][-1]["problem"]) == (title, number)
        assert found["errors"][-1]["field"] == "a: there is no such field", "names of fields stay"
        assert found["detail"].count("a: there is no such field") == 1 and number in found["detail"]
        assert Problem.model_validate(found).status == 400 == answer.status_code


async def test_refusals_before_a_key_is_known_are_translated_as_well(operator: Client) -> None:
    chinese = {"accept-language": "zh"}
    for path, title in (("/v1/nothing", "资源不存在"), ("/v1/calls?limit=0", "请求中有字段无效")):
        assert (await operator.http.get(path, headers=chinese)).json()["title"] == title
    nobody = await operator.http.get("/v1/calls", headers=chinese | {"authorization": "Bearer nonsense"})
    assert (nobody.status_code, nobody.json()["title"]) == (401, "请求没有有效的密钥")
    good = await operator.http.get("/v1/calls", headers=chinese)
    assert good.status_code == 200 and "content-language" not in good.headers and "vary" not in good.headers


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/nothing", {}, "没有这个路径：全部路径见 /docs"),
        ("/v1/businesses", {"name": "Acme", "max_cps": 1.5}, "max_cps：必须是整数，或必须是 'none'"),
        (
            "/v1/trace",
            {"number": "13800000001", "at": "2026-01-31T08:00:00Z", "since": "2026-01-31T08:00:00Z", "reason": "x"},
            "body：请给出 at，或者 since 和 until",
        ),
    ],
)
async def test_the_detail_is_in_chinese_as_a_whole(operator: Client, path: str, body: Any, said: str) -> None:
    answer = await operator.http.post(path, json=body, headers={"accept-language": "zh"})
    assert answer.json()["detail"] == said


def test_every_title_is_translated() -> None:
    assert [title for _, title in KINDS.values() if title not in catalogue()] == []


def test_each_faulty_field_is_named() -> None:
    fields = (("licence", "missing"), ("contact", "missing"))
    refused = problem_of(Refused("unqualified", "", "papers are missing", fields), "r1")
    assert (refused.status, refused.detail) == (409, "papers are missing")
    assert [(error.field, error.problem) for error in refused.errors] == list(fields)
    one = problem_of(Refused("conflict", "a", "is bound"), "r1")
    assert [(error.field, error.problem) for error in one.errors] == [("a", "is bound")]


def test_lone_surrogate_in_a_field_name_can_be_sent() -> None:
    assert document_of("invalid", "", [("\ud800", "unknown")])["errors"] == [{"field": "\ud800", "problem": "unknown"}]


# -- Over HTTP


async def test_an_unknown_path_or_method_gets_a_problem_document(operator: Client) -> None:
    await operator.refused("GET", "/v1/nothing", "not_found")
    await operator.refused("GET", "/v1/businesses/", "not_found")
    await operator.refused("PUT", "/v1/businesses", "method_not_allowed")
    answer = await operator.http.put("/v1/businesses")
    assert answer.headers["allow"] == "GET, POST"


async def test_an_invalid_field_is_named_without_its_value(operator: Client) -> None:
    problem = await operator.refused("POST", "/v1/businesses", "invalid", {"name": "13800000001\n", "modes": ["AXZ"]})
    assert {error["field"] for error in problem["errors"]} == {"name", "modes.0"}
    assert "13800000001" not in str(problem)
    problem = await operator.refused("POST", "/v1/businesses", "invalid", {"name": "Acme", "colour": "red"})
    assert problem["errors"] == [{"field": "colour", "problem": "there is no such field: see /docs"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "/v1/businesses", {"name": ""}, "name: must have at least 1 characters"),
        ("POST", "/v1/businesses", {"name": 7}, "name: must be a text"),
        ("POST", "/v1/businesses", {"name": "Acme", "modes": "AXB"}, "modes: must be a list"),
        ("POST", "/v1/businesses", {"name": "Acme", "white_only": "often"}, "white_only: must be true or false"),
        (
            "POST",
            "/v1/businesses",
            {"name": "Acme", "max_cps": 1.5},
            "max_cps: must be a whole number, or must be 'none'",
        ),
        ("POST", "/v1/businesses", {"name": "Acme", "max_cps": -1}, "max_cps: must be at least 0, or must be 'none'"),
        ("POST", "/v1/businesses", {"name": "Acme", "scenario": "taxi"}, "scenario: must be 'express', "),
        ("POST", "/v1/businesses", [], "body: must be an object"),
        ("GET", "/v1/numbers?limit=1000", None, "limit: must be at most 500"),
        ("GET", "/v1/calls?since=monday", None, "since: must be a time with its zone, such as 2026-01-31T08:00:00Z"),
        ("GET", "/v1/calls?since=2026-01-31T08:00:00", None, "since: must be a time with its zone"),
        ("GET", "/v1/reports/daily?day=monday", None, "day: must be a day, such as 2026-01-31"),
        ("POST", "/v1/calls/search", {"party": "1"}, "party: must have at least 3 characters"),
    ],
)
async def test_problems_are_said_in_our_words(operator: Client, method: str, path: str, body: Any, said: str) -> None:
    detail = (await operator.refused(method, path, "invalid", body))["detail"]
    assert detail.startswith(said) and "should" not in detail and "Input" not in detail


async def test_detail_names_the_field_and_the_fix(operator: Client) -> None:
    headers = {"content-type": "application/json"}
    broken = (await operator.http.post("/v1/businesses", content=b'{"name"', headers=headers)).json()
    assert broken["errors"] == [{"field": "body", "problem": "must be JSON: syntax error at character 7"}]
    problem = await operator.refused("GET", "/v1/calls?number=13800000001", "invalid")
    assert problem["detail"] == "number: must be the 15 digits of a 700 number, such as 700100000010001"
    problem = await operator.refused("POST", "/v1/bindings", "invalid", {"mode": "AXB", "b": "13900000002"})
    assert problem["detail"] == "a: required"
    assert "/docs" in (await operator.refused("GET", "/v1/nothing", "not_found"))["detail"]


@pytest.mark.parametrize("name", ["int", "hours[0]", "constrained-str"])
async def test_an_unknown_field_is_named_however_it_is_called(operator: Client, name: str) -> None:
    problem = await operator.refused("POST", "/v1/bindings", "invalid", {"mode": "AXB", name: 1})
    assert {"field": name, "problem": "there is no such field: see /docs"} in problem["errors"]


@pytest.mark.parametrize("body", [b'{"name": "\xff"}', b"[" * 100_000, b"1" * 5_000], ids=["UTF-8", "depth", "digits"])
async def test_a_body_that_cannot_be_read_is_named(operator: Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    problem = (await operator.http.post("/v1/businesses", content=body, headers=headers)).json()
    assert (problem["status"], problem["type"]) == (400, "/problems/invalid")
    assert [error["field"] for error in problem["errors"]] == ["body"]
    assert problem["detail"].startswith("body: must be JSON in UTF-8")


async def test_an_id_that_no_resource_can_have_is_not_found(operator: Client) -> None:
    for path in ("/v1/bindings/no", "/v1/calls/17", "/v1/webhooks/x/dead", "/v1/lists/nobody/acme/entries"):
        problem = await operator.refused("GET", path, "not_found")
        assert "should match" not in str(problem)  # a pattern
    await operator.refused("POST", "/v1/businesses/-/approve", "not_found", {"reason": "x"})
