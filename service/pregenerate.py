"""Makes the pictures or clips of a study, so that nobody who takes part has to wait for one.

    python -m service.pregenerate pilot                      # one GPU, or the CPU
    accelerate launch -m service.pregenerate pilot           # every GPU of `accelerate config`, on one machine or more

It may be stopped and started again: what is finished is never made twice. Processes on several machines need one
database that all of them reach (PostgreSQL) and one data folder (a shared disk); each makes its own share of the items.
Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from tqdm import tqdm

from collection.database.connection import DEFAULT_DATA_DIR, DEFAULT_URL
from collection.store import Store
from collection.studies.beginnings import SETTINGS, with_more
from collection.studies.study_config import StudyPlan
from collection.types import ROLES, Generation, StudyItem
from npo_core.catalog.base_files import base_sha256
from npo_core.catalog.custom_families import add_families
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import FlaggedError
from npo_core.generator import Comparison, Generator
from npo_core.media.files import sha256_hex
from npo_core.requests import GenerationRequest, resolve_request
from service.arena.attention_checks import VARIANT, degraded
from service.arena.records import generation_record
from service.errors import INPUT_ERRORS, InputError
from service.generation.adapters_in_use import AdapterShelf

BATCH: Final = 4  # items made in one call of the pipeline

logger = logging.getLogger(__name__)


def pregenerate(
    store: Store,
    generator: Generator,
    study: str,
    *,
    share: tuple[int, int] = (0, 1),
    batch: int = BATCH,
    on_filled: Callable[[int], None] = lambda items: None,
) -> int:
    """Makes what `study` lacks, of it the items with number = share[0] modulo share[1]; returns how many items.

    Adapters are those the study began with, or the newest if it begins now. Raises InputError when the plan asks for
    something that the family cannot make, and when other settings, adapters or another base would be used than those
    that the study began with.
    """
    plan = store.study_plan(study)
    if plan.family != generator.family.name:
        raise InputError(f"The study {study!r} is of family {plan.family!r}, not {generator.family.name!r}; load that.")
    process, processes = share
    ours = [item for item in store.items_to_fill(study) if item.number % processes == process]
    requests = {item.id: request_of(item, plan) for item in ours}
    for request in requests.values():
        resolve_request(request, generator.family)  # before loading: a typo should not cost minutes
    if not ours:
        return 0
    _put_on_versions_of(study, plan.modality, store, generator)
    base = base_sha256(generator.family, plan.modality)
    _refuse_another(study, store, generator, requests[ours[0].id], base)
    made = 0
    for start in range(0, len(ours), batch):
        items = ours[start : start + batch]
        comparisons = _unflagged(generator, [requests[item.id] for item in items])
        kept = [
            store.fill_item(item.id, records_of(item, comparison), base)
            for item, comparison in zip(items, comparisons, strict=True)
            if comparison is not None
        ]
        made += sum(kept)
        on_filled(len(items))
    return made


def _unflagged(generator: Generator, requests: Sequence[GenerationRequest]) -> list[Comparison | None]:
    """One comparison for each request; None for one that the family's safety checker flagged, which is left out."""
    try:
        return list(generator.generate_batch(requests))
    except FlaggedError as error:
        if len(requests) == 1:
            logger.warning("%r with seed %d is left out: %s", requests[0].prompt, requests[0].seed, error)
            return [None]
    return [made for request in requests for made in _unflagged(generator, [request])]


def _put_on_versions_of(study: str, modality: str, store: Store, generator: Generator) -> None:
    began_with = store.study_versions(study)
    chosen = {role: identity for role, (identity, _) in began_with.items()}
    passed_over = AdapterShelf(store, generator).put_on(chosen, modality).notes
    if passed_over:  # the page may go on with another version, a study is about the one that was put to use
        raise InputError(
            f"{passed_over[0].removesuffix(' The version before it is used.')} A study is made with what is in use: "
            "put that file back, or take it out of use with `python -m collection adapters rollback`."
        )
    in_use = generator.adapters(modality)
    for role, (identity, sha256) in began_with.items():
        if role not in in_use or in_use[role].sha256 != sha256:
            raise InputError(
                f"The {role} adapter {identity!r} is not the one that the study {study!r} began with; put that file "
                "back, or make another study."
            )


def _refuse_another(study: str, store: Store, generator: Generator, request: GenerationRequest, base: str) -> None:
    """Before hours of work: what would be refused when it is kept."""
    resolved, in_use = generator.validate_request(request), generator.adapters(request.modality)
    maker = {name: getattr(resolved, name) for name in SETTINGS}
    maker |= {role: [in_use[role].id, in_use[role].sha256] if role in in_use else None for role in ROLES}
    with_more(study, store.study_beginning(study), {"base": base, "variants": dict.fromkeys(request.variants, maker)})


def request_of(item: StudyItem, plan: StudyPlan) -> GenerationRequest:
    """What is drawn for an item: every variant, or one of them where a degraded copy is to stand beside it."""
    variants = plan.variants if item.kind == "normal" else plan.variants[-1:]
    return GenerationRequest(
        item.prompt, seed=item.seed, variants=variants, modality=plan.modality, **dict(plan.generation)
    )


def records_of(item: StudyItem, made: Comparison) -> list[Generation]:
    """What is kept of an item: of training and checks the clean one first, then its degraded copy."""
    comparison_id = uuid.uuid4().hex
    records = [generation_record(made, number, comparison_id) for number in range(len(made.samples))]
    if item.kind == "normal":
        return records
    clean = records[0]
    assert clean.media is not None
    media = degraded(clean.media, clean.media_type, clean.fps)
    bad = replace(clean, variant=VARIANT, media=media, media_sha256=sha256_hex(media), latents=None)
    return [clean, bad]


def run(study: str, database_url: str, data_dir: str, batch: int) -> None:
    """The command in one process of however many there are."""
    add_families(os.environ.get("NPO_FAMILIES"))
    hush_libraries()
    from accelerate import PartialState

    state = PartialState()
    with Store(database_url, data_dir, create=False) as store:
        plan = store.study_plan(study)
        device = str(state.device) if state.num_processes > 1 else None
        to_make = len(store.items_to_fill(study))
        state.wait_for_everyone()  # all have counted before anyone fills
        with tqdm(total=to_make, unit="item", disable=not state.is_main_process) as bar:
            pregenerate(
                store,
                Generator(plan.family, device=device),
                study,
                share=(state.process_index, state.num_processes),
                batch=batch,
                on_filled=lambda _: _show(bar, to_make - len(store.items_to_fill(study))),
            )
            state.wait_for_everyone()
            _show(bar, to_make - len(store.items_to_fill(study)))
    if state.is_main_process:
        print(f"The study {study} has all its {plan.modality}s; open the page Vote of the app.")


def _show(bar: Any, done: int) -> None:
    """Moves the bar to what all processes have done together."""
    bar.update(done - bar.n)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m service.pregenerate", description="Make the pictures or clips of a study; resumable."
    )
    parser.add_argument("study", help="the study's name; `python -m collection study list` shows them")
    parser.add_argument("--batch", type=int, default=BATCH, help="items made in one call of the pipeline (%(default)s)")
    parser.add_argument(
        "--database-url",
        default=os.environ.get("NPO_DATABASE_URL", DEFAULT_URL),
        help=f"default: NPO_DATABASE_URL or {DEFAULT_URL}",
    )
    parser.add_argument(
        "--data-dir",
        default=os.environ.get("NPO_DATA_DIR", DEFAULT_DATA_DIR),
        help=f"where media files lie; default: NPO_DATA_DIR or {DEFAULT_DATA_DIR}",
    )
    options = parser.parse_args(arguments)

    def command() -> None:
        if options.batch < 1:
            raise InputError(f"The batch is {options.batch}; give at least 1.")
        try:
            run(options.study, options.database_url, options.data_dir, options.batch)
        except INPUT_ERRORS as error:  # of either core; exit_status knows one
            raise InputError(str(error)) from None

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
