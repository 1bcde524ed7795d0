"""``lightning-green kubernetes``: manifests of a training, and the waker of suspended Jobs."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from typing import Annotated

import typer
import yaml

from lightning_green.cli.messages import fail, print_line
from lightning_green.kubernetes.manifests import Manifest, Training, waker_manifests
from lightning_green.kubernetes.rules import problems
from lightning_green.kubernetes.waker import Waker
from lightning_green.supervisor.launchers.kubernetes_api import Access, KubernetesAPI, KubernetesError, checked
from lightning_green.supervisor.launchers.kubernetes_job import LEASE_LIMIT
from lightning_green.utilities.durations import parse_duration

INCOMPLETE = 1
_SHORTEST_INTERVAL = timedelta(seconds=1)
_LONGEST_INTERVAL = LEASE_LIMIT / 2

kubernetes_app = typer.Typer(
    name="kubernetes",
    help="Print the manifests of a training in Kubernetes, and start suspended Jobs again.",
    no_args_is_help=True,
)

Image = Annotated[str, typer.Option(help="Image that contains lightning-green.")]


@kubernetes_app.command()
def job(
    command: Annotated[list[str] | None, typer.Argument(help="Training command, after `--`.")] = None,
    *,
    image: Image,
    volume_claim: Annotated[str, typer.Option(help="PersistentVolumeClaim that the run directory is written to.")],
    name: Annotated[str, typer.Option(help="Name of the Job and of its run directory.")] = "training",
    namespace: Annotated[str, typer.Option(help="Namespace of the Job.")] = "default",
    mount: Annotated[str, typer.Option(help="Where the volume is mounted.")] = "/data",
    gpus: Annotated[int, typer.Option(min=0, help="Number of NVIDIA GPUs.")] = 0,
    cpu: Annotated[str | None, typer.Option(help="CPUs to request, such as 8.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to request and limit, such as 32Gi.")] = None,
    grace: Annotated[
        str, typer.Option(help="Time to save the state and to exit after SIGTERM. --stop-timeout is a minute less.")
    ] = "6m",
    active_deadline: Annotated[
        str | None, typer.Option(help="Longest time between two suspensions, such as 24h. Default: no limit.")
    ] = None,
    user: Annotated[int | None, typer.Option(min=0, help="User and group id of the training.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="Environment variable, as NAME=VALUE. Repeatable.")] = None,
    waker: Annotated[bool, typer.Option("--waker", help="Print the manifests of a waker as well.")] = False,
    waker_namespace: Annotated[
        str | None, typer.Option(help="Namespace of a waker for all namespaces. Default: that of the Job.")
    ] = None,
) -> None:
    """Print the manifests of a training as YAML: a service account with its rights, and a Job.

    Apply them with `kubectl apply -f -`. Nothing is sent to a cluster.

    Exit codes: 0 success; 2 wrong usage, or the Job would not be accepted or not be safe.
    """
    if not command:
        fail("The training command is missing. Add it after `--`, for example: -- python train.py")
    variables = {}
    for one in env or ():
        variable, is_given, value = one.partition("=")
        if not is_given:
            fail(f"`--env` should be NAME=VALUE, got {one!r}.")
        variables[variable] = value
    training = Training(
        image=image,
        command=command,
        volume_claim=volume_claim,
        name=name,
        namespace=namespace,
        mount=mount,
        gpus=gpus,
        cpu=cpu,
        memory=memory,
        grace_seconds=_seconds(grace, "--grace"),
        active_seconds=None if active_deadline is None else _seconds(active_deadline, "--active-deadline"),
        user=user,
        environment=variables,
        waker_namespace=waker_namespace,
    )
    found = training.manifests()
    for problem in problems(found[-1]):
        fail(problem)
    if waker:
        elsewhere = waker_namespace is not None and waker_namespace != namespace
        found = [*waker_manifests(image, waker_namespace or namespace, elsewhere), *found]
    _print(found)


@kubernetes_app.command()
def waker_manifest(
    image: Image,
    namespace: Annotated[str, typer.Option(help="Namespace of the waker.")] = "default",
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Start the Jobs of all namespaces, instead of its own.")
    ] = False,
) -> None:
    """Print the manifests of a waker as YAML: a CronJob that runs every minute, with its rights.

    Exit codes: 0 success; 2 wrong usage.
    """
    _checked(namespace)
    if not image.strip():
        fail("The image is missing.")
    _print(waker_manifests(image, namespace, all_namespaces))


@kubernetes_app.command()
def waker(
    once: Annotated[bool, typer.Option("--once", help="Look once, as in a CronJob.")] = False,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the Jobs. Default: that of this pod.")] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", help="Start the Jobs of all namespaces.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two looks, at most 5m.")] = "60s",
    server: Annotated[
        str | None, typer.Option(help="Address of `kubectl proxy`, outside of a pod: http://127.0.0.1:8001.")
    ] = None,
) -> None:
    """Start Jobs that `lightning-green run --launcher kubernetes` has suspended, when they are due.

    Exit codes: 0 success, or stopped by a signal; 1 a Job or the Lease could not be changed, with --once; 2 wrong
    usage.
    """
    if all_namespaces and namespace is not None:
        fail("Use either --namespace or --all-namespaces.")
    every = timedelta(seconds=_seconds(interval, "--interval"))
    if not _SHORTEST_INTERVAL <= every <= _LONGEST_INTERVAL:
        fail(f"`--interval` should be between 1s and 5m, got {interval}.")
    try:
        access = Access.of_pod() if server is None else Access.of_proxy(server)
        api = KubernetesAPI(access)
    except KubernetesError as error:
        fail(
            f"The waker cannot be used: {error}. {error.remedy or 'Outside of a pod, use kubectl proxy and --server.'}"
        )
    own = access.namespace if namespace is None else _checked(namespace)
    found = Waker(api, None if all_namespaces else own, every, print_line, own if server else access.namespace)
    if once:
        raise typer.Exit(0 if found.run_once() else INCOMPLETE)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.is_set():
        found.run_once()
        stopped.wait(every.total_seconds())


def _seconds(text: str, option: str) -> int:
    try:
        return round(parse_duration(text, option).total_seconds())
    except ValueError as error:
        fail(str(error))


def _checked(namespace: str) -> str:
    try:
        return checked(namespace)
    except KubernetesError as error:
        fail(f"`--namespace` cannot be used: {error}.")


def _print(manifests: list[Manifest]) -> None:
    typer.echo(yaml.safe_dump_all(manifests, sort_keys=False, width=120, allow_unicode=True), nl=False)
