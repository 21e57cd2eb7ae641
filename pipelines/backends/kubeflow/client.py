"""Start, follow and schedule runs on Kubeflow Pipelines.

Through the API that kfp's own client is generated on, and not through its `Client`: that one waits
25 seconds for a server that is away, prints, logs the bodies of answers, and gives a run no
description.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import kfp_server_api as api
import yaml
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError

from lineage.digest import digest
from lineage.errors import BadInput, StepFailed
from pipelines.backends.kubeflow.groups import GROUP
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.submitting.bucket import Bucket, listing_digest
from pipelines.submitting.cron import for_kubeflow
from pipelines.submitting.engine import Execution, Name, Order, Schedule, Task, Unreachable

ENDPOINT, TOKEN, TOKEN_FILE, NAMESPACE = (
    f"KF_PIPELINES_{name}" for name in ("ENDPOINT", "TOKEN", "SA_TOKEN_PATH", "NAMESPACE")
)
PREFIX = "lightbox-"  # of our schedules
TIMEOUT = {"_request_timeout": 60}
PAGE = 100
STATES: Mapping[str, Literal["running", "succeeded", "failed", "stopped"]] = {
    **{"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "stopped", "SKIPPED": "stopped"},
}
TASK_STATES = {
    **{"RUNNING": "running", "CANCELING": "running", "PAUSED": "running"},
    **{"SUCCEEDED": "ran", "FAILED": "failed", "CANCELED": "stopped", "SKIPPED": "skipped"},
}


class KubeflowEngine:
    """One Kubeflow Pipelines API. Address and token are the environment's, as kfp names them."""

    name: Name = "kubeflow"
    schemes: tuple[str, ...] = ("s3", "gs", "minio")
    state = ""

    def __init__(self, settings: KubeflowSettings) -> None:
        self.settings = settings
        self.given, self.image = settings.sources, settings.image
        self.registry = settings.tracking_uri

    @cached_property
    def _host(self) -> str:
        if not (host := os.environ.get(ENDPOINT)):
            raise BadInput(f"{ENDPOINT} is not set; it names the address of the pipelines' API")
        if not host.startswith(("http://", "https://")):
            raise BadInput(f"{ENDPOINT}: {host} does not begin with http:// or https://")
        return host.rstrip("/")

    @cached_property
    def _connection(self) -> Any:
        settings = api.Configuration(host=self._host)
        settings.api_key_prefix["authorization"] = "Bearer"
        if token := os.environ.get(TOKEN):
            settings.api_key["authorization"] = token
        elif volume := os.environ.get(TOKEN_FILE):
            # A service account's token is read anew for each request, for it expires.
            settings.api_key["authorization"] = ""
            settings.refresh_api_key_hook = lambda now: now.api_key.update(
                authorization=Path(volume).read_text().strip()
            )
        return api.ApiClient(settings)

    @cached_property
    def _run_service(self) -> Any:
        return api.RunServiceApi(self._connection)

    @cached_property
    def _schedules(self) -> Any:
        return api.RecurringRunServiceApi(self._connection)

    @cached_property
    def _experiments(self) -> Any:
        return api.ExperimentServiceApi(self._connection)

    @cached_property
    def _bucket(self) -> Bucket:
        if not self.settings.bucket:
            raise BadInput(
                "Kubeflow's environment names no bucket to upload to, and the champion has to be "
                "brought there at each submit: name one as bucket: (s3://NAME or minio://NAME)"
            )
        import boto3

        return Bucket(boto3.client("s3"), self.settings.bucket.partition("://")[2])

    def content(self, uri: str) -> str:
        """A digest of what lies in our own bucket; elsewhere nobody looks, and the name must do."""
        if self.settings.bucket and uri.startswith(f"{self.settings.bucket}/"):
            from pipelines.submitting.aws import explained

            with explained("sources"):
                return listing_digest(self._bucket.s3, f"s3://{uri.partition('://')[2]}")
        return digest("uri", uri)

    def upload(self, path: Path, content: str) -> str:
        """See `Bucket.upload`.

        Raises:
            BadInput: The settings name no bucket.
        """
        from pipelines.submitting.aws import explained

        with explained("uploading a source"):
            uri = self._bucket.upload(path, content)
        return f"{self.settings.bucket.partition('://')[0]}://{uri.partition('://')[2]}"

    def find(self, pipeline: str, token: str) -> Execution | None:
        """The newest run that says so in its description; names hold the token's beginning."""
        for run in self._runs(_contains("display_name", token[:8])):
            if _facts(run.description).get("token") == token:
                return self._execution(run)
        return None

    def start(self, order: Order) -> Execution:
        """Start a run. KFP has no token that would make it start only one of two.

        So the starter looks again: if another one was first, its own run is taken back.
        """
        with _explained("starting the run"):
            made = self._run_service.run_service_create_run(
                run=api.V2beta1Run(
                    display_name=_named(order),
                    description=json.dumps(order.identity.facts()),
                    experiment_id=self._experiment(order.pipeline.name),
                    pipeline_spec=self._package(order),
                    runtime_config=api.V2beta1RuntimeConfig(parameters=dict(order.uris)),
                ),
                **TIMEOUT,
            )
        same = list(self._runs(_equals("display_name", _named(order))))
        first = min([made, *same], key=lambda run: (run.created_at, run.run_id))
        if first.run_id != made.run_id:
            with _explained("taking back a second run"):
                self._run_service.run_service_delete_run(made.run_id, **TIMEOUT)
        return self._execution(first)

    def look(self, id: str) -> Execution:
        """The run, and its tasks."""
        with _explained("following the run"):
            return self._execution(self._run_service.run_service_get_run(id, **TIMEOUT))

    def stop(self, id: str) -> None:
        """End it; pods are given time to stop."""
        with _explained("stopping the run"):
            self._run_service.run_service_terminate_run(id, **TIMEOUT)

    def schedule(self, order: Order, cron: str) -> Schedule:
        """A recurring run. KFP changes none, so a new one is made, and then the old one removed."""
        wanted = for_kubeflow(cron)
        described = json.dumps({**order.identity.facts(), "uris": dict(order.uris)})
        before = self._recurring(_equals("display_name", order.name))
        same = [r for r in before if (r.description, _cron(r)) == (described, wanted) and _on(r)]
        if not same:
            with _explained("scheduling"):
                made = self._schedules.recurring_run_service_create_recurring_run(
                    recurring_run=api.V2beta1RecurringRun(
                        display_name=order.name,
                        description=described,
                        experiment_id=self._experiment(order.pipeline.name),
                        pipeline_spec=self._package(order),
                        runtime_config=api.V2beta1RuntimeConfig(parameters=dict(order.uris)),
                        trigger=api.V2beta1Trigger(
                            cron_schedule=api.V2beta1CronSchedule(cron=wanted)
                        ),
                        mode=api.RecurringRunMode.ENABLE,
                        max_concurrency="1",
                        no_catchup=True,
                    ),
                    **TIMEOUT,
                )
        kept = (same or [made])[0].recurring_run_id
        self._remove(run for run in before if run.recurring_run_id != kept)
        return Schedule(order.name, wanted, order.pipeline.name)

    def schedules(self) -> list[Schedule]:
        """Recurring runs that bear our prefix."""
        found = self._recurring(_contains("display_name", PREFIX))
        return [
            Schedule(r.display_name, _cron(r), _facts(r.description).get("pipeline", ""), _on(r))
            for r in found
            if r.display_name.startswith(PREFIX)
        ]

    def unschedule(self, name: str) -> bool:
        """Delete it."""
        found = self._recurring(_equals("display_name", name))
        self._remove(iter(found))
        return bool(found)

    def _package(self, order: Order) -> dict[str, Any]:
        """What the API takes: the pipeline, and beside it what concerns Kubernetes."""
        from pipelines.backends.kubeflow.lowering import compile_to

        with TemporaryDirectory() as folder:
            path = Path(folder) / "package.yaml"
            compile_to(order.pipeline, self.settings, path)
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            spec, *platform = yaml.load_all(path.read_text(), Loader=loader)
        return {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec

    def _experiment(self, name: str) -> str:
        """The experiment that bears this name: they are what runs are listed under."""
        with _explained("looking for the experiment"):
            found = self._experiments.experiment_service_list_experiments(
                filter=_equals("display_name", name), **self._namespace(), **TIMEOUT
            )
            if found.experiments:
                return str(found.experiments[0].experiment_id)
            wanted = api.V2beta1Experiment(display_name=name, **self._namespace())
            made = self._experiments.experiment_service_create_experiment(wanted, **TIMEOUT)
        return str(made.experiment_id)

    def _runs(self, filter: str) -> Iterator[Any]:
        token = ""
        while True:
            with _explained("looking for earlier runs"):
                page = self._run_service.run_service_list_runs(
                    page_token=token,
                    page_size=PAGE,
                    sort_by="created_at desc",
                    filter=filter,
                    **self._namespace(),
                    **TIMEOUT,
                )
            yield from page.runs or ()
            if not (token := page.next_page_token or ""):
                return

    def _recurring(self, filter: str) -> list[Any]:
        found: list[Any] = []
        token = ""
        while True:
            with _explained("listing schedules"):
                page = self._schedules.recurring_run_service_list_recurring_runs(
                    page_token=token,
                    page_size=PAGE,
                    filter=filter,
                    **self._namespace(),
                    **TIMEOUT,
                )
            found += page.recurring_runs or ()
            if not (token := page.next_page_token or ""):
                return found

    def _remove(self, runs: Iterator[Any]) -> None:
        for run in runs:
            with _explained("removing a schedule"):
                self._schedules.recurring_run_service_delete_recurring_run(
                    run.recurring_run_id, **TIMEOUT
                )

    def _namespace(self) -> dict[str, str]:
        """Only where several users share the API does it want one."""
        return {"namespace": os.environ[NAMESPACE]} if os.environ.get(NAMESPACE) else {}

    def _execution(self, run: Any) -> Execution:
        details = run.run_details.task_details if run.run_details else None
        return Execution(
            id=run.run_id,
            # A word that is new to us is no end.
            state=STATES.get(run.state, "running"),
            url=f"{self._host}/#/runs/details/{run.run_id}",
            reason=run.error.message if run.error and run.error.message else "",
            tasks=tuple(_tasks(details or [])),
        )


def _tasks(details: list[Any]) -> Iterator[Task]:
    # The pod within a task is left out by KFP's cache, where the API tells of it.
    cached = {
        detail.parent_task_id
        for detail in details
        if detail.display_name == "executor" and detail.state == "SKIPPED"
    }
    for detail in details:
        name = detail.display_name or ""
        if not name or GROUP.fullmatch(name):
            continue
        state = TASK_STATES.get(detail.state, "waiting")
        if state == "ran" and detail.task_id in cached:
            state = "reused"
        yield Task(
            name=name,
            state=state,
            started_at=_moment(detail.start_time),
            ended_at=_moment(detail.end_time),
            why=detail.error.message if detail.error and detail.error.message else "",
        )


def _moment(value: datetime | None) -> datetime | None:
    """KFP writes the year 1970 for what has not happened yet."""
    return value if value is not None and value.year > 1970 else None


def _named(order: Order) -> str:
    return f"{order.name}-{order.again}" if order.again else order.name


def _facts(description: str | None) -> dict[str, Any]:
    try:
        facts = json.loads(description or "{}")
    except ValueError:
        return {}  # somebody's own words
    return facts if isinstance(facts, dict) else {}


def _cron(run: Any) -> str:
    schedule = run.trigger.cron_schedule if run.trigger else None
    return schedule.cron if schedule else ""


def _on(run: Any) -> bool:
    return bool(run.mode == api.RecurringRunMode.ENABLE)


def _equals(key: str, value: str) -> str:
    return _filter("EQUALS", key, value)


def _contains(key: str, value: str) -> str:
    return _filter("IS_SUBSTRING", key, value)


def _filter(operation: str, key: str, value: str) -> str:
    predicate = {"operation": operation, "key": key, "stringValue": value}
    return json.dumps({"predicates": [predicate]})


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """The API's errors in our sentences; their bodies may quote more than a log should hold."""
    try:
        yield
    except ApiException as error:
        told = f"{doing}: the pipelines' API answered {error.status}"
        if error.status in (0, 408, 429) or error.status >= 500:
            raise Unreachable(told) from error
        if error.status in (401, 403):
            raise BadInput(f"{told}; look at {TOKEN} or {TOKEN_FILE}, and its rights") from error
        raise StepFailed(told) from error
    except (HTTPError, OSError) as error:
        told = f"{doing}: what {ENDPOINT} names does not answer ({type(error).__name__})"
        raise Unreachable(told) from error
