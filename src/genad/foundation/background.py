"""Work that waits for a service, in a thread of its own, so that it can be cancelled while it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_Found = TypeVar("_Found")


class Background:
    """An event loop in a thread of its own, and the connections it serves.

    Parameters
    ----------
    client : object
        With an asynchronous ``close``.
    concurrency : int
        Number of slots for work side by side.
    """

    def __init__(self, client: Any, concurrency: int) -> None:
        self.client = client
        self.slots = asyncio.Semaphore(concurrency)
        self.loop = asyncio.new_event_loop()
        self.pending: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self.loop.run_forever, name="genad-llm", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, _Found]) -> Future[_Found]:
        """Start work in the loop; its future can be waited for, and cancelled from any thread."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        self.pending.add(future)
        future.add_done_callback(self.pending.discard)
        return future

    def close(self) -> None:
        """Cancel all work, close the connections and end the thread."""
        if self.loop.is_closed():
            return

        async def finish() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self.client.close()

        asyncio.run_coroutine_threadsafe(finish(), self.loop).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()
