"""What surrounds a run: files that are whole or not there, signals, and the processes that share the work.

`torchrun --nproc_per_node=N train.py ...` starts N processes with a model each. A step's batch is cut into N
parts; DistributedDataParallel (PyTorch Distributed, Li et al., 2020) makes the gradient of each the mean of
all, so all follow the same one and stay the same. The first process alone speaks and writes.
"""

import os
import signal
import sys
from shlex import quote

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from mingpt_mm import BadInput

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not kept apart there
    fcntl = None

RANK = int(os.environ.get("RANK", 0))  # which of the processes this is,
WORLD = int(os.environ.get("WORLD_SIZE", 1))  # of how many


def write_file(path, write):
    """Have `write(file)` fill a temporary file, then move it to `path`: what was there stays until then."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of a full disk
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise BadInput(f"{path}: cannot be written ({reason}); what was there stays") from error
    finally:
        if os.path.exists(draft):  # most often it is not there any more
            draft.unlink()


def claim(folder, new):
    """Make `folder` for a `new` run, or take over that of an old one and remove what was left half written.

    Other processes are kept out as long as the returned file is open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "w")
    try:
        if fcntl:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if new and (folder / "last.pt").exists():
            raise BlockingIOError
    except (BlockingIOError, PermissionError):
        raise BadInput(f"--out {folder}: another run is at work there: let it end, or name another "
                       "folder") from None
    for draft in folder.glob("*.draft"):
        draft.unlink()
    return lock


class Interruption:
    """Ctrl-C or SIGTERM: the first ends a run when it has taken its step and saved, a second one at once."""

    def __init__(self):
        self.noted, self.number, self.process = 0, 0, os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.note)

    def note(self, number, frame):
        """Called by Python when a signal comes; processes that read the data go on until the run ends."""
        if os.getpid() != self.process:
            return
        if self.noted and WORLD == 1:  # torchrun may pass on one that came already; it kills what is slow
            os._exit(128 + number)
        self.noted = number
        os.write(2, b"stopping after this step; once more stops at once\n")

    def asked(self):
        """The `number` of the signal that any of the processes got, or 0; all of them ask together."""
        number = torch.tensor(self.noted)
        if WORLD > 1:
            distributed.all_reduce(number, distributed.ReduceOp.MAX)
        self.number = number.item()
        return self.number

    def leave(self, loop, folder):
        """If there was a signal, say how to go on, and exit as a shell expects of what a signal ended."""
        if self.number:
            command = f"python train.py {loop} --resume --out {quote(str(folder))}"
            print(f"saved; go on with: {command}", flush=True)
            sys.exit(128 + self.number)


def join(backend):
    """Meet the other processes, if there are any, and be silent unless this is the first."""
    if WORLD > 1:
        distributed.init_process_group(backend)
    if RANK:
        sys.stdout = open(os.devnull, "w")


def total(tensor):
    """The sum of what all processes have in `tensor`."""
    if WORLD > 1:
        distributed.all_reduce(tensor)
    return tensor


def part():
    """Leave the other processes when all are done."""
    if WORLD > 1:
        total(torch.zeros(()))  # waits for the first one, which measures a while longer
        distributed.destroy_process_group()
        sys.stdout.flush()
        os._exit(0)  # threads of gloo that still let go of tensors must not meet a Python that is ending


def lost(error):
    """Whether `error` (a RuntimeError) says that another process cannot be reached."""
    return WORLD > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def share(model):
    """`model`, whose backward pass ends with the mean of all processes' gradients."""
    return DistributedDataParallel(model, gradient_as_bucket_view=True) if WORLD > 1 else model
