"""Leases: one owner at a time, by the database's clock."""

from __future__ import annotations

import pytest

from kyra_etl.state import State
from tests.state import racing
from tests.state.making import file, observed, planned


def test_a_lease_is_had_by_one_owner_at_a_time(state: State) -> None:
    ours = state.leases.take("sync:acme", "me", 60)

    assert ours is not None
    assert state.leases.take("sync:acme", "you", 60) is None
    assert state.leases.take("sync:acme", "me", 60) is None
    assert state.leases.take("sync:other", "you", 60) is not None


def test_a_released_lease_is_free_at_once_and_cannot_be_revived(state: State) -> None:
    ours = state.leases.take("sync:acme", "me", 60)
    assert ours is not None
    ours.release()

    assert not ours.renew()
    theirs = state.leases.take("sync:acme", "you", 60)
    assert theirs is not None
    assert theirs.attempt == 2
    ours.release()  # of no effect: it is theirs
    assert state.leases.take("sync:acme", "me", 60) is None


def test_an_expired_lease_can_be_taken_or_else_renewed(state: State) -> None:
    late = state.leases.take("sync:acme", "me", -1)
    assert late is not None
    assert late.renew(-1)  # nobody wanted it meanwhile
    taken = state.leases.take("sync:acme", "you", 60)

    assert taken is not None
    assert taken.attempt == 2
    assert not late.renew(60)


def test_renewing_lasts_as_long_as_taking_did(state: State) -> None:
    ours = state.leases.take("sync:acme", "me", 60)
    assert ours is not None
    assert ours.renew(-1)
    assert ours.renew()
    assert state.leases.take("sync:acme", "you", 60) is None


def test_a_lease_is_released_on_leaving_its_block_even_by_an_exception(state: State) -> None:
    def fails() -> None:
        lease = state.leases.take("sync:acme", "me", 60)
        assert lease is not None
        with lease:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert state.leases.take("sync:acme", "you", 60) is not None


def test_one_of_several_processes_gets_a_lease(url: str) -> None:
    with racing.processes(3) as pool:
        got = pool.map(racing.take_lease, [(url, number) for number in range(6)], chunksize=1)

    assert sorted(got) == [False] * 5 + [True]


def test_what_a_dead_owner_holds_can_be_ended_at_once(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]))
    assert state.leases.take("sync:acme", "dead", 60) is not None
    assert state.leases.take("sync:other", "alive", 60) is not None
    assert state.owners.holding() == ["alive", "dead", "me"]

    state.owners.expire(["dead", "me"])

    assert state.owners.holding() == ["alive"]
    assert state.leases.take("sync:acme", "you", 60) is not None
    run_id = observed(state, [])
    (taken,) = state.ledger.take_over(run_id, "acme", owner="you", lease_seconds=60)
    assert (taken.batch_id, taken.attempt) == (batch.batch_id, 2)
