import asyncio
import sys

import asyncpg
import pytest

from entrepot_chassis.migrations import MigrationFailed, Migrations
from entrepot_chassis.ports import DatabaseUnavailable


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two migrations, importable for this test."""
    folder = tmp_path / "svc_with_tables" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "0002_b.sql").write_text("CREATE TABLE b (a_id int REFERENCES a);")
    (folder / "0001_a.sql").write_text("CREATE TABLE a (id int PRIMARY KEY);")
    (folder / "notes.txt").write_text("no")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("svc_with_tables", None)


STEPS = Migrations(package="svc_with_tables", schema="svc")


async def test_steps_apply_in_order_and_once(package, database_url):
    assert await STEPS.apply(database_url) == [
        "chassis/0000_history.sql",
        "0001_a.sql",
        "0002_b.sql",
    ]
    (package / "0003_c.sql").write_text("CREATE TABLE c ();")
    assert await STEPS.apply(database_url) == ["0003_c.sql"]
    assert await STEPS.apply(database_url) == []


async def test_instances_that_migrate_together_apply_each_step_once(package, database_url):
    applied = await asyncio.gather(*(STEPS.apply(database_url) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, 3]


async def test_a_failing_step_leaves_nothing_of_itself_and_names_itself(package, database_url):
    (package / "0003_c.sql").write_text("CREATE TABLE c (); SELECT 1/0;")
    with pytest.raises(MigrationFailed, match=r"0003_c.sql: division by zero"):
        await STEPS.apply(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT to_regclass('svc.c')") is None
        assert await connection.fetchval("SELECT to_regclass('svc.b')") is not None
    finally:
        await connection.close()


async def test_a_step_changed_after_it_was_applied_is_refused(package, database_url):
    await STEPS.apply(database_url)
    (package / "0001_a.sql").write_text("CREATE TABLE a (id bigint PRIMARY KEY);")
    with pytest.raises(MigrationFailed, match=r"0001_a.sql: was changed"):
        await STEPS.apply(database_url)


async def test_a_role_that_owns_only_its_schema_can_migrate(package, postgres):
    postgres.ensure_database("owned", roles={"svc_role": "svc"})
    url = postgres.dsn(role="svc_role", database="owned")
    assert len(await STEPS.apply(url)) == 3
    other = Migrations(package="svc_with_tables", schema="foreign_schema")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await other.apply(url)


async def test_no_server_is_told_by_type(package, tmp_path):
    with pytest.raises(DatabaseUnavailable):
        await STEPS.apply(f"postgresql://x@/x?host={tmp_path}")
