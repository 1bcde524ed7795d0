import threading

from lightning_green.utilities.periodic import PeriodicThread


def test_calls_repeat_until_stop():
    three, calls = threading.Event(), []

    def call():
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            three.set()

    thread = PeriodicThread(call, 0.01, "name")
    thread.start()
    assert three.wait(60)
    thread.stop()
    before = len(calls)
    thread.now()
    assert len(calls) == before
    assert set(calls) == {"name"}


def test_calls_of_two_threads_do_not_overlap():
    running, entered, overlaps = threading.Lock(), threading.Event(), []

    def call():
        overlaps.append(not running.acquire(blocking=False))
        entered.set()
        entered.wait(0.05)
        running.release()

    thread = PeriodicThread(call, 0.001, "name")
    thread.start()
    for _ in range(20):
        thread.now()
    thread.stop()
    assert overlaps
    assert not any(overlaps)


def test_stop_from_within_a_call_and_before_the_start():
    done = threading.Event()

    def call():
        thread.stop()
        done.set()

    thread = PeriodicThread(call, 0.01, "name")
    thread.start()
    assert done.wait(60)
    PeriodicThread(call, 0.01, "name").stop()
