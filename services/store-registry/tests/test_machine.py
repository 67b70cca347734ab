"""The saga machine: every pair of phase and stimulus, and seeded walks."""

import itertools
import random

import pytest
from msgspec.structs import replace

from entrepot_contracts import motion as m
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code, Problem
from store_registry.jobs import machine
from store_registry.jobs.machine import (
    Ask,
    Failed,
    Finish,
    IllegalTransition,
    Phase,
    Quiet,
    Saga,
    Spoiled,
    Start,
    Step,
    Stop,
    Succeeded,
    step,
)

STORE = v.StoreSpec(store_id="s", role=v.StoreRole.IMAGE, provider="p", config={})
PROBLEM = Problem(code=Code.STORE_ERROR, message="it broke")
STIMULI = (Start, Succeeded, Failed, Quiet)


def ask(name):
    work = m.DeleteObjectsWork(store=STORE, prefixes=("x/",))
    return m.TransferAsk(transfer_id=name, account_id="a", job_id="j", work=work)


def asks(*names):
    return tuple(ask(name) for name in names)


def good(name, result=None):
    return Succeeded(transfer_id=name, epoch=1, result=result or m.Deleted())


def bad(name, problem=PROBLEM):
    return Failed(transfer_id=name, problem=problem)


def copied(root):
    digest = v.ContentDigest(root=root, size_bytes=1)
    return m.Copied(digest=digest, virtual_size_bytes=1, bytes_read=1, bytes_sent=1)


def run(saga, *stimuli):
    told = []
    for stimulus in stimuli:
        saga, instructions = step(saga, stimulus)
        told += instructions
    return saga, told


TWO = Saga(
    steps=(
        Step(name="one", asks=asks("a", "b"), undo=asks("ua")),
        Step(name="two", asks=asks("c"), undo=asks("uc")),
    )
)


def test_steps_run_one_after_another_and_each_step_s_transfers_together():
    saga, told = run(TWO, Start())
    assert [i.ask.transfer_id for i in told] == ["a", "b"]
    saga, told = run(saga, good("b"))
    assert (told, saga.step_name) == ([], "one")
    saga, told = run(saga, good("a"))
    assert [i.ask.transfer_id for i in told] == ["c"]
    saga, told = run(saga, good("c"))
    assert told == [Finish()]
    assert saga.phase is Phase.SUCCEEDED
    assert set(saga.outcomes) == {"a", "b", "c"}


def test_a_failure_stops_the_others_before_anything_is_cleaned():
    saga, told = run(TWO, Start(), bad("a"))
    assert told[2:] == [Stop(transfer_id="b")]
    assert saga.phase is Phase.STOPPING
    saga, told = run(saga, bad("b", Problem(code=Code.CANCELLED, message="stopped")))
    assert [i.ask.transfer_id for i in told] == ["ua"]
    saga, told = run(saga, good("ua"))
    assert told == [Finish(problem=PROBLEM)]


def test_a_failure_in_a_later_step_undoes_the_earlier_ones_as_well():
    _, told = run(TWO, Start(), good("a"), good("b"), bad("c"))
    assert [i.ask.transfer_id for i in told[-2:]] == ["ua", "uc"]


def test_a_failed_cleanup_is_told_and_the_first_problem_stays():
    saga, told = run(TWO, Start(), good("a"), good("b"), bad("c"))
    other = Problem(code=Code.STORE_DENIED, message="no")
    saga, told = run(saga, bad("uc", other), good("ua"))
    assert told == [Spoiled(transfer_id="uc", problem=other), Finish(problem=PROBLEM)]
    assert (saga.spoiled, saga.problem) == (("uc",), PROBLEM)


def test_a_step_of_best_effort_may_fail():
    saga = Saga(
        steps=(Step(name="one", asks=asks("a")), Step(name="x", asks=asks("b"), best_effort=True))
    )
    saga, told = run(saga, Start(), good("a"), bad("b"))
    assert told[-2:] == [Spoiled(transfer_id="b", problem=PROBLEM), Finish()]
    assert saga.phase is Phase.SUCCEEDED


def test_copies_that_must_agree_and_do_not_are_cleaned_away():
    one = Step(name="copy", asks=asks("a", "b"), undo=asks("ua"), agree=True)
    saga, told = run(Saga(steps=(one,)), Start(), good("a", copied("aa")), good("b", copied("bb")))
    assert saga.problem.code is Code.SOURCE_CHANGED
    assert told[-1].ask.transfer_id == "ua"
    _, told = run(Saga(steps=(one,)), Start(), good("a", copied("aa")), good("b", copied("aa")))
    assert told[-1] == Finish()


def test_a_probe_that_ended_well_with_a_bad_report_is_a_failure():
    report = v.ProbeReport(checks=(v.ProbeCheck(name="write", ok=False, hint="chmod"),))
    probe = Saga(steps=(Step(name="p", asks=asks("a")),))
    _, told = run(probe, Start(), good("a", m.Probed(report=report)))
    assert told[-1].problem.code is Code.PROBE_FAILED
    assert told[-1].problem.hint == "chmod"


def test_quiet_asks_again_for_what_is_open_only():
    saga, _ = run(TWO, Start(), good("a"))
    _, told = run(saga, Quiet())
    assert told == [Ask(ask=ask("b"), again=True)]
    saga, _ = run(TWO, Start(), bad("a"))
    _, told = run(saga, Quiet())
    assert told == [Ask(ask=ask("b"), again=True), Stop(transfer_id="b")]


def test_a_saga_without_anything_to_do_ends_at_once():
    assert run(Saga(steps=(Step(name="none", asks=()),)), Start())[1] == [Finish()]


def test_every_pair_of_phase_and_stimulus_moves_is_ignored_or_is_illegal_by_intent():
    known = set(machine.TRANSITIONS) | machine.IGNORED
    assert not set(machine.TRANSITIONS) & machine.IGNORED
    missing = set(itertools.product(Phase, STIMULI)) - known
    assert missing == {
        *((phase, Start) for phase in Phase if phase is not Phase.NEW),
        *((Phase.NEW, kind) for kind in (Succeeded, Failed, Quiet)),
    }


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.NEW])
def test_starting_twice_is_illegal_and_tells_the_history(phase):
    saga = replace(TWO, phase=phase, history=("new+start>moving",))
    with pytest.raises(IllegalTransition, match=r"new\+start>moving"):
        step(saga, Start())


@pytest.mark.parametrize("seed", range(200))
def test_a_random_walk_ends_once_cleans_all_and_never_writes_while_it_cleans(seed):
    """Answers in any order, twice, late, and rings between: replay with this seed."""
    rng = random.Random(seed)
    saga = _random_saga(rng)
    asked, answered, ended = [], set(), []
    saga, told = step(saga, Start())
    _note(told, asked, ended)
    for _ in range(400):
        if saga.phase in {Phase.SUCCEEDED, Phase.FAILED}:
            break
        stimulus = _random_stimulus(rng, saga, asked)
        before = saga
        saga, told = step(saga, stimulus)
        _note(told, asked, ended)
        if not isinstance(stimulus, Quiet):
            if stimulus.transfer_id not in before.open:
                assert saga is before, "an answer to nothing that is open changes nothing"
            answered.add(stimulus.transfer_id)
        assert set(saga.open) <= {a.transfer_id for a in asked}
        if saga.phase is Phase.CLEANING:
            undo = {u.transfer_id for s in saga.steps for u in s.undo}
            assert set(saga.open) <= undo, "a writer is open while cleaning"
    assert len(ended) == 1, f"seed {seed}: {saga.history}"
    _check_end(saga, ended[0], {a.transfer_id for a in asked}, answered)
    for kind in (good, bad):
        assert step(saga, kind("s0a0")) == (saga, ())
    assert step(saga, Quiet()) == (saga, ())


def _random_saga(rng):
    steps = []
    for number in range(rng.randint(1, 4)):
        names = [f"s{number}a{i}" for i in range(rng.randint(0, 3))]
        undo = [f"s{number}u{i}" for i in range(rng.randint(0, 2))]
        steps.append(
            Step(
                name=f"s{number}",
                asks=asks(*names),
                undo=asks(*undo),
                best_effort=rng.random() < 0.2,
            )
        )
    return Saga(steps=tuple(steps))


def _random_stimulus(rng, saga, asked):
    if rng.random() < 0.15:
        return Quiet()
    # Mostly an open one; sometimes a repeat, or an answer nobody waits for.
    names = list(saga.open) * 3 + [a.transfer_id for a in asked] + ["stranger"]
    name = rng.choice(names)
    return good(name) if rng.random() < 0.7 else bad(name)


def _note(told, asked, ended):
    for instruction in told:
        if isinstance(instruction, Ask) and not instruction.again:
            assert instruction.ask not in asked, "asked for the first time twice"
            asked.append(instruction.ask)
        if isinstance(instruction, Finish):
            ended.append(instruction)


def _check_end(saga, finish, asked, answered):
    assert saga.open == ()
    assert asked <= answered, "ended with an answer missing"
    if finish.problem is None:
        assert saga.phase is Phase.SUCCEEDED
        done = {a.transfer_id for s in saga.steps for a in s.asks}
        assert done == set(saga.outcomes) | set(saga.spoiled)
        assert not any(u.transfer_id in asked for s in saga.steps for u in s.undo)
    else:
        assert saga.phase is Phase.FAILED
        undo = {u.transfer_id for s in saga.steps[: saga.at + 1] for u in s.undo}
        assert undo <= asked, "something was not undone"
