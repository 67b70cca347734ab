"""Accounts and API keys: the rows, who a credential stands for, and the first administrator."""

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from api_gateway.callers import Caller
from api_gateway.credentials import Entropy, KeyText, MintedKey, matches, mint
from entrepot_chassis.ports import Database, Row, Table, Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Actor, Role

KEYS_PER_ACCOUNT_MAX = 100


class Account(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="account", key="account_id")
    account_id: str
    name: str  # unique
    role: Role
    created_at: datetime


class ApiKey(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="api_key", key="key_id")
    key_id: str
    account_id: str
    name: str
    secret_hash: bytes
    created_at: datetime
    revoked_at: datetime | None = None


class Accounts:
    """Every change is one transaction; the ids are the caller's, so repeats are harmless."""

    def __init__(self, database: Database, *, entropy: Entropy) -> None:
        self._database = database
        self._entropy = entropy

    async def caller_of(self, key: KeyText | None) -> Caller:
        """Raises Refused(unauthenticated), in the same words whatever was wrong."""
        found: tuple[ApiKey, Account] | None = None
        if key is not None:
            async with self._database.transaction() as tx:
                found = await _key_and_account(tx, key.key_id)
        secret = key.secret if key is not None else ""
        good = matches(secret, found[0].secret_hash if found else None)
        if not good or found is None:
            raise Refused(
                Code.UNAUTHENTICATED,
                "no valid API key was presented",
                hint="send the header Authorization: Bearer <API key>",
            )
        account = found[1]
        return Caller(
            actor=Actor(account_id=account.account_id, role=account.role),
            account_name=account.name,
            key_id=found[0].key_id,
        )

    async def create(self, *, account_id: str, name: str, role: Role) -> Account:
        async with self._database.transaction() as tx:
            return await _add_account(tx, account_id=account_id, name=name, role=role)

    async def get(self, account_id: str) -> Account:
        async with self._database.transaction() as tx:
            return await _account(tx, account_id)

    async def list_accounts(self, *, after: str | None, limit: int) -> list[Account]:
        async with self._database.transaction() as tx:
            return await tx.find(Account, after=after, limit=limit)

    async def create_key(
        self, *, account_id: str, key_id: str, name: str
    ) -> tuple[ApiKey, MintedKey]:
        """Repeated with the same id, it makes a new secret: nobody has seen the one before."""
        async with self._database.transaction() as tx:
            await _account(tx, account_id, lock=True)
            keys = await tx.find(ApiKey, where={"account_id": account_id})
            if sum(key.revoked_at is None for key in keys) >= KEYS_PER_ACCOUNT_MAX:
                raise Refused(
                    Code.QUOTA_EXCEEDED,
                    f"the account has {KEYS_PER_ACCOUNT_MAX} keys already",
                    hint="revoke keys that are no longer used",
                )
            return await _put_key(
                tx, account_id=account_id, key_id=key_id, name=name, entropy=self._entropy
            )

    async def list_keys(self, account_id: str) -> list[ApiKey]:
        async with self._database.transaction() as tx:
            await _account(tx, account_id)
            return await tx.find(ApiKey, where={"account_id": account_id})

    async def revoke_key(self, *, account_id: str, key_id: str) -> None:
        """At once: every request looks its key up. Revoked already is done already."""
        async with self._database.transaction() as tx:
            admins = await tx.find(Account, where={"role": Role.ADMIN}, lock=True)
            key = await tx.get(ApiKey, key_id, lock=True)
            if key is None or key.account_id != account_id:
                raise Refused(
                    Code.NOT_FOUND,
                    "there is no such key",
                    field="key_id",
                    hint="list the keys of the account",
                )
            if key.revoked_at is not None:
                return
            await _refuse_lock_out(tx, key, {account.account_id for account in admins})
            key.revoked_at = await tx.now()
            await tx.put(key)

    async def bootstrap(self, *, account_id: str, key_id: str, keep: Callable[[str], None]) -> bool:
        """Make the first administrator with a key, unless there is an account already.

        `keep` puts the key where its owner finds it, before the commit: a key nobody holds would
        lock everyone out, a kept key that was never committed is replaced at the next start.
        """
        async with self._database.transaction() as tx:
            if await tx.find(Account, limit=1):
                return False
            await _add_account(tx, account_id=account_id, name="admin", role=Role.ADMIN)
            _, minted = await _put_key(
                tx, account_id=account_id, key_id=key_id, name="bootstrap", entropy=self._entropy
            )
            keep(minted.text)
            return True


async def _key_and_account(tx: Transaction, key_id: str) -> tuple[ApiKey, Account] | None:
    key = await tx.get(ApiKey, key_id)
    if key is None or key.revoked_at is not None:
        return None
    account = await tx.get(Account, key.account_id)
    return (key, account) if account is not None else None


async def _account(tx: Transaction, account_id: str, *, lock: bool = False) -> Account:
    account = await tx.get(Account, account_id, lock=lock)
    if account is None:
        raise no_such_account()
    return account


def no_such_account() -> Refused:
    return Refused(
        Code.NOT_FOUND,
        "there is no such account",
        field="account_id",
        hint="GET /v1/me tells your own account",
    )


async def _add_account(tx: Transaction, *, account_id: str, name: str, role: Role) -> Account:
    account = Account(account_id=account_id, name=name, role=role, created_at=await tx.now())
    if await tx.add(account):
        return account
    same = await tx.get(Account, account_id)
    if same is None or (same.name, same.role) != (name, role):
        raise Refused(
            Code.CONFLICT, "an account of this name exists", field="name", hint="choose another"
        )
    return same


async def _put_key(
    tx: Transaction, *, account_id: str, key_id: str, name: str, entropy: Entropy
) -> tuple[ApiKey, MintedKey]:
    minted = mint(key_id, entropy)
    key = ApiKey(
        key_id=key_id,
        account_id=account_id,
        name=name,
        secret_hash=minted.secret_hash,
        created_at=await tx.now(),
    )
    await tx.put(key)
    return key, minted


async def _refuse_lock_out(tx: Transaction, key: ApiKey, admin_ids: set[str]) -> None:
    """The last usable key of the last administrator stays: nobody could make another."""
    if key.account_id not in admin_ids:
        return
    keys = await tx.find(ApiKey, where={"account_id": sorted(admin_ids)})
    if not any(each.revoked_at is None and each.key_id != key.key_id for each in keys):
        raise Refused(
            Code.CONFLICT,
            "this is the last key of the last administrator",
            field="key_id",
            hint="create another administrator key first",
        )
