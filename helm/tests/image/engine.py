"""buildah and podman, made to work where tests run: as root, without a Docker engine, perhaps in a sandbox.

Everything lives in a cache directory of its own, so that the base image is fetched or made once, and no image of
the machine's own is touched.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).parents[3]
BASE_IMAGE: Final = "docker.io/library/python:3.13-slim-trixie"
"""The Dockerfile's default of PYTHON_IMAGE."""
NO_CAPABILITIES: Final = "0000000000000000"
"""CapEff in /proc/PID/status of a process without capabilities."""

_PACKAGES: Final = ("buildah", "podman", "runc", "conmon", "catatonit", "netavark", "golang-github-containers-common")
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "responses-worker" / "containers"
_CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# Lower limits and runc: without CAP_SYS_RESOURCE the defaults cannot be set, and crun refuses hybrid cgroups.
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# Debian's own Python 3.13 and what else the official image has; paths it leaves out are left out here too.
_DEBIAN: Final = (
    "--variant=minbase",
    "--include=python3,python3-venv,ca-certificates,netbase,tzdata",
    *(f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in ("doc", "info", "locale", "man")),
    '--customize-hook=chroot "$1" ln -sf python3 /usr/bin/python',
    "trixie",
)


class UnavailableError(Exception):
    """No container can be built or run on this machine at all; the message says why."""


class CommandError(Exception):
    """A tool refused; the message is the end of what it said."""


@dataclass(frozen=True)
class Container:
    """A running container, seen from the host."""

    name: str
    engine: "Engine"

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.engine.podman("inspect", self.name))[0]["State"]

    @property
    def process(self) -> dict[str, str]:
        """The fields of the main process' /proc/PID/status."""
        lines = Path(f"/proc/{self.state['Pid']}/status").read_text(encoding="utf-8").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def log(self) -> str:
        return self.engine.podman("logs", self.name)

    def terminate(self) -> None:
        """SIGTERM, as the kubelet sends it: to the container's first process and to no other."""
        os.kill(self.state["Pid"], signal.SIGTERM)

    def wait(self, within_s: float) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        return int(self.engine.podman("wait", self.name, timeout_s=within_s))

    def remove(self) -> None:
        self.engine.podman("rm", "--force", "--time", "0", self.name)


@dataclass(frozen=True)
class Engine:
    """Builds and runs images; make one with `Engine.ready`."""

    storage: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    @functools.cache
    def ready(cls) -> "Engine":
        """An engine that has the base image and has run it once. Raises UnavailableError."""
        if os.geteuid() != 0:
            raise UnavailableError("building with chroot isolation needs root")
        _CACHE.mkdir(parents=True, exist_ok=True)
        config = _CACHE / "containers.conf"
        config.write_text(_CONTAINERS_CONF, encoding="utf-8")
        storage = ("--root", str(_CACHE / "storage"), "--runroot", str(_CACHE / "run"), "--storage-driver", "overlay")
        engine = cls(storage, {**os.environ, "CONTAINERS_CONF": str(config)})
        try:
            _install(_PACKAGES, commands=("buildah", "podman", "runc"))
            if not engine.buildah("images", "--quiet", "--filter", f"reference={BASE_IMAGE}").strip():
                engine._obtain_base()
            engine.podman("run", "--rm", "--network", "host", BASE_IMAGE, "python", "--version")
        except CommandError as error:
            raise UnavailableError(f"containers do not work here: {error}") from error
        return engine

    def buildah(self, *arguments: str, timeout_s: float = 600) -> str:
        return _output(["buildah", *self.storage, *arguments], self.environment, timeout_s)

    def podman(self, *arguments: str, timeout_s: float = 60) -> str:
        return _output(["podman", *self.storage, *arguments], self.environment, timeout_s)

    def build(self, tag: str, *options: str, context: Path = PROJECT) -> str:
        """The id of the image that the Dockerfile gives, with times set to zero."""
        with tempfile.TemporaryDirectory() as directory:
            trust = _host_trust(Path(directory))
            # chroot isolation needs no privileges that a sandbox withholds.
            self.buildah(
                *("bud", "--isolation", "chroot", "--pull-never", "--timestamp", "0", "--tag", tag),
                *(part for mount in trust for part in ("--volume", mount)),
                *options,
                str(context),
            )
        return self.image(tag)["Id"]

    def image(self, tag: str) -> dict[str, Any]:
        """The words of `podman inspect` about an image."""
        return json.loads(self.podman("image", "inspect", tag))[0]

    def run(self, tag: str, name: str, *options: str, arguments: Sequence[str] = ()) -> Container:
        """Starts a container that can write nowhere but /tmp, has no capability and finds no shell."""
        shells = [f"type=bind,src=/dev/null,dst=/usr/bin/{shell}" for shell in ("bash", "dash")]
        self.podman(
            *("run", "--detach", "--name", name, "--replace", "--network", "host"),
            *("--read-only", "--tmpfs", "/tmp:size=16m", "--cap-drop", "all", "--security-opt", "no-new-privileges"),  # noqa: S108  # inside the container
            *(part for mount in shells for part in ("--mount", mount)),
            *options,
            tag,
            *arguments,
        )
        return Container(name, self)

    def _obtain_base(self) -> None:
        """From its registry, or else made of the same distribution's packages."""
        try:
            self.buildah("pull", BASE_IMAGE, timeout_s=120)
        except (CommandError, subprocess.TimeoutExpired):
            _install(("mmdebstrap",), commands=("mmdebstrap",))
            with tempfile.TemporaryDirectory() as directory:
                _output(["mmdebstrap", *_DEBIAN, f"{directory}/rootfs.tar"], os.environ, timeout_s=600)
                Path(directory, "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\n", encoding="utf-8")
                self.build(BASE_IMAGE, context=Path(directory))


def _install(packages: Sequence[str], *, commands: Sequence[str]) -> None:
    missing = [command for command in commands if not shutil.which(command)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise CommandError(f"{', '.join(missing)} missing, and no apt-get to install with")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    lock = ("-o", "DPkg::Lock::Timeout=300")
    _output(["apt-get", *lock, "--quiet", "update"], quiet, timeout_s=300)
    _output(
        ["apt-get", *lock, "--quiet", "--yes", "--no-install-recommends", "install", *packages], quiet, timeout_s=600
    )


def _host_trust(directory: Path) -> list[str]:
    """Mounts with which pip inside the build trusts what this machine trusts, such as a registry's proxy."""
    if not _CA_BUNDLE.exists():
        return []
    config = directory / "pip.conf"
    config.write_text(f"[global]\ncert = {_CA_BUNDLE}\n", encoding="utf-8")
    return [f"{_CA_BUNDLE}:{_CA_BUNDLE}:ro", f"{config}:/etc/pip.conf:ro"]


def _output(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    done = subprocess.run(  # the tools of this module, by name
        command, env=environment, timeout=timeout_s, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandError(f"{' '.join(command)}\n{done.stderr.strip()[-2000:]}")
    return done.stdout
