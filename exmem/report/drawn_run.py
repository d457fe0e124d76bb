"""Images and the page of a run: accuracy, and what is stored of its exemplars."""

from exmem.memory import ExemplarMemory
from exmem.report.plots import draw_accuracy
from exmem.report.view.drawing import draw_sheet
from exmem.report.view.exemplars import choose_slots, exemplar_sheet
from exmem.report.view.page import write_page
from exmem.report.view.run import known_of_run, load_last_phase, masking_of
from exmem.train.trainer import Trainer

__all__ = ["draw_run"]

_MOST = 12  # exemplars


def draw_run(trainer: Trainer) -> None:
    """Draw accuracy and exemplars of a run into its folder; its learner goes to the end of the last finished phase."""
    folder, config, data = trainer.folder, trainer.config, trainer.train
    draw_accuracy({config.recipe: folder.metrics()}, folder.picture)
    if trainer.recipe is None:
        return
    with ExemplarMemory.open(folder.memory) as memory:
        slots = choose_slots(memory, most=_MOST)
    if not slots:
        return
    load_last_phase(folder, config, trainer.learner, num_classes=len(data.class_names))
    known = known_of_run(
        folder,
        slots,
        config=config,
        class_names=data.class_names,
        backbone=trainer.backbone,
        data=data,
        masking=masking_of(trainer.recipe),
    )
    sheet = exemplar_sheet(folder.memory, slots, known=known)
    draw_sheet(sheet, folder.sheet)
    write_page(sheet, folder.page)
