"""SIGTERM and Ctrl-C during a run: the step is finished and saved; a second Ctrl-C ends the run at once."""

import _thread
import os
import select
import signal
import sys
import threading
import time
from types import FrameType

IMPATIENT = 2.0  # seconds: a launcher may pass on the same Ctrl-C that a terminal sent; later, a second one is meant
GRACE = 1.0  # seconds in which a second Ctrl-C may end the run in an orderly way


class StopSignals:
    """Notices SIGTERM and SIGINT while it is entered; ``number`` is that of the signal, or 0. Only in the main thread.

    Python calls its signal handlers between two bytecodes, so not during a call into torch, and a backward pass on a CPU may take minutes.
    Therefore a thread listens: it answers at once (``say``: on stderr), and a second Ctrl-C ends the process even then.
    """

    def __init__(self, *, say: bool) -> None:
        self.number = 0
        self._say, self._since, self._now = say, 0.0, False

    def __enter__(self) -> "StopSignals":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._handlers = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._write)  # the listener reads the end, and ends
        self._listener.join()
        os.close(self._read)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._now:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while received := os.read(self._read, 1):
            number = received[0]
            if not self.number and number in self._handlers:
                self.number, self._since = number, time.monotonic()
                if self._say:
                    again = "; again to stop now" if number == signal.SIGINT else ""
                    print(f"\nstopping after this step{again}", file=sys.stderr, flush=True)  # noqa: T201
            elif number == signal.SIGINT and time.monotonic() - self._since > IMPATIENT:
                self._now = True
                _thread.interrupt_main()  # calls the handler again, which may have run before this thread did
                self._end_after_grace()

    def _end_after_grace(self) -> None:
        """End the process unless it does so itself: it may be in a call that takes minutes. What is half-written, the next run deletes."""
        deadline = time.monotonic() + GRACE
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._read], [], [], left)[0] and not os.read(self._read, 1):
                return  # exited
        if self._say:
            os.write(2, b"interrupted\n")
        os._exit(128 + signal.SIGINT)
