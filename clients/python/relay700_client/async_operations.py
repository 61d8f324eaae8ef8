"""The operations of the API: made by generate.py from /openapi.json."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from msgspec import UNSET, UnsetType

from relay700_client import models

T = TypeVar("T")


class AsyncOperations(ABC):
    """A method for each operation."""

    @abstractmethod
    async def _ask(
        self,
        method: str,
        path: str,
        to: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> T: ...

    async def create_binding(
        self,
        *,
        mode: Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"],
        expires_in: int | None | UnsetType = UNSET,
        expires_at: datetime | None | UnsetType = UNSET,
        a: str | None | UnsetType = UNSET,
        late: bool | UnsetType = UNSET,
        b: str | None | UnsetType = UNSET,
        group_id: str | None | UnsetType = UNSET,
        x: str | None | UnsetType = UNSET,
        y: str | None | UnsetType = UNSET,
        pool_id: str | None | UnsetType = UNSET,
        area: str | None | UnsetType = UNSET,
        area_match: Literal["strict", "loose"] | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        order_id: str | None | UnsetType = UNSET,
        consent: str | None | UnsetType = UNSET,
        user_data: str | None | UnsetType = UNSET,
        direction: Literal["both", "a_to_b", "b_to_a"] | UnsetType = UNSET,
        max_call_s: int | None | UnsetType = UNSET,
        ring_timeout_s: int | None | UnsetType = UNSET,
        white_only: bool | UnsetType = UNSET,
        hours: str | None | UnsetType = UNSET,
        record: bool | UnsetType = UNSET,
        industrial_id: str | None | UnsetType = UNSET,
        idle_ttl_s: int | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Binding:
        """Make a binding.

        Effective from the next call. Numbers that are not given are chosen from the pool.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            "/v1/bindings",
            models.Binding,
            body={"expires_in": expires_in, "expires_at": expires_at, "mode": mode, "a": a, "late": late, "b": b, "group_id": group_id, "x": x, "y": y, "pool_id": pool_id, "area": area, "area_match": area_match, "business_id": business_id, "order_id": order_id, "consent": consent, "user_data": user_data, "direction": direction, "max_call_s": max_call_s, "ring_timeout_s": ring_timeout_s, "white_only": white_only, "hours": hours, "record": record, "industrial_id": industrial_id, "idle_ttl_s": idle_ttl_s},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_bindings(
        self,
        *,
        number: str | None | UnsetType = UNSET,
        order_id: str | None | UnsetType = UNSET,
        group_id: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        state: Literal["live", "expired", "ended"] | None | UnsetType = UNSET,
        mode: Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"] | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.BindingPage:
        """List bindings.

        Bindings, newest first. To search by party use POST /v1/bindings/search.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            "/v1/bindings",
            models.BindingPage,
            query={"number": number, "order_id": order_id, "group_id": group_id, "business_id": business_id, "state": state, "mode": mode, "since": since, "limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def search_bindings(
        self,
        *,
        number: str | None | UnsetType = UNSET,
        party: str | None | UnsetType = UNSET,
        order_id: str | None | UnsetType = UNSET,
        group_id: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        state: Literal["live", "expired", "ended"] | None | UnsetType = UNSET,
        mode: Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"] | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.BindingPage:
        """Search bindings.

        Bindings, newest first, also by party: a current one, one before a change, or a member of the group.

        The field `party` requires the scope parties:read.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "POST",
            "/v1/bindings/search",
            models.BindingPage,
            query={"limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
            body={"number": number, "party": party, "order_id": order_id, "group_id": group_id, "business_id": business_id, "state": state, "mode": mode, "since": since},
        )

    async def get_binding(
        self,
        binding_id: str,
        *,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.Binding:
        """Show a binding.

        A binding, live or ended.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/bindings/{quote(binding_id, safe='')}",
            models.Binding,
            query={"reveal": reveal, "reason": reason},
        )

    async def update_binding(
        self,
        binding_id: str,
        *,
        expires_in: int | None | UnsetType = UNSET,
        expires_at: datetime | None | UnsetType = UNSET,
        a: str | None | UnsetType = UNSET,
        b: str | None | UnsetType = UNSET,
        group_id: str | UnsetType = UNSET,
        direction: Literal["both", "a_to_b", "b_to_a"] | UnsetType = UNSET,
        max_call_s: int | None | UnsetType = UNSET,
        ring_timeout_s: int | None | UnsetType = UNSET,
        white_only: bool | UnsetType = UNSET,
        hours: str | None | UnsetType = UNSET,
        user_data: str | None | UnsetType = UNSET,
        record: bool | UnsetType = UNSET,
        industrial_id: str | None | UnsetType = UNSET,
        idle_ttl_s: int | None | UnsetType = UNSET,
        version: int | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Binding:
        """Change a binding.

        Change a live binding, effective from the next call. A replaced party cools down on the number.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "PATCH",
            f"/v1/bindings/{quote(binding_id, safe='')}",
            models.Binding,
            body={"expires_in": expires_in, "expires_at": expires_at, "a": a, "b": b, "group_id": group_id, "direction": direction, "max_call_s": max_call_s, "ring_timeout_s": ring_timeout_s, "white_only": white_only, "hours": hours, "user_data": user_data, "record": record, "industrial_id": industrial_id, "idle_ttl_s": idle_ttl_s, "version": version},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def end_binding(
        self,
        binding_id: str,
        *,
        reason: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Binding:
        """End a binding.

        Refuse calls from the next one on; calls that are up continue. The binding can still be read.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/bindings/{quote(binding_id, safe='')}",
            models.Binding,
            query={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def get_binding_history(
        self,
        binding_id: str,
    ) -> models.BindingHistory:
        """Show the history of a binding.

        Who made, changed and ended it, and when. Changed fields are named, without their values.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/bindings/{quote(binding_id, safe='')}/history",
            models.BindingHistory,
        )

    async def renew_binding(
        self,
        binding_id: str,
        *,
        expires_in: int | None | UnsetType = UNSET,
        expires_at: datetime | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Binding:
        """Renew a binding.

        Set a new expiry of a live binding.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            f"/v1/bindings/{quote(binding_id, safe='')}/renew",
            models.Binding,
            body={"expires_in": expires_in, "expires_at": expires_at},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_bindings(
        self,
        *,
        items: list[models.BatchItemRequest],
        idempotency_key: str | None = None,
    ) -> models.Batch:
        """Make many bindings.

        Items succeed or fail independently, malformed ones too. Results are in the order of the request.

        An item may have its own `idempotency_key`: what failed can be sent again in another batch, with what was made.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            "/v1/bindings/batch",
            models.Batch,
            body={"items": items},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def hand_over_bindings(
        self,
        *,
        to_a: str | None,
        order_ids: list[str] | UnsetType = UNSET,
        from_a: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.HandOver:
        """Give many bindings another party a.

        The numbers stay: the new a dials them from the next call on, b reaches it by them, the old a is refused.

        Each binding is changed by itself, so that one refusal does not hold up the others.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            "/v1/bindings/hand-over",
            models.HandOver,
            body={"order_ids": order_ids, "from_a": from_a, "to_a": to_a, "business_id": business_id, "cursor": cursor},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_group(
        self,
        *,
        name: str,
        business_id: str | None | UnsetType = UNSET,
        members: list[str] | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Group:
        """Make a group.

        Make a group, optionally with members, for which operator keys need `parties:read`.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            "/v1/groups",
            models.Group,
            body={"name": name, "business_id": business_id, "members": members},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_groups(
        self,
        *,
        business_id: str | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.GroupPage:
        """List groups.

        Groups, oldest first.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            "/v1/groups",
            models.GroupPage,
            query={"business_id": business_id, "limit": limit, "cursor": cursor},
        )

    async def get_group(
        self,
        group_id: str,
    ) -> models.Group:
        """Show a group.

        A group without its members.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/groups/{quote(group_id, safe='')}",
            models.Group,
        )

    async def delete_group(
        self,
        group_id: str,
        *,
        idempotency_key: str | None = None,
    ) -> models.Group:
        """Delete a group.

        Delete a group without live bindings. Tracebacks still find its former members.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/groups/{quote(group_id, safe='')}",
            models.Group,
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_group_members(
        self,
        group_id: str,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.MemberPage:
        """List the members of a group.

        Members in arbitrary but stable order.

        Scope: `bindings:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/groups/{quote(group_id, safe='')}/members",
            models.MemberPage,
            query={"limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def add_group_members(
        self,
        group_id: str,
        *,
        members: list[str],
        idempotency_key: str | None = None,
    ) -> models.Membership:
        """Add members to a group.

        Add all or none. Parties that are already members are ignored. A group has at most 1,000 members.

        Operator keys need `parties:read`.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            f"/v1/groups/{quote(group_id, safe='')}/members",
            models.Membership,
            body={"members": members},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def remove_group_members(
        self,
        group_id: str,
        *,
        members: list[str],
        idempotency_key: str | None = None,
    ) -> models.Membership:
        """Remove members from a group.

        Remove members. Parties that are not members are ignored. Operator keys need `parties:read`.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            f"/v1/groups/{quote(group_id, safe='')}/members/remove",
            models.Membership,
            body={"members": members},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_filing(
        self,
        *,
        number: str,
        reference: str | None | UnsetType = UNSET,
        holder: str | None | UnsetType = UNSET,
        document_type: Literal["id_card", "passport", "permit", "business_licence", "other"] | None | UnsetType = UNSET,
        document: str | None | UnsetType = UNSET,
        photo: str | None | UnsetType = UNSET,
        state: Literal["submitted", "approved"] | None | UnsetType = UNSET,
        expires_at: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Filing:
        """File an A number.

        File an A number, or change its filing. Effective from the next call.

        A filing in force stays so while its holder stays the same. Operator keys need `parties:read`.

        Scope: `filings`.
        """
        return await self._ask(
            "POST",
            "/v1/filings",
            models.Filing,
            body={"number": number, "reference": reference, "holder": holder, "document_type": document_type, "document": document, "photo": photo, "state": state, "expires_at": expires_at, "business_id": business_id},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_filings(
        self,
        *,
        business_id: str | None | UnsetType = UNSET,
        state: Literal["submitted", "approved", "rejected", "expired", "revoked", "withdrawn"] | None | UnsetType = UNSET,
        expiring: bool | UnsetType = UNSET,
        all: bool | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.FilingPage:
        """List filings.

        Filings in arbitrary but stable order.

        Scope: `filings`.
        """
        return await self._ask(
            "GET",
            "/v1/filings",
            models.FilingPage,
            query={"business_id": business_id, "state": state, "expiring": expiring, "all": all, "limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def withdraw_filing(
        self,
        *,
        number: str,
        business_id: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Filing:
        """Withdraw a filing.

        The number counts as not filed from the next call on. It is in the body, as a URL would expose it to logs.

        Operator keys need `parties:read`.

        Scope: `filings`.
        """
        return await self._ask(
            "DELETE",
            "/v1/filings",
            models.Filing,
            body={"number": number, "business_id": business_id},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def search_filings(
        self,
        *,
        party: str,
        business_id: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.FilingVersionPage:
        """Search the filings of a number.

        The filings of a number as they are, each followed by its earlier forms, newest first. Needs `parties:read`.

        Scope: `filings`.
        """
        return await self._ask(
            "POST",
            "/v1/filings/search",
            models.FilingVersionPage,
            query={"reveal": reveal, "reason": reason},
            body={"party": party, "business_id": business_id},
        )

    async def forget_holder(
        self,
        *,
        number: str,
        reason: str,
        business_id: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Filing:
        """Remove a holder's documents.

        Withdraw a filing and remove name, document and photo, on the holder's demand. Number and states remain.

        Needs `parties:read`.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/filings/forget",
            models.Filing,
            body={"number": number, "business_id": business_id, "reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def answer_filings(
        self,
        *,
        items: list[models.FilingAnswer],
        idempotency_key: str | None = None,
    ) -> models.FilingAnswerResults:
        """Enter carriers' answers.

        Enter what carriers answered to filings. Items succeed or fail independently.

        Items with a `number` need `parties:read`; those with a `reference` do not.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/filings/answers",
            models.FilingAnswerResults,
            body={"items": items},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_capture_arm(
        self,
        *,
        for_s: int,
        number: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        peer: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Arm:
        """Arm a number, a business user or a peer.

        Capture its calls, starting within 2 seconds, whatever comes of them. Refused while `[capture] keep` is "off".

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/capture/arms",
            models.Arm,
            body={"number": number, "business_id": business_id, "peer": peer, "for_s": for_s},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_capture_arms(
        self,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.ArmPage:
        """List what is armed.

        What is armed now, by id.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/capture/arms",
            models.ArmPage,
            query={"limit": limit, "cursor": cursor},
        )

    async def delete_capture_arm(
        self,
        arm_id: str,
        *,
        idempotency_key: str | None = None,
    ) -> models.Arm:
        """Disarm.

        End it at once. What was captured stays.

        Scope: `operator`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/capture/arms/{quote(arm_id, safe='')}",
            models.Arm,
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_list_entries(
        self,
        whose: Literal["business", "binding"],
        owner_id: str,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.EntryPage:
        """List the entries of a list.

        Entries in arbitrary but stable order.

        Scope: `lists`.
        """
        return await self._ask(
            "GET",
            f"/v1/lists/{quote(whose, safe='')}/{quote(owner_id, safe='')}/entries",
            models.EntryPage,
            query={"limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def set_list_entry(
        self,
        whose: Literal["business", "binding"],
        owner_id: str,
        *,
        number: str,
        kind: Literal["black", "white"],
        idempotency_key: str | None = None,
    ) -> models.Entry:
        """Put a caller on a list.

        `black` refuses the caller, `white` admits it under `white_only`. Entries of a binding override its business.

        Operator keys need `parties:read`.

        Scope: `lists`.
        """
        return await self._ask(
            "PUT",
            f"/v1/lists/{quote(whose, safe='')}/{quote(owner_id, safe='')}/entries",
            models.Entry,
            body={"number": number, "kind": kind},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def remove_list_entry(
        self,
        whose: Literal["business", "binding"],
        owner_id: str,
        *,
        number: str,
        idempotency_key: str | None = None,
    ) -> models.EntryRemoved:
        """Take a caller off a list.

        Remove an entry. The caller is in the body, because a URL would expose it to proxies and logs.

        Operator keys need `parties:read`.

        Scope: `lists`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/lists/{quote(whose, safe='')}/{quote(owner_id, safe='')}/entries",
            models.EntryRemoved,
            body={"number": number},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_prefix(
        self,
        *,
        prefix: str,
        peer: str | UnsetType = UNSET,
        pool_id: str | UnsetType = UNSET,
        cool_down_s: int | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.PrefixLoaded:
        """Load a prefix.

        Load a prefix with its 10,000 numbers, available for binding at once.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/prefixes",
            models.PrefixLoaded,
            body={"prefix": prefix, "peer": peer, "pool_id": pool_id, "cool_down_s": cool_down_s},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_prefixes(
        self,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.PrefixPage:
        """List prefixes.

        Loaded prefixes in ascending order.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/prefixes",
            models.PrefixPage,
            query={"limit": limit, "cursor": cursor},
        )

    async def get_prefix(
        self,
        prefix: str,
    ) -> models.Prefix:
        """Show a prefix.

        One loaded prefix.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            f"/v1/prefixes/{quote(prefix, safe='')}",
            models.Prefix,
        )

    async def update_prefix(
        self,
        prefix: str,
        *,
        state: Literal["active", "locked", "returned"] | UnsetType = UNSET,
        peer: str | UnsetType = UNSET,
        cool_down_s: int | None | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Prefix:
        """Change a prefix.

        Any state but `active` locks all numbers of the prefix from the next call on.

        Scope: `operator`.
        """
        return await self._ask(
            "PATCH",
            f"/v1/prefixes/{quote(prefix, safe='')}",
            models.Prefix,
            body={"state": state, "peer": peer, "cool_down_s": cool_down_s, "reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_numbers(
        self,
        *,
        pool_id: str | None | UnsetType = UNSET,
        state: Literal["locked", "bound", "cooling", "free"] | None | UnsetType = UNSET,
        prefix: str | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.NumberPage:
        """List numbers.

        Numbers in ascending order. A business user sees those of its own pools.

        Scope: `numbers:read`.
        """
        return await self._ask(
            "GET",
            "/v1/numbers",
            models.NumberPage,
            query={"pool_id": pool_id, "state": state, "prefix": prefix, "limit": limit, "cursor": cursor},
        )

    async def get_number(
        self,
        number: str,
    ) -> models.Number:
        """Show a number.

        One number. A business user sees those that its bindings may use, and a legacy number that it holds.

        A number of a common pool is shown as `free` to business users that have no bindings on it.

        Scope: `numbers:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/numbers/{quote(number, safe='')}",
            models.Number,
        )

    async def lock_number(
        self,
        number: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Number:
        """Lock a number.

        Refuse calls to the number from the next one on, and exclude it from new bindings.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/numbers/{quote(number, safe='')}/lock",
            models.Number,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def unlock_number(
        self,
        number: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Number:
        """Unlock a number.

        Release the operator's lock and the fraud lock. A lock of the prefix remains.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/numbers/{quote(number, safe='')}/unlock",
            models.Number,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def hold_number(
        self,
        number: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Number:
        """Hold a number.

        Exclude a number from new bindings. Its bindings and calls go on.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            f"/v1/numbers/{quote(number, safe='')}/hold",
            models.Number,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def unhold_number(
        self,
        number: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Number:
        """Unhold a number.

        Let a held number get new bindings.

        Scope: `bindings:write`.
        """
        return await self._ask(
            "POST",
            f"/v1/numbers/{quote(number, safe='')}/unhold",
            models.Number,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def move_numbers(
        self,
        *,
        pool_id: str,
        numbers: list[str],
        idempotency_key: str | None = None,
    ) -> models.Moved:
        """Move numbers to another pool.

        Move all or none. Their bindings remain.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/numbers/move",
            models.Moved,
            body={"pool_id": pool_id, "numbers": numbers},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def end_rest(
        self,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.RestEnded:
        """End the rest of numbers after a restore.

        The next bindings may get numbers of bindings that the restored store lacks. Cool-downs of bindings go on.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/numbers/end-rest",
            models.RestEnded,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_pool(
        self,
        *,
        id: str,
        business_id: str | None | UnsetType = UNSET,
        area: str | UnsetType = UNSET,
        max_bindings: int | UnsetType = UNSET,
        warn_percent: int | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Pool:
        """Make a pool.

        Make an empty pool. Load prefixes or move numbers into it.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/pools",
            models.Pool,
            body={"id": id, "business_id": business_id, "area": area, "max_bindings": max_bindings, "warn_percent": warn_percent},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_pools(
        self,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.PoolPage:
        """List pools.

        Pools by id. A business user sees its own.

        Scope: `numbers:read`.
        """
        return await self._ask(
            "GET",
            "/v1/pools",
            models.PoolPage,
            query={"limit": limit, "cursor": cursor},
        )

    async def get_pool(
        self,
        pool_id: str,
    ) -> models.Pool:
        """Show a pool.

        One pool. A business user sees those that its numbers come from.

        Scope: `numbers:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/pools/{quote(pool_id, safe='')}",
            models.Pool,
        )

    async def update_pool(
        self,
        pool_id: str,
        *,
        business_id: str | None | UnsetType = UNSET,
        area: str | UnsetType = UNSET,
        max_bindings: int | UnsetType = UNSET,
        warn_percent: int | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Pool:
        """Change a pool.

        Change a pool. Existing bindings remain.

        Scope: `operator`.
        """
        return await self._ask(
            "PATCH",
            f"/v1/pools/{quote(pool_id, safe='')}",
            models.Pool,
            body={"business_id": business_id, "area": area, "max_bindings": max_bindings, "warn_percent": warn_percent},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def get_pool_usage(
        self,
        pool_id: str,
    ) -> models.Usage:
        """Show the usage of a pool.

        Current count of free, bound, cooling and locked numbers.

        Of a common pool a business user sees whole percents, cooling numbers as bound, and the count of its own bindings.

        Scope: `numbers:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/pools/{quote(pool_id, safe='')}/usage",
            models.Usage,
        )

    async def list_calls(
        self,
        *,
        number: str | None | UnsetType = UNSET,
        order_id: str | None | UnsetType = UNSET,
        binding_id: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        outcome: Literal["answered", "business_busy", "business_rate", "business_revoked", "business_suspended", "busy", "caller_anonymous", "caller_blacklisted", "caller_international", "caller_not_allowed", "caller_not_listed", "cancelled", "delivered", "direction_barred", "draining", "expired", "failed", "frequency_caller", "frequency_number", "legacy_ended", "media_failed", "no_answer", "no_binding", "no_callee", "not_filed", "not_secure", "number_busy", "number_in_text", "number_locked", "number_unknown", "outside_hours", "over_limit", "own_number", "party_not_allowed", "rejected", "store_failed", "unreachable", "verification_failed", "verification_refused"] | None | UnsetType = UNSET,
        kind: Literal["call", "message"] | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        until: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.CallPage:
        """List call records.

        Ended calls, newest first. A short or empty page may not be the last one. By party: POST /v1/calls/search.

        Scope: `calls:read`.
        """
        return await self._ask(
            "GET",
            "/v1/calls",
            models.CallPage,
            query={"number": number, "order_id": order_id, "binding_id": binding_id, "business_id": business_id, "outcome": outcome, "kind": kind, "since": since, "until": until, "limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def search_calls(
        self,
        *,
        number: str | None | UnsetType = UNSET,
        party: str | None | UnsetType = UNSET,
        order_id: str | None | UnsetType = UNSET,
        binding_id: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        outcome: Literal["answered", "business_busy", "business_rate", "business_revoked", "business_suspended", "busy", "caller_anonymous", "caller_blacklisted", "caller_international", "caller_not_allowed", "caller_not_listed", "cancelled", "delivered", "direction_barred", "draining", "expired", "failed", "frequency_caller", "frequency_number", "legacy_ended", "media_failed", "no_answer", "no_binding", "no_callee", "not_filed", "not_secure", "number_busy", "number_in_text", "number_locked", "number_unknown", "outside_hours", "over_limit", "own_number", "party_not_allowed", "rejected", "store_failed", "unreachable", "verification_failed", "verification_refused"] | None | UnsetType = UNSET,
        kind: Literal["call", "message"] | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        until: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.CallPage:
        """Search call records.

        As the list, also by party. The field `party` requires the scope parties:read.

        Scope: `calls:read`.
        """
        return await self._ask(
            "POST",
            "/v1/calls/search",
            models.CallPage,
            query={"limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
            body={"number": number, "party": party, "order_id": order_id, "binding_id": binding_id, "business_id": business_id, "outcome": outcome, "kind": kind, "since": since, "until": until},
        )

    async def list_live_calls(
        self,
        *,
        limit: int | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.LiveCalls:
        """List live calls.

        Calls in the relay, ringing or up, newest first.

        Scope: `calls:read`.
        """
        return await self._ask(
            "GET",
            "/v1/calls/live",
            models.LiveCalls,
            query={"limit": limit, "business_id": business_id, "reveal": reveal, "reason": reason},
        )

    async def hang_up_call(
        self,
        call_id: str,
        *,
        reason: str | None | UnsetType = UNSET,
    ) -> models.HangUp:
        """Hang up a call.

        Send BYE to both sides. The `end_reason` of the record is `hung_up`.

        Scope: `calls:hangup`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/calls/live/{quote(call_id, safe='')}",
            models.HangUp,
            query={"reason": reason},
        )

    async def export_calls(
        self,
        *,
        since: datetime,
        until: datetime,
        format: Literal["csv", "jsonl", "parquet"] | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> bytes:
        """Export call records.

        Ended calls received in a period, oldest first. `parquet` is refused (400) if the relay has no pyarrow.

        Scope: `calls:read`.
        """
        return await self._ask(
            "GET",
            "/v1/calls/export",
            bytes,
            query={"since": since, "until": until, "format": format, "business_id": business_id, "reveal": reveal, "reason": reason},
        )

    async def get_call(
        self,
        call_id: str,
        *,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.CallDetail:
        """Show a call.

        A call that has ended, is up, or is ringing.

        Scope: `calls:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/calls/{quote(call_id, safe='')}",
            models.CallDetail,
            query={"reveal": reveal, "reason": reason},
        )

    async def list_recordings(
        self,
        *,
        business_id: str | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        until: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.RecordingPage:
        """List recordings.

        Recordings by time of storage, newest first. Deleted ones are listed as long as their call record is kept.

        Scope: `recordings:read`.
        """
        return await self._ask(
            "GET",
            "/v1/recordings",
            models.RecordingPage,
            query={"business_id": business_id, "since": since, "until": until, "limit": limit, "cursor": cursor},
        )

    async def get_recording(
        self,
        call_id: str,
        *,
        reason: str | None | UnsetType = UNSET,
        format: Literal["wav", "pcap"] | UnsetType = UNSET,
        channels: Literal["mono", "stereo"] | UnsetType = UNSET,
    ) -> bytes:
        """Read a recording.

        What both sides said, as a WAV file: 16 bits, 8 or 16 kHz; `stereo` has the caller left and the callee right.

        Operators give a `reason`, which is in the audit log before the response. With `format=pcap` they get the capture
        itself, with the media addresses of both sides.

        Scope: `recordings:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/calls/{quote(call_id, safe='')}/recording",
            bytes,
            query={"reason": reason, "format": format, "channels": channels},
        )

    async def delete_recording(
        self,
        call_id: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Recording:
        """Delete a recording.

        Delete a recording before the end of its retention, as on a person's demand.

        The call's record, the recording's hash, and the reason in the audit log stay.

        Scope: `operator`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/calls/{quote(call_id, safe='')}/recording",
            models.Recording,
            query={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_recording_url(
        self,
        call_id: str,
        *,
        channels: Literal["mono", "stereo"] | UnsetType = UNSET,
        expires_in_s: int | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.Link:
        """Make a link to a recording.

        A URL of the WAV file that needs no key. It ends at `expires_at`, and with the key of this request.

        The audit log has the making, and each use with the address that it came from.

        Scope: `recordings:read`.
        """
        return await self._ask(
            "POST",
            f"/v1/calls/{quote(call_id, safe='')}/recording/url",
            models.Link,
            body={"channels": channels, "expires_in_s": expires_in_s, "reason": reason},
        )

    async def explain_call(
        self,
        *,
        caller: str | None,
        number_dialled: str,
        peer: str | None | UnsetType = UNSET,
        at: datetime | None | UnsetType = UNSET,
        unknown_source: str | None | UnsetType = UNSET,
    ) -> models.Explain:
        """Explain a call.

        Why a call is refused, or where it goes. No call is made, none is counted, and no hook is asked.

        A business user may ask for numbers that it holds. Any other number gets the same answer as one that does not exist.

        Scope: `calls:read` and `parties:read`.
        """
        return await self._ask(
            "POST",
            "/v1/explain",
            models.Explain,
            body={"caller": caller, "number_dialled": number_dialled, "peer": peer, "at": at, "unknown_source": unknown_source},
        )

    async def get_call_ladder(
        self,
        call_id: str,
        *,
        format: Literal["json", "html", "pcap"] | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.Ladder | bytes:
        """Show the SIP messages of a call.

        Operators see both sides; `register:PEER` has a peer's registrations. Business users see the side of party a.

        Scope: `calls:read`.
        """
        return await self._ask(
            "GET",
            f"/v1/calls/{quote(call_id, safe='')}/ladder",
            models.Ladder,
            query={"format": format, "reveal": reveal, "reason": reason},
        )

    async def create_business(
        self,
        *,
        name: str,
        licence: str | UnsetType = UNSET,
        application: str | UnsetType = UNSET,
        scenario: Literal["express", "takeaway", "ride_hailing", "other"] | UnsetType = UNSET,
        contact: str | UnsetType = UNSET,
        scheme: str | UnsetType = UNSET,
        modes: list[Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"]] | UnsetType = UNSET,
        max_bindings: int | str | None | UnsetType = UNSET,
        max_calls: int | str | None | UnsetType = UNSET,
        max_cps: int | str | None | UnsetType = UNSET,
        max_binds_per_s: int | str | None | UnsetType = UNSET,
        max_binds_per_day: int | str | None | UnsetType = UNSET,
        white_only: bool | UnsetType = UNSET,
        hours: str | None | UnsetType = UNSET,
        live_events: bool | UnsetType = UNSET,
        language: Literal["zh", "en"] | None | UnsetType = UNSET,
        id: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Apply for a business user.

        Create a business user in state `applied`. It can do nothing until it is approved.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/businesses",
            models.Business,
            body={"licence": licence, "application": application, "scenario": scenario, "contact": contact, "scheme": scheme, "modes": modes, "max_bindings": max_bindings, "max_calls": max_calls, "max_cps": max_cps, "max_binds_per_s": max_binds_per_s, "max_binds_per_day": max_binds_per_day, "white_only": white_only, "hours": hours, "live_events": live_events, "language": language, "id": id, "name": name},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_businesses(
        self,
        *,
        state: Literal["applied", "approved", "suspended", "revoked"] | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.BusinessPage:
        """List business users.

        All business users, by id. A business user sees only itself.

        Scope: any.
        """
        return await self._ask(
            "GET",
            "/v1/businesses",
            models.BusinessPage,
            query={"state": state, "limit": limit, "cursor": cursor},
        )

    async def get_business(
        self,
        business_id: str,
        *,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.Business:
        """Show a business user.

        One business user; a business user sees only itself.

        Scope: any.
        """
        return await self._ask(
            "GET",
            f"/v1/businesses/{quote(business_id, safe='')}",
            models.Business,
            query={"reveal": reveal, "reason": reason},
        )

    async def update_business(
        self,
        business_id: str,
        *,
        name: str | UnsetType = UNSET,
        licence: str | UnsetType = UNSET,
        application: str | UnsetType = UNSET,
        scenario: Literal["express", "takeaway", "ride_hailing", "other"] | UnsetType = UNSET,
        contact: str | UnsetType = UNSET,
        scheme: str | UnsetType = UNSET,
        modes: list[Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"]] | UnsetType = UNSET,
        max_bindings: int | str | None | UnsetType = UNSET,
        max_calls: int | str | None | UnsetType = UNSET,
        max_cps: int | str | None | UnsetType = UNSET,
        max_binds_per_s: int | str | None | UnsetType = UNSET,
        max_binds_per_day: int | str | None | UnsetType = UNSET,
        white_only: bool | UnsetType = UNSET,
        hours: str | None | UnsetType = UNSET,
        live_events: bool | UnsetType = UNSET,
        language: Literal["zh", "en"] | None | UnsetType = UNSET,
        version: int | None | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Change a business user.

        Quotas, modes and hours are effective from the next request and the next call.

        A change of name, licence, application, scenario or scheme returns an approved business user to `applied`: all calls
        on its bindings are refused until it is approved again. Such a change requires a reason.

        Scope: `operator`.
        """
        return await self._ask(
            "PATCH",
            f"/v1/businesses/{quote(business_id, safe='')}",
            models.Business,
            body={"name": name, "licence": licence, "application": application, "scenario": scenario, "contact": contact, "scheme": scheme, "modes": modes, "max_bindings": max_bindings, "max_calls": max_calls, "max_cps": max_cps, "max_binds_per_s": max_binds_per_s, "max_binds_per_day": max_binds_per_day, "white_only": white_only, "hours": hours, "live_events": live_events, "language": language, "version": version, "reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def get_business_history(
        self,
        business_id: str,
    ) -> models.BusinessHistory:
        """Show the history of a business user.

        Changes of its state, qualification and contact: actor, time, reason and previous value.

        Scope: any.
        """
        return await self._ask(
            "GET",
            f"/v1/businesses/{quote(business_id, safe='')}/history",
            models.BusinessHistory,
        )

    async def approve_business(
        self,
        business_id: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Approve a business user.

        Requires state `applied`, and the fields that its scenario needs: licence, application, scheme and contact.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/businesses/{quote(business_id, safe='')}/approve",
            models.Business,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def suspend_business(
        self,
        business_id: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Suspend a business user.

        All calls on its bindings are refused from the next one on.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/businesses/{quote(business_id, safe='')}/suspend",
            models.Business,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def resume_business(
        self,
        business_id: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Resume a suspended business user.

        Calls on its bindings are served again.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/businesses/{quote(business_id, safe='')}/resume",
            models.Business,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def revoke_business(
        self,
        business_id: str,
        *,
        reason: str,
        idempotency_key: str | None = None,
    ) -> models.Business:
        """Revoke a business user.

        Final. All calls on its bindings are refused, its keys end, its webhooks stop. Nothing is deleted.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            f"/v1/businesses/{quote(business_id, safe='')}/revoke",
            models.Business,
            body={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_key(
        self,
        business_id: str,
        *,
        scopes: list[Literal["bindings:read", "bindings:write", "numbers:read", "calls:read", "calls:hangup", "recordings:read", "parties:read", "webhooks", "hooks", "lists", "filings", "reports", "keys", "trace", "operator"]],
        expires_at: datetime | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.KeyCreated:
        """Make a key.

        Make a key with scopes that the requesting key has. The secret is shown in this response only.

        Scope: `keys`.
        """
        return await self._ask(
            "POST",
            f"/v1/businesses/{quote(business_id, safe='')}/keys",
            models.KeyCreated,
            body={"scopes": scopes, "expires_at": expires_at},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_keys(
        self,
        business_id: str,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.KeyPage:
        """List the keys of a business user.

        All keys by id, including revoked and expired ones, without their secrets.

        Scope: `keys`.
        """
        return await self._ask(
            "GET",
            f"/v1/businesses/{quote(business_id, safe='')}/keys",
            models.KeyPage,
            query={"limit": limit, "cursor": cursor},
        )

    async def revoke_key(
        self,
        key_id: str,
        *,
        reason: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Key:
        """Revoke a key.

        Refuse the key from the next request on. The requesting key must have all of its scopes.

        Scope: `keys`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/keys/{quote(key_id, safe='')}",
            models.Key,
            query={"reason": reason},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def rotate_key(
        self,
        key_id: str,
        *,
        overlap_s: int | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.KeyCreated:
        """Rotate a key.

        Make a new key with the same scopes and expiry; the old key ends after `overlap_s` seconds.

        The requesting key must have all of its scopes.

        Scope: `keys`.
        """
        return await self._ask(
            "POST",
            f"/v1/keys/{quote(key_id, safe='')}/rotate",
            models.KeyCreated,
            body={"overlap_s": overlap_s},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def create_webhook(
        self,
        *,
        url: str,
        kinds: list[Literal["call.received", "call.ringing", "call.answered", "call.ended", "call.refused", "message.delivered", "message.refused", "message.failed", "binding.made", "binding.expired", "number.cooling", "filing.answered", "filing.expiring", "recording.ready", "complaints.high", "probe.leak"]] | None | UnsetType = UNSET,
        parties: Literal["none", "masked", "clear"] | UnsetType = UNSET,
        format: Literal["relay700", "alibaba"] | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.WebhookCreated:
        """Make a webhook.

        Make a webhook. Its secret is shown in this response only.

        Scope: `webhooks`.
        """
        return await self._ask(
            "POST",
            "/v1/webhooks",
            models.WebhookCreated,
            body={"url": url, "kinds": kinds, "parties": parties, "format": format, "business_id": business_id},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_webhooks(
        self,
        *,
        business_id: str | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.WebhookPage:
        """List webhooks.

        Webhooks by id.

        Scope: `webhooks`.
        """
        return await self._ask(
            "GET",
            "/v1/webhooks",
            models.WebhookPage,
            query={"business_id": business_id, "limit": limit, "cursor": cursor},
        )

    async def get_webhook(
        self,
        webhook_id: str,
    ) -> models.Webhook:
        """Show a webhook.

        A webhook with the state of its deliveries.

        Scope: `webhooks`.
        """
        return await self._ask(
            "GET",
            f"/v1/webhooks/{quote(webhook_id, safe='')}",
            models.Webhook,
        )

    async def update_webhook(
        self,
        webhook_id: str,
        *,
        url: str | UnsetType = UNSET,
        kinds: list[Literal["call.received", "call.ringing", "call.answered", "call.ended", "call.refused", "message.delivered", "message.refused", "message.failed", "binding.made", "binding.expired", "number.cooling", "filing.answered", "filing.expiring", "recording.ready", "complaints.high", "probe.leak"]] | UnsetType = UNSET,
        parties: Literal["none", "masked", "clear"] | UnsetType = UNSET,
        enabled: bool | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Webhook:
        """Change a webhook.

        Change a webhook. Delivery is retried at once, regardless of earlier failures.

        Scope: `webhooks`.
        """
        return await self._ask(
            "PATCH",
            f"/v1/webhooks/{quote(webhook_id, safe='')}",
            models.Webhook,
            body={"url": url, "kinds": kinds, "parties": parties, "enabled": enabled},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def delete_webhook(
        self,
        webhook_id: str,
        *,
        idempotency_key: str | None = None,
    ) -> models.Webhook:
        """Remove a webhook.

        Remove a webhook with all its queued events.

        Scope: `webhooks`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/webhooks/{quote(webhook_id, safe='')}",
            models.Webhook,
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_dead_letters(
        self,
        webhook_id: str,
        *,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
    ) -> models.DeadEventPage:
        """List dead letters.

        Events whose delivery was given up, oldest first.

        Scope: `webhooks`.
        """
        return await self._ask(
            "GET",
            f"/v1/webhooks/{quote(webhook_id, safe='')}/dead",
            models.DeadEventPage,
            query={"limit": limit, "cursor": cursor},
        )

    async def resend_dead_letters(
        self,
        webhook_id: str,
        *,
        events: list[str] | None | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.Resent:
        """Send dead letters again.

        Queue dead letters again at their original positions, before later events that are still queued.

        Scope: `webhooks`.
        """
        return await self._ask(
            "POST",
            f"/v1/webhooks/{quote(webhook_id, safe='')}/dead/resend",
            models.Resent,
            body={"events": events},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def test_webhook(
        self,
        webhook_id: str,
        *,
        idempotency_key: str | None = None,
    ) -> models.Tested:
        """Send a test event.

        Queue an event of kind `webhook.test` behind the waiting ones.

        Scope: `webhooks`.
        """
        return await self._ask(
            "POST",
            f"/v1/webhooks/{quote(webhook_id, safe='')}/test",
            models.Tested,
            key=idempotency_key or secrets.token_hex(16),
        )

    async def get_hook(
        self,
        business_id: str,
    ) -> models.Hook:
        """Show the hook.

        The hook of a business user, without its secret.

        Scope: `hooks`.
        """
        return await self._ask(
            "GET",
            f"/v1/businesses/{quote(business_id, safe='')}/hook",
            models.Hook,
        )

    async def set_hook(
        self,
        business_id: str,
        *,
        url: str,
        parties: Literal["none", "masked", "clear"] | UnsetType = UNSET,
        unknown_callers: bool | UnsetType = UNSET,
        enabled: bool | UnsetType = UNSET,
        idempotency_key: str | None = None,
    ) -> models.HookSet:
        """Set the hook.

        Set the hook, effective from the next call on. The secret of a new one is shown in this response only.

        Scope: `hooks`.
        """
        return await self._ask(
            "PUT",
            f"/v1/businesses/{quote(business_id, safe='')}/hook",
            models.HookSet,
            body={"url": url, "parties": parties, "unknown_callers": unknown_callers, "enabled": enabled},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def remove_hook(
        self,
        business_id: str,
        *,
        idempotency_key: str | None = None,
    ) -> models.Hook:
        """Remove the hook.

        Remove the hook: from the next call on the bindings alone decide.

        Scope: `hooks`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/businesses/{quote(business_id, safe='')}/hook",
            models.Hook,
            key=idempotency_key or secrets.token_hex(16),
        )

    async def trace_number(
        self,
        *,
        number: str,
        reason: str,
        at: datetime | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        until: datetime | None | UnsetType = UNSET,
    ) -> models.Trace:
        """Trace a number.

        The parties behind a number at a given time, in clear, however long ago. Audited before the response.

        A span of time is 31 days at most; evidence takes longer ones.

        Scope: `trace` and `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/trace",
            models.Trace,
            body={"number": number, "at": at, "since": since, "until": until, "reason": reason},
        )

    async def create_evidence(
        self,
        *,
        number: str,
        since: datetime,
        until: datetime,
        reason: str,
    ) -> bytes:
        """Export the evidence for a number.

        Everything stored about a number in a period, in clear. `README.txt` in the bundle explains how to verify it.

        Scope: `trace` and `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/evidence",
            bytes,
            body={"number": number, "since": since, "until": until, "reason": reason},
        )

    async def get_daily_report(
        self,
        *,
        day: date,
        business_id: str | None | UnsetType = UNSET,
    ) -> models.Daily:
        """Show the report of a day.

        One line per business user and prefix, for a day in China time. Calls still up are not included.

        Scope: `reports`.
        """
        return await self._ask(
            "GET",
            "/v1/reports/daily",
            models.Daily,
            query={"day": day, "business_id": business_id},
        )

    async def set_complaints(
        self,
        *,
        day: date,
        business_id: str,
        prefix: str,
        count: int,
        idempotency_key: str | None = None,
    ) -> models.ComplaintsRequest:
        """Enter complaints of a day.

        Set the number of complaints of a day, replacing an earlier number.

        Scope: `operator`.
        """
        return await self._ask(
            "PUT",
            "/v1/reports/daily/complaints",
            models.ComplaintsRequest,
            body={"day": day, "business_id": business_id, "prefix": prefix, "count": count},
            key=idempotency_key or secrets.token_hex(16),
        )

    async def list_complaint_rates(
        self,
        *,
        business_id: str | None | UnsetType = UNSET,
    ) -> models.ComplaintRates:
        """Show the rates of complaints.

        Complaints per answered call of thirty days. A high rate warns; only an operator suspends.

        Scope: `reports`.
        """
        return await self._ask(
            "GET",
            "/v1/reports/complaints",
            models.ComplaintRates,
            query={"business_id": business_id},
        )

    async def list_audit_lines(
        self,
        *,
        actor: str | None | UnsetType = UNSET,
        action: str | None | UnsetType = UNSET,
        object: str | None | UnsetType = UNSET,
        business_id: str | None | UnsetType = UNSET,
        since: datetime | None | UnsetType = UNSET,
        until: datetime | None | UnsetType = UNSET,
        limit: int | UnsetType = UNSET,
        cursor: str | None | UnsetType = UNSET,
        reveal: bool | UnsetType = UNSET,
        reason: str | None | UnsetType = UNSET,
    ) -> models.AuditLinePage:
        """List audit lines.

        Changes and accesses to real numbers, newest first. Numbers in the lines are masked as well.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/audit",
            models.AuditLinePage,
            query={"actor": actor, "action": action, "object": object, "business_id": business_id, "since": since, "until": until, "limit": limit, "cursor": cursor, "reveal": reveal, "reason": reason},
        )

    async def verify_audit(
        self,
    ) -> models.AuditVerdict:
        """Verify the audit log.

        Check the chain over all lines, which takes time in proportion to the log.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/audit/verify",
            models.AuditVerdict,
        )

    async def list_peers(
        self,
    ) -> models.Peers:
        """List peers.

        Current state of all peers: reachability of their targets, and number of calls.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/peers",
            models.Peers,
        )

    async def list_bans(
        self,
    ) -> models.Bans:
        """List bans.

        The bans in force. They are in the relay's memory, and a restart lifts them.

        Scope: `operator`.
        """
        return await self._ask(
            "GET",
            "/v1/bans",
            models.Bans,
        )

    async def create_ban(
        self,
        *,
        address: str,
        for_s: float,
        reason: str | None | UnsetType = UNSET,
    ) -> models.Ban:
        """Ban an address.

        Ignore datagrams and refuse connections from an address. Peers and addresses of live calls cannot be banned.

        Scope: `operator`.
        """
        return await self._ask(
            "POST",
            "/v1/bans",
            models.Ban,
            body={"address": address, "for_s": for_s, "reason": reason},
        )

    async def lift_bans(
        self,
        *,
        reason: str | None | UnsetType = UNSET,
    ) -> models.BanLifted:
        """Lift all bans.

        Lift every ban at once.

        Scope: `operator`.
        """
        return await self._ask(
            "DELETE",
            "/v1/bans",
            models.BanLifted,
            query={"reason": reason},
        )

    async def lift_ban(
        self,
        address: str,
        *,
        reason: str | None | UnsetType = UNSET,
    ) -> models.BanLifted:
        """Lift a ban.

        Lift the ban of an address. For a banned network, name any address in it.

        Scope: `operator`.
        """
        return await self._ask(
            "DELETE",
            f"/v1/bans/{quote(address, safe='')}",
            models.BanLifted,
            query={"reason": reason},
        )

    async def get_health(
        self,
    ) -> models.Alive:
        """Check liveness.

        200 as long as the process answers.
        """
        return await self._ask(
            "GET",
            "/healthz",
            models.Alive,
        )

    async def get_readiness(
        self,
    ) -> models.Alive:
        """Check readiness.

        200 if the store answers and the relay accepts calls; otherwise 503, also while the relay drains.
        """
        return await self._ask(
            "GET",
            "/readyz",
            models.Alive,
        )

    async def get_metrics(
        self,
    ) -> bytes:
        """Metrics for Prometheus.

        Metrics in Prometheus text format. Requests from other machines require an operator key.
        """
        return await self._ask(
            "GET",
            "/metrics",
            bytes,
        )
