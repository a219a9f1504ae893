from __future__ import annotations

import pytest

from npo_core.errors import InputError
from npo_core.variants import ALIGNED, BASE, DEFAULT_VARIANTS, VARIANTS, Mix, get_variant


def test_the_variants_are_those_of_the_paper() -> None:
    mixes = {name: variant.mixes(0.5, 2.0) for name, variant in VARIANTS.items()}
    assert mixes == {
        "base": (BASE, BASE),
        "aligned": (ALIGNED, ALIGNED),
        "aligned_npo": (ALIGNED, Mix(0.5, 2.0)),
        "base_npo": (BASE, Mix(0.0, 2.0)),
        "aligned_vs_base": (ALIGNED, BASE),
    }
    assert set(DEFAULT_VARIANTS) <= set(VARIANTS)


def test_an_unknown_variant_is_refused_naming_the_known() -> None:
    with pytest.raises(InputError, match="Unknown variant 'best'; choose from base, aligned, aligned_npo"):
        get_variant("best")
