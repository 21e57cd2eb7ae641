"""A compiled KFP package, executed in containers by the SDK's local runner.

kfp's DockerRunner has three defects that would make a test lie; each has its cure here:
a container that is gone before its exit code is read counts as a success; a `dsl.If` on an output
with a name is silently false; and a container component's artifacts are lost.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from engines import USER, Ended, mounts

from pipelines.backends.kubeflow.lowering import compile_to
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.graph import Pipeline


def run_on_kubeflow(
    pipeline: Pipeline,
    settings: KubeflowSettings,
    launch: Mapping[str, str],
    home: Path,
    folder: Path,
) -> Ended:
    """Compile, then execute the package as it would be submitted.

    Args:
        pipeline: What to run.
        settings: As for a cluster; the image is one that this machine's engine has.
        launch: The place of each source, seen from the containers.
        home: Stands for the workspace's volume.
        folder: Where the package and all that flows between tasks lies.
    """
    from kfp import components, local

    package, root = folder / "package.yaml", folder / "artifacts"
    for place in (root, home):
        place.mkdir(parents=True, exist_ok=True)
    compile_to(pipeline, settings, package)
    _let_the_user_in(folder, home)
    ended, containers = Ended(), []
    with _cured(containers):
        local.init(
            runner=local.DockerRunner(**_hardened(home, launch)),
            pipeline_root=str(root),
            raise_on_error=True,
        )
        try:
            components.load_component_from_file(str(package))(**launch)
        except RuntimeError as error:
            ended.failed = str(error)
    for words, code, said in containers:
        _take(ended, words, code, said)
    assert (ended.failed is not None) == (ended.exit_code != 0), ended
    return ended


def _hardened(home: Path, launch: Mapping[str, str]) -> dict[str, Any]:
    """What the restricted pod security profile asks for, in docker's words, and the volumes."""
    from docker.types import Mount

    seen = [Mount(at, place, "bind", read_only=True) for at, place in mounts().items()]
    seen += [Mount(place, place, "bind", read_only=True) for place in set(launch.values())]
    return {
        "mounts": [*seen, Mount("/lightbox", str(home), "bind")],
        "user": f"{USER}:{USER}",
        "read_only": True,
        "tmpfs": {"/tmp": "size=1g"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": "host",  # MLflow and the endpoint listen on this machine's loopback
        "shm_size": "1g",
        "mem_limit": "8g",
    }


def _let_the_user_in(*folders: Path) -> None:
    """Pods of the restricted profile are not root, and a volume belongs to their group."""
    top = Path(tempfile.gettempdir())
    for folder in folders:
        assert folder.is_relative_to(top), f"{folder}: nothing above {top} is opened to others"
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(folder)], check=True)
        for parent in folder.parents:
            if parent == top:
                break
            parent.chmod(parent.stat().st_mode | 0o055)


def _take(ended: Ended, words: Sequence[str], code: int, said: str) -> None:
    if "components.kubeflow_ending" in words:
        if "fail" in words:
            told = dict(
                word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word
            )
            ended.failed, ended.reason, ended.exit_code = told["outcome"], told["reason"], code
        else:
            assert code == 0, said
        return
    step = words[words.index("components") + 1].rpartition(":")[2]
    if code:
        ended.failed, ended.exit_code, ended.reason = step, code, said
        return
    ended.steps.add(step)
    for flag, named in pairwise(words):
        name, _, path = named.partition("=")
        if flag == "--output":
            ended.take_output(step, name, Path(path))
        elif flag == "--value":
            text = Path(path).read_text()
            ended.values[f"{step}.{name.removesuffix('_value')}"] = text


@contextmanager
def _cured(containers: list[tuple[Sequence[str], int, str]]) -> Iterator[None]:
    from kfp.local import docker_task_handler, executor_output_utils
    from kfp.local.orchestrator import enhanced_dag_orchestrator

    class Unresolved(BaseException):
        """No Exception: kfp takes those for False."""

    def resolve(channel: str, store: Any) -> Any:
        name = channel.removeprefix("pipelinechannel--")
        cuts = [match.start() for match in re.finditer("-", name)]
        looks = [lambda: store.get_parent_input(channel), lambda: store.get_parent_input(name)]
        looks += [lambda i=i: store.get_task_output(name[:i], name[i + 1 :]) for i in cuts]
        for look in looks:
            try:
                return look()
            except (ValueError, KeyError):
                continue
        raise Unresolved(channel)

    add = executor_output_utils.add_type_to_executor_output

    def with_declared(executor_input: Any, executor_output: Any) -> Any:
        for key, declared in executor_input.outputs.artifacts.items():
            if key not in executor_output.artifacts:
                executor_output.artifacts[key].CopyFrom(declared)
        return add(executor_input=executor_input, executor_output=executor_output)

    def run(client: Any, image: str, command: list[str], volumes: Any, **more: Any) -> int:
        # As Kubernetes does: `command` of the component stands for the image's entrypoint.
        container = client.containers.run(
            image=image,
            entrypoint=command[0],
            command=command[1:],
            detach=True,
            volumes=volumes,
            **more,
        )
        try:
            code = container.wait()["StatusCode"]
            said = container.logs().decode(errors="replace")
        finally:
            container.remove(force=True)
        containers.append((command, code, said))
        return int(code)

    evaluator = enhanced_dag_orchestrator.ConditionEvaluator
    kept = (
        docker_task_handler.run_docker_container,
        executor_output_utils.add_type_to_executor_output,
        evaluator._resolve_pipeline_channel,
    )
    docker_task_handler.run_docker_container = run
    executor_output_utils.add_type_to_executor_output = with_declared
    evaluator._resolve_pipeline_channel = staticmethod(resolve)
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = kept[0]
        executor_output_utils.add_type_to_executor_output = kept[1]
        evaluator._resolve_pipeline_channel = staticmethod(kept[2])
