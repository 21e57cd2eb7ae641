"""One run, to look into from Python: how it ended, its tables, its curves."""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.errors import BadInput
from lineage.files import read_json
from lineage.record import read_record
from lineage.workspace import Workspace
from pipelines.explain import Explained, explain
from pipelines.notebook.tables import Listing, html_table, text_table
from pipelines.runs import Run, StepState
from pipelines.tell import MARKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

STEPS = ("step", "state", "seconds", "why", "said")


@dataclass(frozen=True, repr=False)
class Result:
    """A run and where it lies. What is asked of a step that did not run is a `BadInput`."""

    run: Run
    workspace: Workspace

    @property
    def outcome(self) -> str:
        """Done, failed, interrupted, or what the pipeline says, such as refused."""
        return self.run.outcome

    @property
    def exit_code(self) -> int | None:
        """What `lightbox run` would exit with; None while it goes on."""
        return self.run.exit_code

    @property
    def reason(self) -> str:
        """Why it ended so."""
        return self.run.reason

    @property
    def steps(self) -> Listing[StepState]:
        """How each step fared."""
        return Listing(self.run.steps, STEPS, _row)

    def explain(self) -> Listing[Explained]:
        """Why each step ran, was reused, failed or was not reached; as `lightbox explain` says."""
        headers = ("step", "state", "seconds", "why")
        return Listing(
            explain(self.run),
            headers,
            lambda e: (e.step, _marked(e.state), e.seconds or None, e.why),
        )

    def output(self, step: str, name: str) -> Path:
        """The folder of one output; never change what lies there.

        Raises:
            BadInput: The run made no such output.
        """
        made = {(state.name, output) for state in self.run.steps for output in state.outputs}
        if (step, name) not in made:
            known = ", ".join(sorted(".".join(pair) for pair in made)) or "none"
            raise BadInput(f"run {self.run.id} made no {step}.{name}; its outputs: {known}")
        return self.workspace.store / "objects" / self.run.step(step).outputs[name]

    @property
    def report(self) -> Path:
        """The page about this run; it is written if it is not there yet."""
        from pipelines.reporting.report import PAGE, write_report

        path = self.workspace.runs / self.run.id / PAGE
        return path if path.exists() else write_report(self.run, self.workspace)

    @property
    def metrics(self) -> "pd.DataFrame":
        """One row per metric on the test split: estimate, interval, how many, by what method."""
        import pandas as pd

        rows = self.evaluation["metrics"] | (self.evaluation["comparison"] or {})
        columns = ["estimate", "low", "high", "n", "n_patients", "method", "reason"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    @property
    def evaluation(self) -> dict[str, Any]:
        """All of metrics.json: metrics, subgroups, comparison with the champion."""
        found: dict[str, Any] = _json(self.output("evaluate", "metrics") / "metrics.json")
        return found

    @property
    def verdict(self) -> Listing[dict[str, Any]]:
        """Each rule of the gate: rule, outcome, and a sentence with the numbers behind it."""
        rules = _json(self.output("gate", "verdict") / "verdict.json")["rules"]
        headers = ("rule", "outcome", "sentence")
        return Listing(rules, headers, lambda rule: [rule[header] for header in headers])

    @property
    def history(self) -> "pd.DataFrame":
        """One row per epoch: losses, and AUROC on the validation split."""
        import pandas as pd

        rows = _json(self.output("train", "model") / "history.json")
        return pd.DataFrame(rows).set_index("epoch")

    @property
    def predictions(self) -> "pd.DataFrame":
        """One row per test image: pseudonymous ids, label, score, the champion's score."""
        import pandas as pd

        return pd.read_parquet(self.output("evaluate", "metrics") / "predictions.parquet")

    def plot_training(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the training; see `pipelines.notebook.plots.training`."""
        from pipelines.notebook import plots

        best = self.run.step("train").values["best_epoch"]
        return plots.training(self.history, best, axes)

    def plot_roc(self, axes: "Axes | None" = None, label: str | None = None) -> "Axes":
        """Draw the ROC curve on the test split; see `pipelines.notebook.plots.roc`."""
        from pipelines.notebook import plots

        return plots.roc(self.predictions, self.evaluation["metrics"], axes, label)

    def plot_calibration(self, axes: "Axes | None" = None, bins: int = 10) -> "Axes":
        """Draw the calibration on the test split; see `pipelines.notebook.plots.calibration`."""
        from pipelines.notebook import plots

        return plots.calibration(self.predictions, self.evaluation["metrics"], axes, bins)

    def settings(self) -> dict[str, dict[str, Any]]:
        """What each finished step was set to: dotted names and values, by step."""
        from pipelines.backends.keys import flat

        return {s.name: flat(self._config(s)) for s in self.run.steps if s.outputs}

    def _config(self, step: StepState) -> dict[str, Any]:
        kept = read_json(self.workspace.store / "steps" / f"{step.key}.json")
        if kept is None:  # its code was edited while it ran, so it is not there to be reused
            record = read_record(self.output(step.name, next(iter(step.outputs))))
            return dict(record.get("config", {}))
        return dict(kept["parts"]["config"])

    def __repr__(self) -> str:
        return f"{self._sentence()}\n{text_table(STEPS, map(_row, self.run.steps))}"

    def _repr_html_(self) -> str:
        rows = [_row(state) for state in self.run.steps]
        return f"<p>{escape(self._sentence())}</p>{html_table(STEPS, rows)}"

    def _sentence(self) -> str:
        reason = f": {self.run.reason}" if self.run.reason else ""
        return f"{self.run.pipeline} {self.run.id}, {self.run.outcome}{reason}"


def _row(state: StepState) -> tuple[Any, ...]:
    took = round(state.seconds, 2) if state.state in ("ran", "reused", "failed") else None
    said = ", ".join(f"{name} {_told(value)}" for name, value in state.values.items())
    return state.name, _marked(state.state), took, state.why, said


def _marked(state: str) -> str:
    return f"{MARKS[state]} {state}"


def _told(value: Any) -> str:
    from pipelines.tell import short

    return f"{value:.3f}" if isinstance(value, float) else short(str(value), 60)


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
