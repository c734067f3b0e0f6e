"""When a run is to stop: signals, a limit of time."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from raptr.errors import RaptrError
from raptr.train.stop_request import Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_reason_and_ends_nothing(number: signal.Signals) -> None:
    stop, before = Stop(), signal.getsignal(number)
    with stop.listening():
        assert stop.reason is None
        os.kill(os.getpid(), number)
        end = time.monotonic() + 10
        while stop.reason is None and time.monotonic() < end:
            time.sleep(0.001)
        assert stop.reason == f"on {number.name}"
        assert signal.getsignal(number) == before, "the next one is not ours"
    assert signal.getsignal(number) == before


@pytest.mark.slow
def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal, time\nfrom raptr.train.stop_request import Stop\nstop = Stop()\n"
        "with stop.listening():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.01)\n"
        "    print(stop.reason, flush=True)\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("on SIGTERM\n", -signal.SIGTERM)


def test_a_limit_of_time() -> None:
    stop = Stop(minutes=0.2 / 60)
    assert stop.reason is None
    time.sleep(0.25)
    assert stop.reason == "after 0.00333333 minutes"


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_no_time_at_all_is_refused(minutes: float) -> None:
    with pytest.raises(RaptrError, match="expected a number above 0"):
        Stop(minutes)


def test_outside_the_main_thread_nothing_is_heard() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Stop().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
