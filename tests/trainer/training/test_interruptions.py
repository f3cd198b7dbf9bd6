"""Signals: at once, or put off until a step is done."""

import os
import signal

import pytest

from trainer.training.interruptions import StopSignal, uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_put_off_but_once(number: signal.Signals) -> None:
    with StopSignal() as stop:
        with stop.put_off():
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_turned_into_another_error() -> None:
    def interrupted() -> None:
        with StopSignal():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                raise RuntimeError("as TensorFlow says it") from None

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_another_error_before_any_signal() -> None:
    with pytest.raises(RuntimeError), StopSignal():
        raise RuntimeError


def test_an_uninterrupted_call_raises_behind_itself() -> None:
    done = []

    def call() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the call")

    with StopSignal(), pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["the call"]


def test_an_uninterrupted_call_inside_of_what_is_put_off() -> None:
    with StopSignal() as stop, stop.put_off():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_an_uninterrupted_call_where_nobody_listens() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)


class Dropped:
    """Python prints what its `__del__` raises, and drops it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_remembered() -> None:
    with StopSignal() as stop:
        Dropped()
        assert stop.requested
