"""`sparsedrive train`."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, optional, out, print_warning

if TYPE_CHECKING:
    from sparsedrive.data.dataset import LoadConfig
    from sparsedrive.data.loader import FrameLoader
    from sparsedrive.data.prepared import PreparedData
    from sparsedrive.models.sparsedrive import SparseDrive
    from sparsedrive.training.config import TrainConfig
    from sparsedrive.training.recipes import Recipe

IMAGENET = "imagenet"


@dataclass(frozen=True, kw_only=True)
class Train(BaseVerb):
    """Train a preset on prepared data: on a CPU, one GPU, or many.

    Each preset has its recipe (epochs, batch, rates, augmentation); another --batch changes the rate with it. How many GPUs and machines
    take part is up to `torchrun` or `accelerate launch`: they share the batch, and the result is that of one GPU but for the batch norms,
    whose statistics every process takes from its own pictures. Checkpoints go to OUT/checkpoints, the last weights to
    OUT/model.safetensors, the log to OUT/log.jsonl and log.csv, curves to OUT/curves.png. See docs/training.md.

    Examples:
      sparsedrive train tiny --data data/world/prepared/v1.0-world --out runs/tiny
      sparsedrive train tiny --data data/world/prepared/v1.0-world --out runs/tiny --resume
      sparsedrive train tiny_pretrained --backbone imagenet --data data/world/prepared/v1.0-world --out runs/pretrained
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
    missing_images: Literal["error", "skip", "black"] = "error"
    """What to do with frames that lack a picture: stop, leave them out, or train with that camera failed."""
    epochs: Annotated[float | None, optional("N")] = None
    """Passes over the split; without it the recipe's."""
    batch: Annotated[int | None, optional("N")] = None
    """Streams of all processes together; without it the recipe's."""
    accumulation: int = 1
    """Work off the streams in this many parts, to need less memory."""
    rate: Annotated[float | None, optional("RATE")] = None
    """Learning rate; without it the recipe's, scaled with the batch."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Half precision; "no" is float32. fp16 needs a GPU."""
    init: Annotated[Path | None, optional("FILE")] = None
    """Weights to start from, such as stage 1's for stage 2."""
    backbone: Annotated[str | None, optional("FILE|imagenet")] = None
    """An image backbone trained elsewhere: a ResNet file with torchvision's or timm's names, or "imagenet" for the weights that
    sparsedrive[pretrained] installs."""
    anchors: Annotated[Path | None, optional("FILE")] = None
    """Anchors from `sparsedrive anchors`."""
    freeze: tuple[str, ...] = ()
    """Parts that do not learn, such as image_encoder.backbone."""
    no_augment: bool = False
    """Leave pictures and ego frame as they are: a few frames can then be learned by heart, as a check."""
    parts: Annotated[int | None, optional("N")] = None
    """Pieces a scene is cut into, each a sequence with a cold start; without it the recipe's."""
    ema: Annotated[float | None, optional("DECAY")] = None
    """Also keep a running mean of the weights, with a decay such as 0.999; it goes to OUT/ema.safetensors."""
    resume: bool = False
    """Go on from the last checkpoint in OUT, bit by bit; from the beginning where there is none yet."""
    workers: int = 2
    """Processes that load; the batches are the same for every number."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints to keep."""
    log_every: int = 10
    """Steps between log lines."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    cpu: bool = False
    """Do not use a GPU."""
    deterministic: bool = False
    """Refuse operations whose result may differ from run to run."""

    def run(self) -> int:
        """Trains, and writes the weights and curves."""
        if find_spec("accelerate") is None:
            raise ValueError("train: the package accelerate is not installed; pip install 'sparsedrive[train]'")
        import sparsedrive
        from sparsedrive.cli.train_show import describe, finish, train_with_progress
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.training.allocator import keep_freed_memory
        from sparsedrive.training.checkpoint import checkpoints
        from sparsedrive.training.trainer import CHECKPOINTS, Trainer, make_accelerator

        found = checkpoints(self.out / CHECKPOINTS)
        if found and not self.resume:
            raise ValueError(f"--out: {self.out} already holds a run ({found[-1].name}); go on with --resume or choose another folder")
        data, model = PreparedData.open(self.data), sparsedrive.load(self.preset, seed=self.seed)
        config, notes = self.config(num_frames := self.num_frames(data))
        accelerator = make_accelerator(config, cpu=self.cpu)
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        notes += [] if found else self.start(model)
        loader = self.loader(data, config.batch_size, accelerator.num_processes, accelerator.process_index)
        trainer = Trainer(model, loader, config, self.out, accelerator)
        changed = trainer.resume(found[-1]) if found else []
        if accelerator.is_main_process:
            if self.resume:
                notes.append(f"going on from step {trainer.step}" if found else f"no checkpoint in {self.out} yet: from the beginning")
            out().print("\n".join(describe(trainer, self.data, self.split, num_frames) + notes), markup=False)
            if changed:
                print_warning(f"not the interrupted run any more: {', '.join(changed)}")
        train_with_progress(trainer)
        if accelerator.is_main_process:
            out().print("\n".join(finish(trainer)), markup=False)
        return 0

    def config(self, num_frames: int) -> "tuple[TrainConfig, list[str]]":
        """The run over a split of so many frames, and what was changed in the recipe, in words."""
        recipe, notes = self.recipe()
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
        return config, notes

    def recipe(self) -> "tuple[Recipe, list[str]]":
        """The preset's recipe with the options applied."""
        from sparsedrive.training.recipes import recipe

        chosen, notes = recipe(self.preset), []
        if self.batch is not None and self.batch != chosen.batch_size:
            before, chosen = chosen, chosen.with_batch(self.batch)
            if self.rate is None:
                notes.append(
                    f"batch {chosen.batch_size} instead of {before.batch_size}: rate {chosen.optimiser.rate:.3g} instead of "
                    f"{before.optimiser.rate:.3g}; --rate sets another"
                )
        if self.rate is not None:
            chosen = replace(chosen, optimiser=replace(chosen.optimiser, rate=self.rate))
        if chosen.failures is not None:
            notes.append(f"cameras fail: {chosen.failures}")
        epochs = chosen.epochs if self.epochs is None else self.epochs
        parts, ema_decay = chosen.parts if self.parts is None else self.parts, chosen.ema_decay if self.ema is None else self.ema
        return replace(chosen, epochs=epochs, parts=parts, ema_decay=ema_decay), notes

    def load_config(self) -> "LoadConfig":
        """How frames become the preset's input and targets."""
        import sparsedrive
        from sparsedrive.data import ImagePreprocess
        from sparsedrive.data.dataset import LoadConfig
        from sparsedrive.data.targets import TargetConfig
        from sparsedrive.training.recipes import recipe

        config = sparsedrive.preset(self.preset)
        return LoadConfig(
            camera_names=config.camera_names,
            preprocess=ImagePreprocess(final_wh_px=config.image_wh_px),
            augment=None if self.no_augment else recipe(self.preset).augment,
            targets=TargetConfig(depth_strides=config.depth_strides),
            missing_images=self.missing_images,
        )

    def num_frames(self, data: "PreparedData") -> int:
        """Frames of the split that can be trained on."""
        from sparsedrive.data.dataset import usable_runs

        config = self.load_config()
        return sum(len(run) for name in data.split(self.split) for run in usable_runs(data.scene(name), config))

    def loader(self, data: "PreparedData", batch: int, processes: int, rank: int) -> "FrameLoader":
        """Batches of one process."""
        from sparsedrive.data.loader import make_loader

        chosen = self.recipe()[0]
        return make_loader(
            data, self.split, self.load_config(), training=True, batch_size=batch // processes, workers=self.workers, rank=rank,
            world_size=processes, seed=self.seed, parts=chosen.parts, failures=chosen.failures,
        )  # fmt: skip

    def start(self, model: "SparseDrive") -> list[str]:
        """Puts the start weights into the model; what they were, in words."""
        from sparsedrive.convert.start import imagenet_file, start_backbone, start_from
        from sparsedrive.models.anchors import set_anchors
        from sparsedrive.structures.anchors import Anchors

        notes = []
        if self.anchors is not None:
            set_anchors(model, Anchors.load(self.anchors))
            notes.append(f"anchors from {self.anchors}")
        backbone = imagenet_file(model) if self.backbone == IMAGENET else self.backbone
        for path, take in ((backbone, start_backbone), (self.init, start_from)):
            if path is not None:
                report = take(model, Path(path))
                notes.append(f"{report.taken} tensors from {path}; starting fresh: {', '.join(report.fresh_parts) or 'nothing'}")
        return notes
