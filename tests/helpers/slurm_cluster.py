"""A SLURM of one node for the tests: Debian's packages, downloaded and unpacked in a folder, not installed.

An installed ``srun`` would change other tests: Lightning warns about it in every Trainer. Here it is only on the
``PATH`` of the jobs and of the commands that ``Cluster`` runs.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import suppress

from lightning_green.supervisor.launchers.slurm_job import SLURMJob
from tests.helpers.processes import environment

PACKAGES = (
    *("munge", "libmunge2", "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins"),
    *("libhwloc15", "liblua5.1-0"),
)
KILL_WAIT = 4
"""Seconds between SIGTERM and SIGKILL at the end of a job, which the end of each planned exit takes."""
DEFAULT_KILL_WAIT = 30
"""The default of SLURM."""
START_SECONDS = 60.0


class UnavailableError(RuntimeError):
    """No SLURM can be started on this machine; the message is the reason."""


class Cluster:
    """A controller, one node and their authentication service, on free ports and with all files in a folder.

    Args:
        folder: An empty folder.
        site: Further lines of the configuration.

    """

    def __init__(self, folder, site=""):
        self.folder, self.site, self._services = folder, site, []
        self.root, self.config = folder / "root", folder / "slurm.conf"

    def start(self):
        """Start the services and wait for the node."""
        if os.geteuid() != 0:
            raise UnavailableError("SLURM's node daemon needs root")
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise UnavailableError("SLURM is unpacked from Debian's packages, which needs apt-get and dpkg")
        self._unpack()
        found = next(self.root.glob("usr/lib/**/libmunge.so.2"), None)
        if found is None:
            raise UnavailableError("the package libmunge2 has no library")
        self.libraries = found.parent
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self._configure()
        munged = ["munged", "--foreground", "--force", "--num-threads=2"]
        names = {"key-file": "munge.key", "socket": "munge", "pid-file": "munge.pid", "seed-file": "seed"}
        munged += [f"--{option}={self.folder / name}" for option, name in names.items()]
        self._serve(*munged, f"--log-file={self.folder / 'munged.log'}")
        self._until(lambda: (self.folder / "munge").exists(), "munged")
        self._serve("slurmctld-wlm", "-D", "-c")
        self._serve("slurmd-wlm", "-D", "-d", self.root / "usr/sbin/slurmstepd-wlm")
        self._until(lambda: self.run("sinfo", "--noheader", "-o", "%t", check=False).strip() == "idle", "the node")
        return self

    def stop(self):
        """End all jobs and services."""
        with suppress(Exception):
            self.run("scancel", "--user=root")
            self._until(lambda: not self.run("squeue", "--noheader").strip(), "the end of the jobs", KILL_WAIT + 10)
        for service in reversed(self._services):
            service.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.wait(10)
            service.kill()
            service.wait()

    def set_kill_wait(self, seconds):
        """Set the time between SIGTERM and SIGKILL at the end of a job."""
        self.config.write_text(re.sub(r"KillWait=\d+", f"KillWait={seconds}", self.config.read_text()))
        self.run("scontrol", "reconfigure")

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def run(self, *words, check=True, **variables):
        """Run a command of SLURM; return its output."""
        done = subprocess.run(
            list(map(str, words)), env=self.environment(**variables), capture_output=True, text=True, timeout=60
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, folder, *lines, options=(), arguments=(), **variables):
        """Submit a batch script that writes ``started`` (a time a line) and ``output``; return the id of the job."""
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "job.sh"
        name = "output.%a" if any(str(one).startswith("--array") for one in options) else "output"
        header = ["#!/bin/bash", f"#SBATCH --output={folder}/{name}", "#SBATCH --open-mode=append"]
        script.write_text("\n".join([*header, f"date +%s.%N >> {folder}/started", *lines]) + "\n")
        words = ["sbatch", "--parsable", f"--chdir={folder}", *options, script, *arguments]
        return self.run(*words, **variables).strip()

    def job(self, job_id):
        """Return the job as SLURM describes it."""
        return SLURMJob.parse(self.run("scontrol", "show", "job", job_id))

    def state(self, job_id):
        """Return the state of a job, such as ``"RUNNING"``."""
        return self.job(job_id).fields["JobState"]

    def until_state(self, job_id, *states, seconds=240):
        """Wait for one of these states of a job; return it."""
        self._until(lambda: self.state(job_id) in states, f"{job_id} to be {states}", seconds, job_id)
        return self.state(job_id)

    def until_printed(self, path, text, seconds=120, times=1):
        """Wait until a job has printed a text; return all that it has printed."""
        self._until(lambda: path.exists() and path.read_text().count(text) >= times, f"{text!r} in {path}", seconds)
        return path.read_text()

    def environment(self, **variables):
        """Return the environment of the commands and of the jobs."""
        own = environment(**variables)
        own = {name: text for name, text in own.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        programs = [str(self.root / "usr/bin"), str(self.root / "usr/sbin"), own["PATH"]]
        paths = [str(self.libraries), str(self.libraries / "slurm-wlm"), own.get("LD_LIBRARY_PATH")]
        own["PATH"], own["LD_LIBRARY_PATH"] = os.pathsep.join(programs), os.pathsep.join(filter(None, paths))
        return own | {"SLURM_CONF": str(self.config)}

    # -- services -----------------------------------------------------------------------------------------------------

    def _unpack(self):
        packages = self.folder / "packages"
        packages.mkdir()
        done = subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=packages, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise UnavailableError(f"SLURM's packages cannot be downloaded: {done.stderr.strip()[-300:]}")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "--extract", package, self.root], check=True, timeout=60)

    def _configure(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        files = {
            "PluginDir": self.libraries / "slurm-wlm",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdLogFile": self.folder / "slurmd.log",
            "AuthInfo": f"socket={self.folder / 'munge'}",
        }
        plugins = {
            **{"AuthType": "auth/munge", "CredType": "cred/munge", "ProctrackType": "proctrack/linuxproc"},
            **{"TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none", "MpiDefault": "none"},
            **{"AccountingStorageType": "accounting_storage/none", "SwitchType": "switch/none"},
            **{"SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "SchedulerType": "sched/backfill"},
        }
        times = "sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0"
        ports = free_ports(2)
        lines = [
            *("ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", "SlurmUser=root", "SlurmdUser=root"),
            *(f"{name}={value}" for name, value in (files | plugins).items()),
            *(f"SlurmctldPort={ports[0]}", f"SlurmdPort={ports[1]}", f"SchedulerParameters={times}"),
            *("ReturnToService=2", "MessageTimeout=20", f"KillWait={KILL_WAIT}"),
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=1000 State=UNKNOWN",
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8",
            self.site,
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def _serve(self, *words):
        log = open(self.folder / f"{words[0]}.out", "wb")  # noqa: SIM115  (the service writes to it)
        own = self.environment()
        program = shutil.which(words[0], path=own["PATH"])
        if program is None:
            raise UnavailableError(f"the packages have no {words[0]}")
        words = [program, *map(str, words[1:])]
        service = subprocess.Popen(words, env=own, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        log.close()
        self._services.append(service)

    def _until(self, happened, what, seconds=START_SECONDS, job_id=None):
        limit = time.monotonic() + seconds
        while not happened():
            ended = [service.args[0] for service in self._services if service.poll() is not None]
            if ended or time.monotonic() > limit:
                logs = "".join(path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*d.log"))
                about = self.run("scontrol", "show", "job", job_id, check=False) if job_id else ""
                raise UnavailableError(f"no {what} within {seconds} s; ended: {ended}\n{about}\n{logs}")
            time.sleep(0.2)


def free_ports(number):
    """Return ports of this machine that nothing listens on."""
    with_ports = [socket.socket() for _ in range(number)]
    for one in with_ports:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_ports]
    for one in with_ports:
        one.close()
    return ports
