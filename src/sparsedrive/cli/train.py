"""`sparsedrive train`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, err, optional, out

if TYPE_CHECKING:
    from sparsedrive.models.sparsedrive import SparseDrive
    from sparsedrive.training.recipes import Recipe
    from sparsedrive.training.trainer import Trainer

CURVES = ("loss", "gradient_norm", "rate")


@dataclass(frozen=True, kw_only=True)
class Train(BaseVerb):
    """Train a preset on prepared data: on a CPU, one GPU, or many when started by `torchrun` or `accelerate launch`.

    Each preset has its recipe (epochs, batch, rates, augmentation); another --batch changes the rate with it. Checkpoints go to
    OUT/checkpoints, the last weights to OUT/model.safetensors, the log to OUT/log.jsonl and log.csv, curves to OUT/curves.png.

    Examples:
      sparsedrive train tiny --data data/world/prepared/v1.0-world --out runs/tiny
      sparsedrive train tiny --data data/world/prepared/v1.0-world --out runs/tiny --resume
      torchrun --nproc-per-node 8 -m sparsedrive train sparsedrive_small_stage1 --data nusc --out runs/stage1 --precision bf16
      sparsedrive train sparsedrive_small_stage2 --data nusc --out runs/stage2 --init runs/stage1/model.safetensors --batch 8
    """

    preset: Annotated[str, Positional, arg(metavar="PRESET")]
    """What to train; `sparsedrive presets` lists them."""
    data: Path
    """Folder written by `sparsedrive prepare`."""
    out: Path
    """Folder of the run; made if needed."""
    split: str = "train"
    """Scenes to train on."""
    epochs: Annotated[float | None, optional("N")] = None
    """Passes over the split; without it the recipe's."""
    batch: Annotated[int | None, optional("N")] = None
    """Streams of all processes together; without it the recipe's."""
    accumulation: int = 1
    """Work off the streams in this many parts, to need less memory."""
    rate: Annotated[float | None, optional("RATE")] = None
    """Learning rate; without it the recipe's, scaled with the batch."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Half precision; "no" is float32."""
    init: Annotated[Path | None, optional("FILE")] = None
    """Weights to start from, such as stage 1's for stage 2."""
    backbone: Annotated[Path | None, optional("FILE")] = None
    """A ResNet trained on images, with torchvision's or timm's names."""
    anchors: Annotated[Path | None, optional("FILE")] = None
    """Anchors from `sparsedrive anchors`."""
    freeze: tuple[str, ...] = ()
    """Parts that do not learn, such as image_encoder.backbone."""
    resume: bool = False
    """Go on from the last checkpoint in OUT, bit by bit."""
    workers: int = 2
    """Processes that load; the batches are the same for every number."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints to keep."""
    log_every: int = 10
    """Steps between log lines."""
    seed: int = 0
    """Of weights, order and augmentation."""
    cpu: bool = False
    """Do not use a GPU."""
    deterministic: bool = False
    """Refuse operations whose result may differ from run to run."""

    def run(self) -> int:
        """Trains, and writes the weights and curves."""
        import sparsedrive
        from sparsedrive.training.trainer import CHECKPOINTS, make_accelerator

        if (self.out / CHECKPOINTS).is_dir() and not self.resume:
            raise ValueError(f"--out: {self.out} already holds a run; go on with --resume or choose another folder")
        recipe = self._recipe()
        loader_of, num_frames = self._loaders(recipe)
        config = replace(
            recipe.train_config(num_frames),
            accumulation=self.accumulation,
            precision=self.precision,
            freeze=self.freeze,
            save_every=self.save_every,
            keep=self.keep,
            log_every=self.log_every,
            seed=self.seed,
            deterministic=self.deterministic,
        )
        accelerator = make_accelerator(config, cpu=self.cpu)
        model = sparsedrive.load(self.preset, seed=self.seed)
        notes = [
            f"{self.preset}: {config.steps} steps of {config.batch_size} streams over {num_frames} frames, rate "
            f"{config.optimiser.rate:.2g}, {accelerator.num_processes} process(es) on {accelerator.device.type}, "
            f"precision {config.precision}",
            *self._start(model),
        ]
        loader = loader_of(config.batch_size, accelerator.num_processes, accelerator.process_index)
        trainer = self._trainer(model, loader, config, accelerator)
        if accelerator.is_main_process:
            out().print("\n".join(notes), markup=False)
        self._train(trainer)
        return 0

    def _recipe(self) -> "Recipe":
        from sparsedrive.training.recipes import recipe

        chosen = recipe(self.preset)
        chosen = chosen if self.batch is None else chosen.with_batch(self.batch)
        if self.epochs is not None:
            chosen = replace(chosen, epochs=self.epochs)
        return chosen if self.rate is None else replace(chosen, optimiser=replace(chosen.optimiser, rate=self.rate))

    def _loaders(self, recipe: "Recipe"):
        """A function (batch, processes, rank) -> loader, and the number of frames of the split."""
        import sparsedrive
        from sparsedrive.data import ImagePreprocess
        from sparsedrive.data.dataset import LoadConfig
        from sparsedrive.data.loader import make_loader
        from sparsedrive.data.prepared import PreparedData

        config = sparsedrive.preset(self.preset)
        data = PreparedData.open(self.data)
        load = LoadConfig(
            camera_names=config.camera_names, preprocess=ImagePreprocess(final_wh_px=config.image_wh_px), augment=recipe.augment
        )

        def make(batch: int, processes: int, rank: int):
            return make_loader(
                data, self.split, load, training=True, batch_size=batch // processes, workers=self.workers, rank=rank,
                world_size=processes, seed=self.seed, parts=recipe.parts,
            )  # fmt: skip

        return make, sum(data.scene(name).num_frames for name in data.split(self.split))

    def _start(self, model: "SparseDrive") -> list[str]:
        from sparsedrive.convert.start import start_backbone, start_from
        from sparsedrive.models.anchors import set_anchors
        from sparsedrive.structures.anchors import Anchors

        notes = []
        if self.anchors is not None:
            set_anchors(model, Anchors.load(self.anchors))
            notes.append(f"anchors from {self.anchors}")
        for path, take in ((self.backbone, start_backbone), (self.init, start_from)):
            if path is not None:
                report = take(model, path)
                notes.append(f"{report.taken} tensors from {path}; starting fresh: {', '.join(report.fresh_parts) or 'nothing'}")
        return notes

    def _trainer(self, model, loader, config, accelerator) -> "Trainer":
        from sparsedrive.training.checkpoint import checkpoints
        from sparsedrive.training.trainer import CHECKPOINTS, Trainer

        trainer = Trainer(model, loader, config, self.out, accelerator)
        found = checkpoints(self.out / CHECKPOINTS)
        if self.resume and found:
            trainer.resume(found[-1])
            if accelerator.is_main_process:
                out().print(f"going on from step {trainer.step}", markup=False)
        return trainer

    def _train(self, trainer: "Trainer") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        import sparsedrive
        from sparsedrive.viz.curves import draw_curves
        from sparsedrive.viz.files import write_picture

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        main = trainer.accelerator.is_main_process
        with Progress(*columns, console=err(), disable=not main) as bar:
            task = bar.add_task("training", total=trainer.config.steps, completed=trainer.step)

            def show(entry: dict[str, float]) -> None:
                text = f"loss {entry['loss']:.2f}  gradient {entry['gradient_norm']:.1f}"
                bar.update(task, completed=entry["step"], description=text)

            trainer.run(show)
        if main:
            from sparsedrive.training.logs import read_log

            sparsedrive.save(trainer.plain_model, self.out / "model.safetensors")
            log = read_log(trainer.folder)
            names = [name for name in log[-1] if name in CURVES or name.startswith("loss.")]
            write_picture(
                self.out / "curves.png",
                draw_curves([e["step"] for e in log], {name: [e.get(name, float("nan")) for e in log] for name in names}),
            )
            out().print(f"weights    {self.out / 'model.safetensors'}\ncurves     {self.out / 'curves.png'}", markup=False)
