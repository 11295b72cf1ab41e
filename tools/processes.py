"""Starts one command as several processes on this machine: processes.py N COMMAND… (./launch.sh --processes=N …)

They find each other by themselves. Each gets its share of the GPUs, at least one; without GPUs each has the CPU devices
that JAX_NUM_CPU_DEVICES says (1). Their lines are shown with their number in front. When one fails the others are
stopped; signals are passed on to all.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GRACE_S = 30.0  # for the others to end once one has failed
POLL_S = 0.1


def gpus() -> list[str]:
    """Numbers of the GPUs that may be used here; none without a driver."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    if not shutil.which("nvidia-smi"):
        return []
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(found.stdout.splitlines()) if line.startswith("GPU")]


def environments(count: int, devices: Sequence[str], port: int) -> list[dict[str, str]]:
    """The variables by which each of `count` processes knows its place.

    Raises:
        ValueError: there are fewer GPUs than processes, or they cannot be shared out evenly.
    """
    if devices and len(devices) % count:
        raise ValueError(f"--processes={count}: {len(devices)} GPUs cannot be shared out evenly")
    share = len(devices) // count
    found = []
    for i in range(count):
        found.append({"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count),
                      "JAX_PROCESS_ID": str(i)})
        if share:
            found[i] |= {"CUDA_VISIBLE_DEVICES": ",".join(devices[i * share:(i + 1) * share]),
                         "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(share)))}
    return found


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def show(number: int, lines: IO[str], out: IO[str]) -> None:
    """Copies lines, with the number of the process in front."""
    for line in lines:
        out.write(f"[{number}] {line.rstrip()}\n")
        out.flush()


def stop(processes: Sequence[subprocess.Popen], number: int) -> None:
    """Sends a signal to those that still run."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def wait(processes: Sequence[subprocess.Popen], told: threading.Event) -> int:
    """Waits for all; when one fails, the others are stopped, unless all have been `told` to end, as they do in order.

    Returns:
        The exit code of the first that failed, or 0.
    """
    failed, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        for number, process in enumerate(processes):
            if process.poll() and not failed:
                failed, deadline = process.returncode, time.monotonic() + GRACE_S
                others = [other for other in processes if other.poll() is None]
                if others and not told.is_set():  # a second signal would end them at once
                    print(f"processes: number {number} ended with exit code {failed}: the others are stopped",
                          file=sys.stderr, flush=True)
                    stop(others, signal.SIGTERM)
        if time.monotonic() > deadline:
            stop(processes, signal.SIGKILL)
        time.sleep(POLL_S)
    return failed or next((process.returncode for process in processes if process.returncode), 0)


def main(argv: Sequence[str]) -> int:
    count, *command = argv or ["--help"]
    if count in ("-h", "--help"):
        print(__doc__)
        return 0
    if not count.isdecimal() or int(count) < 1 or not command:
        sys.exit(f"--processes={count} must be a number of processes, at least 1, in front of a command")
    try:
        own = environments(int(count), gpus(), free_port())
    except ValueError as error:
        sys.exit(str(error))
    processes = [subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, errors="replace", process_group=0) for env in own]
    told = threading.Event()

    def pass_on(number: int, _: object) -> None:
        told.set()
        stop(processes, number)

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    readers = [threading.Thread(target=show, args=(number, lines, out)) for number, process in enumerate(processes)
               for lines, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))]
    for reader in readers:
        reader.start()
    code = wait(processes, told)
    for reader in readers:
        reader.join()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
