"""The page of filed A numbers: what waits for the carriers' answers, the answers, documents that go on demand."""

from __future__ import annotations

import csv
from typing import Any, Final

from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, search_party, show_list
from relay.service.filings import DOCUMENT_TYPES, AnswerWords, FilingWords
from relay.translation import N_

FILINGS: Final = ListView(
    title=N_("Filed A numbers"),
    path="/v1/filings",
    columns=(
        Column("business_id", N_("Business"), "text", "/filings?business_id={business_id}"),
        Column("number", N_("A number"), "mono"),
        Column("state", N_("State"), "state"),
        Column("reference", N_("Reference")),
        Column("holder", N_("Holder")),
        Column("document", N_("Document"), "mono"),
        Column("filed_at", N_("Filed"), "moment"),
        Column("answered_at", N_("Answered"), "moment"),
        Column("expires_at", N_("Ends"), "moment"),
        Column("code", N_("Code"), "mono"),
        Column("reason", N_("Reason")),
    ),
    empty=N_("No A number is filed."),
    filters=(
        Filter("business_id", N_("Business"), needs="operator"),
        Filter(
            "state", N_("State"), "choice", ("submitted", "approved", "rejected", "expired", "revoked", "withdrawn")
        ),
        Filter("expiring", N_("Ends within 30 days"), "choice", ("true",)),
    ),
    template="filings.html",
    has_parties=True,
    by_party=True,
)
_WORDS: Final = (*FilingWords._fields, "business_id")


async def show_filings(page: ConsolePage) -> Response:
    """The filings that the key may see."""
    return await show_list(page, FILINGS, document_types=DOCUMENT_TYPES, answer_columns=AnswerWords._fields)


async def find_number(page: ConsolePage) -> Response:
    """The filings of a number, with what they were before each change."""
    columns = (Column("until", N_("Until"), "moment"), *FILINGS.columns)
    listing = FILINGS._replace(columns=columns)
    return await search_party(page, listing, document_types=DOCUMENT_TYPES, answer_columns=AnswerWords._fields)


async def add(page: ConsolePage) -> Response:
    """File a number, or change its filing."""
    done = N_("The number is filed.")
    return await page.change("/filings", done, "POST", "/v1/filings", body=_given(page, *_WORDS, "state"))


async def withdraw(page: ConsolePage) -> Response:
    """Withdraw a filing."""
    done = N_("The filing is withdrawn.")
    return await page.change("/filings", done, "DELETE", "/v1/filings", body=_given(page, "number", "business_id"))


async def forget(page: ConsolePage) -> Response:
    """Remove a holder's documents on his demand."""
    done = N_("The documents are removed, and the filing is withdrawn.")
    body = _given(page, "number", "business_id", "reason")
    return await page.change("/filings", done, "POST", "/v1/filings/forget", body=body)


async def answer(page: ConsolePage) -> Response:
    """Enter carriers' answers, a CSV line each."""
    lines = [line for line in page.form.get("lines", "").splitlines() if line.strip()]
    if lines and set(head := _cells(lines[0])) <= set(AnswerWords._fields):
        lines.pop(0)
    else:
        head = list(AnswerWords._fields)
    items = [dict(zip(head, _cells(line), strict=False)) | _given(page, "business_id") for line in lines]
    try:
        results = await page.asker.ask(
            "POST", "/v1/filings/answers", body={"items": items}, once=page.form.get("once", "")
        )
    except ApiError as problem:
        page.notice("bad", " ".join([problem.detail, *page.others(problem)]))
        return page.redirect("/filings")
    refused = [each for each in results["items"] if each["problem"]]
    text = page.words(N_("%(good)s answers entered, %(bad)s refused"))
    page.notice("bad" if refused else "good", text % {"good": len(items) - len(refused), "bad": len(refused)})
    for each in refused[:5]:
        page.notice("bad", f"{each['index'] + 1}: {page.words(each['problem']['detail'])}")
    return page.redirect("/filings")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]))]


def _given(page: ConsolePage, *names: str) -> dict[str, Any]:
    """The filled-in fields of the form."""
    return {name: value for name in names if (value := page.form.get(name, "").strip())}


ROUTES: Final[list[PageRoute]] = [
    get("/filings", show_filings, "filings"),
    get("/filings/search", find_number, "filings parties:read"),
    post("/filings/add", add, "filings"),
    post("/filings/withdraw", withdraw, "filings"),
    post("/filings/forget", forget, "operator"),
    post("/filings/answers", answer, "operator"),
]
