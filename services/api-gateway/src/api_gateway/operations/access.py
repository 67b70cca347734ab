"""Operations on accounts and API keys; the only ones the gateway decides itself."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from api_gateway.accounts import Account, ApiKey, no_such_account
from api_gateway.operations.operation import Call, Operation
from entrepot_contracts.ids import Id
from entrepot_contracts.registry import Done, PageLimit
from entrepot_contracts.values import Name, Role


class MeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class AccountView(Struct, frozen=True, kw_only=True):
    account_id: Id
    name: Name
    role: Role
    created_at: datetime


class AccountList(Struct, frozen=True, kw_only=True):
    items: tuple[AccountView, ...]


class CreateAccountRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    role: Role = Role.USER


class ListAccountsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Id | None = None
    limit: PageLimit = 100


class KeyView(Struct, frozen=True, kw_only=True):
    key_id: Id
    account_id: Id
    name: Name
    created_at: datetime
    revoked_at: datetime | None = None
    key: Annotated[str | None, Meta(description="Shown once, in the answer that made it.")] = None


class KeyList(Struct, frozen=True, kw_only=True):
    items: tuple[KeyView, ...]


class CreateKeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account_id: Id
    name: Name


class ListKeysRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account_id: Id


class RevokeKeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account_id: Id
    key_id: Id


async def _me(call: Call, _want: MeRequest) -> AccountView:
    return _account_view(await call.desk.accounts.get(call.actor.account_id))


async def _create_account(call: Call, want: CreateAccountRequest) -> AccountView:
    account = await call.desk.accounts.create(
        account_id=call.ids.new(), name=want.name, role=want.role
    )
    return _account_view(account)


async def _list_accounts(call: Call, want: ListAccountsRequest) -> AccountList:
    rows = await call.desk.accounts.list_accounts(after=want.after, limit=want.limit)
    return AccountList(items=tuple(_account_view(row) for row in rows))


async def _create_key(call: Call, want: CreateKeyRequest) -> KeyView:
    _own_account(call, want.account_id)
    row, minted = await call.desk.accounts.create_key(
        account_id=want.account_id, key_id=call.ids.new(), name=want.name
    )
    return _key_view(row, text=minted.text)


async def _list_keys(call: Call, want: ListKeysRequest) -> KeyList:
    _own_account(call, want.account_id)
    rows = await call.desk.accounts.list_keys(want.account_id)
    return KeyList(items=tuple(_key_view(row) for row in rows))


async def _revoke_key(call: Call, want: RevokeKeyRequest) -> Done:
    _own_account(call, want.account_id)
    await call.desk.accounts.revoke_key(account_id=want.account_id, key_id=want.key_id)
    return Done()


def _own_account(call: Call, account_id: str) -> None:
    """Admins act for every account; for others the accounts of others do not exist."""
    if not call.caller.is_admin and account_id != call.actor.account_id:
        raise no_such_account()


def _account_view(row: Account) -> AccountView:
    return AccountView(
        account_id=row.account_id, name=row.name, role=row.role, created_at=row.created_at
    )


def _key_view(row: ApiKey, *, text: str | None = None) -> KeyView:
    return KeyView(
        key_id=row.key_id,
        account_id=row.account_id,
        name=row.name,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        key=text,
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="me.get",
        summary="The account of the key that asks.",
        request=MeRequest,
        reply=AccountView,
        run=_me,
    ),
    Operation(
        name="account.create",
        summary="Create an account; create a key for it next.",
        request=CreateAccountRequest,
        reply=AccountView,
        run=_create_account,
        role=Role.ADMIN,
    ),
    Operation(
        name="account.list",
        summary="All accounts.",
        request=ListAccountsRequest,
        reply=AccountList,
        run=_list_accounts,
        role=Role.ADMIN,
    ),
    Operation(
        name="key.create",
        summary="Create an API key. Its text is in this answer and never shown again.",
        request=CreateKeyRequest,
        reply=KeyView,
        run=_create_key,
        once=("key",),
    ),
    Operation(
        name="key.list",
        summary="The keys of an account, without their secrets.",
        request=ListKeysRequest,
        reply=KeyList,
        run=_list_keys,
    ),
    Operation(
        name="key.revoke",
        summary="Revoke a key; it stops working at once.",
        request=RevokeKeyRequest,
        reply=Done,
        run=_revoke_key,
    ),
)
