"""What the server counts, in the text form that Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_STEP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """Counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("spintok_sessions", "Sessions that are open now.", registry=self.registry)
        self.opened = Counter("spintok_sessions_opened", "Sessions that were opened.", registry=self.registry)
        self.refused = Counter(
            "spintok_refused", "Connections and sessions that were refused.", ["reason"], registry=self.registry
        )
        self.seconds = Counter("spintok_audio_seconds", "Seconds of audio received.", registry=self.registry)
        self.frames = Counter("spintok_frames", "Frames whose codes were sent.", registry=self.registry)
        self.step = Histogram(
            "spintok_step_seconds",
            "Time to tokenize what had arrived of all sessions.",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All of them as Prometheus' text."""
        return generate_latest(self.registry)
