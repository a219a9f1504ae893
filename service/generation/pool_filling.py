"""Makes comparisons for the arena while nobody else wants the device: from suggestions, with seeds drawn here."""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import Final

from npo_core.errors import FlaggedError
from npo_core.requests import MAX_SEED, GenerationRequest
from service.arena.records import generation_record
from service.errors import INPUT_ERRORS
from service.services import Services

WANTED: Final = 30  # comparisons that a newcomer finds
LOOK_EVERY_S: Final = 2.0
PAUSE: Final = 0.5  # of the time that a comparison took: the device is nobody's in between
TRY_AGAIN_S: Final = 60.0

logger = logging.getLogger(__name__)


class PoolFiller:
    """Fills the pool of one family up to WANTED, and by one whenever somebody is about to have judged everything."""

    def __init__(self, services: Services, rng: random.Random | None = None) -> None:
        self._services = services
        self._rng = rng or random.SystemRandom()

    def run(self) -> None:
        """Until the lab closes. What cannot be made is told in the log, once, and tried again later."""
        told, wait_s = "", LOOK_EVERY_S
        while not self._services.compare.desk.closed:
            time.sleep(wait_s)
            started_s = time.monotonic()
            try:
                made = self.step()
                wait_s = LOOK_EVERY_S + (PAUSE * (time.monotonic() - started_s) if made else 0.0)
            except INPUT_ERRORS as error:
                wait_s = TRY_AGAIN_S
                if str(error) != told:
                    logger.warning("The arena gets no new pairs: %s", error)
                told = str(error)

    def step(self) -> bool:
        """Makes one comparison where one is wanted and nobody is served or waits; returns whether it did.

        Raises InputError for what cannot be made at all.
        """
        services = self._services
        lacks = services.store.count_to_judge(services.family.name) < WANTED or services.pool.running_low.is_set()
        if not (lacks and services.suggestions and services.compare.desk.free):
            return False
        services.pool.running_low.clear()
        request = GenerationRequest(self._rng.choice(services.suggestions), seed=self._rng.randrange(MAX_SEED + 1))
        with services.compare.desk.turn(services.generator):
            services.compare.load()
            services.shelf.put_on(None, request.modality)
            try:
                made = services.generator.generate(request)
            except FlaggedError as error:
                logger.warning("%r with seed %d is left out of the arena: %s", request.prompt, request.seed, error)
                return True
        comparison_id = uuid.uuid4().hex
        numbers = range(len(made.samples))
        services.store.add_generations([generation_record(made, number, comparison_id) for number in numbers])
        return True
