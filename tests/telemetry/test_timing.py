"""The phase clock against a scripted time."""

import asyncio

import pytest

from tinyr1v_ray.telemetry.timing import PhaseClock


class ScriptedTime:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return ScriptedTime()


def test_phases_add_up_and_a_lap_starts_over(time):
    clock = PhaseClock(time)
    for seconds in (1.0, 2.0):
        with clock("learn"):
            time.now += seconds
        time.now += 0.25
    with clock("publish"):
        time.now += 0.5
    assert clock.lap() == {"learn": 3.0, "publish": 0.5, "step": 4.0}
    time.now += 1.0
    assert clock.lap() == {"step": 1.0}


def test_a_phase_counts_when_its_body_raises(time):
    clock = PhaseClock(time)
    with pytest.raises(KeyError), clock("learn"):
        time.now += 2.0
        raise KeyError
    assert clock.lap() == {"learn": 2.0, "step": 2.0}


def test_a_phase_open_over_a_lap_is_divided(time):
    clock = PhaseClock(time)
    with clock("generate"):
        time.now += 2.0
        assert clock.lap() == {"generate": 2.0, "step": 2.0}
        time.now += 3.0
    time.now += 1.0
    assert clock.lap() == {"generate": 3.0, "step": 4.0}


def test_overlapping_tasks_in_one_phase_count_once(time):
    async def task(clock, gate):
        with clock("generate"):
            await gate.wait()

    async def scene():
        clock, first, second = PhaseClock(time), asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(task(clock, first))
            await asyncio.sleep(0)
            time.now += 1.0
            tasks.create_task(task(clock, second))
            await asyncio.sleep(0)
            time.now += 1.0
            first.set()
            await asyncio.sleep(0)
            time.now += 1.0
            second.set()
        return clock.lap()

    assert asyncio.run(scene()) == {"generate": 3.0, "step": 3.0}


def test_the_laps_own_name_is_taken(time):
    with pytest.raises(ValueError, match="step"), PhaseClock(time)("step"):
        pass
