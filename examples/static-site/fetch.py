"""Print a page, once somebody serves it."""

import sys
import time
import urllib.request

LIMIT_S = 60

deadline = time.monotonic() + LIMIT_S
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:  # noqa: S310 - ours
            sys.stdout.write(answer.read().decode())
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
