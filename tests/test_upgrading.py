"""The new version's receiver on a ledger of an earlier schema, while that is migrated and callbacks come."""

import pytest

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Task, database
from tests import old_ledgers
from tests.incoming import Incoming
from tests.processes import Backstop, wait_until


@pytest.mark.parametrize("schema", ["0001_ledger", "0014_forwards"])
def test_callbacks_that_come_before_and_while_it_migrates_follow_from_the_spool(empty_url, tmp_path, schema):
    init_database(empty_url)
    old_ledgers.make(schema)
    with Backstop(tmp_path, "http://127.0.0.1:9", DATABASE_URL=empty_url) as backstop:
        backstop.start_web()
        with Incoming(backstop) as incoming:
            incoming.wait_for_more()
            assert incoming.spooled == len(incoming.acknowledged)
            backstop.migrate()
            wait_until(lambda: incoming.spooled < len(incoming.acknowledged))
        ids = {*incoming.acknowledged, *old_ledgers.STATUSES}
        wait_until(lambda: {task.id for task in Task.select(Task.id)} == ids)
        assert incoming.refused == []
    database.obj.close_all()
