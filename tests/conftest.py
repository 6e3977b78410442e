"""What every test may rely on."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background work with interrupts ignored, and children inherit that; tests interrupt children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
