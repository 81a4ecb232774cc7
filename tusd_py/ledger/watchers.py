"""Who in this process wants to hear of which upload. Both ledgers tell their signals through one of these."""

from collections.abc import Callable

from ..ports import OUTBOX, Signal, Watcher


class Watchers:
    """Callbacks by upload id."""

    def __init__(self) -> None:
        self._by_upload: dict[str, set[Watcher]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits for other processes; what this one puts into the outbox it hears of anyway."""
        return len(self._by_upload) > (OUTBOX in self._by_upload)

    def add(self, upload_id: str, watcher: Watcher) -> Callable[[], None]:
        """Tell watcher every signal for this upload until the returned function is called."""
        self._by_upload.setdefault(upload_id, set()).add(watcher)

        def unwatch() -> None:
            watchers = self._by_upload.get(upload_id)
            if watchers:
                watchers.discard(watcher)
                if not watchers:
                    del self._by_upload[upload_id]

        return unwatch

    def tell(self, upload_id: str, signal: Signal) -> None:
        """Pass a signal on to those who watch the upload."""
        for watcher in list(self._by_upload.get(upload_id, ())):
            watcher(signal)

    def tell_all_settled(self) -> None:
        """Wake everybody who waits: signals may have been lost."""
        for upload_id in list(self._by_upload):
            self.tell(upload_id, Signal.SETTLED)
