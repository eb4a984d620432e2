"""Runs a program's steps, each whatever became of those before, and ends with 1 if one failed."""

import sys
import traceback


class Steps:
    """What has been run and what failed."""

    def __init__(self):
        self.failed = []

    def run(self, name, step, *arguments):
        """Runs one step."""
        try:
            step(*arguments)
        except Exception:
            self.failed.append(name)
            print(f"FAILED {name}", flush=True)
            traceback.print_exc()
        else:
            print(f"ok {name}", flush=True)

    async def run_async(self, name, step, *arguments):
        """Runs one asynchronous step."""
        try:
            await step(*arguments)
        except Exception:
            self.failed.append(name)
            print(f"FAILED {name}", flush=True)
            traceback.print_exc()
        else:
            print(f"ok {name}", flush=True)

    def finish(self):
        """Ends the program."""
        sys.exit(f"failed: {', '.join(self.failed)}" if self.failed else 0)
