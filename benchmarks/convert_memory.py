"""Peak memory and seconds of converting a checkpoint of the published size (1.8 GB, nearly all puzzle embeddings).

    python benchmarks/convert_memory.py [--whole] [FLAGS OF tools/convert_torch_ckpt.py, e.g. --keep-puzzle-embeddings]

`--whole` converts it with its table, whose rows get names as the published one has (1001 variants a task).

Makes a synthetic checkpoint in a temporary folder (2 GB of disk, 4 GB with the embeddings kept) and converts it in
a process of its own, whose largest resident set the kernel reports. Pages of the memory-mapped checkpoint count in
it as far as they were touched, although the kernel can drop them at any time: the figure is an upper bound.
"""

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MB = 3000
SIZES = {"H_cycles": 3, "L_cycles": 4, "num_heads": 8, "puzzle_emb_len": 16}
PUZZLES, WIDTH = 876_406, 512

# Runs in a process of its own too: a child's resident set starts at that of the process that forks it.
MAKE = f"""
import sys
import torch
sys.path.insert(0, {str(ROOT)!r})
from tools.torch_reference import Decoder
torch.manual_seed(0)
decoder = Decoder(hidden_size=512, expansion=4.0, seq_len=900, L_layers=2, **{SIZES!r})
state = decoder.state_dict() | {{"puzzle_emb.weights": torch.zeros({PUZZLES}, {WIDTH})}}
for name in ("H_init", "L_init"):
    state[name] = state[name].bfloat16()
torch.save({{"_orig_mod.model.inner." + name: tensor for name, tensor in state.items()}}, sys.argv[1])
"""


def write_names(file: Path) -> Path:
    names = ["<blank>"]
    for task in itertools.count():
        names.append(f"{task:08x}")
        for colours in itertools.islice(itertools.permutations("123456789"), 1, 126):
            names += [f"{task:08x}|||t{transform}|||0{''.join(colours)}" for transform in range(8)]
        if len(names) >= PUZZLES:
            file.write_text(json.dumps(names[:PUZZLES]))
            return file


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder) / "step_518071", Path(folder) / "converted"
        subprocess.run([sys.executable, "-c", MAKE, str(source)], check=True)
        source.with_name("all_config.yaml").write_text(
            "arch:\n" + "".join(f"  {name}: {value}\n" for name, value in SIZES.items()))
        flags = sys.argv[1:]
        if "--whole" in flags:
            flags[flags.index("--whole")] = f"--identifiers={write_names(Path(folder) / 'identifiers.json')}"
        start = time.perf_counter()
        converter = subprocess.Popen([sys.executable, str(ROOT / "tools" / "convert_torch_ckpt.py"),
                                      str(source), str(destination), *flags])
        _, status, usage = os.wait4(converter.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit("error: the conversion failed")
        size_mb = source.stat().st_size / 1e6
    peak_mb = usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024) / 1e6
    print(f"checkpoint {size_mb:.0f} MB; peak resident memory {peak_mb:.0f} MB; {seconds:.1f} s")
    if peak_mb > LIMIT_MB:
        sys.exit(f"error: more than {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
