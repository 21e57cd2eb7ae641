"""The two ways a run ends badly. Neither message may hold a tag value or a path with PHI."""


class BadInput(ValueError):
    """What was given cannot be used; says where and the way out. The command exits with 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence is meant to be enough."""
        return [f"BadInput: {self}"]


class StepFailed(RuntimeError):
    """A step looked at its inputs and says no; what it wrote so far is kept. Exits with 1."""
