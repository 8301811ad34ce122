"""Trains the small language models that embedded engines serve. Needs the extra ``train`` and a checkout.

``python -m zeta.engines.training`` makes all three, and their manifest and card, anew.
"""

from __future__ import annotations

from zeta.engines.training._fit import Plan, Size, fit
from zeta.engines.training._make import make
from zeta.engines.training._pairs import learn_merges
from zeta.engines.training._text import Corpus, gather

__all__ = ["Corpus", "Plan", "Size", "fit", "gather", "learn_merges", "make"]
