"""Training of the embedded language models, in miniature. Needs torch and onnx; skipped without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from zeta.engines._lm import LanguageModel
from zeta.engines._tokens import END, Tokens
from zeta.engines.training import Corpus, Plan, Size, fit, gather, learn_merges, make
from zeta.engines.training._fit import tokens_of
from zeta.errors import ConfigError

PLAN = Plan(merges=64, made_up=200, window=48, rows=4)
SIZE = Size("mini", 32, 2, 40, 5e-3)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    (root / "docs").mkdir()
    for number in range(40):
        words = " ".join(f"Queue {number} holds request {at}." for at in range(20))
        (root / "docs" / f"page{number}.md").write_text(f"# Page {number}\n\n{words}\n")
    return root


@pytest.fixture(scope="module")
def corpus(checkout: Path) -> Corpus:
    return gather(checkout, made_up=PLAN.made_up, seed=0)


def test_what_is_held_out_is_not_learnt_and_stays_when_other_texts_come(checkout: Path, corpus: Corpus) -> None:
    assert corpus.own_held_out
    assert not set(corpus.own) & set(corpus.own_held_out)
    assert not set(corpus.made_up) & set(corpus.made_up_held_out)
    (checkout / "docs" / "further.md").write_text("# Further\n\n" + "One more page. " * 30)
    try:
        more = gather(checkout, made_up=PLAN.made_up, seed=0)
    finally:
        (checkout / "docs" / "further.md").unlink()
    assert set(corpus.own) < set(more.own) | set(more.own_held_out)
    assert not set(corpus.own) & set(more.own_held_out)
    assert more.fingerprint != corpus.fingerprint


def test_without_a_checkout_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no docs/"):
        gather(tmp_path, made_up=1, seed=0)


def test_pairs_seen_most_often_are_joined_first() -> None:
    # Behind "aa" three pairs stand twice each: the smallest one goes first.
    assert learn_merges("aaab aaab aab", 2) == [(ord("a"), ord("a")), (ord(" "), 256)]
    tokens = Tokens(learn_merges("the queue the queue the queue", 8))
    assert len(tokens.encode("the queue")) < len("the queue") // 2


def test_the_same_seed_gives_the_same_net(corpus: Corpus) -> None:
    tokens = Tokens(learn_merges("\n".join(corpus.own), PLAN.merges))
    own, made_up = tokens_of(corpus.own, tokens), tokens_of(corpus.made_up, tokens)
    size = Size("mini", 16, 1, 5, 5e-3)
    one, other = (fit(size, PLAN, tokens, own, made_up, lambda *_: None).net for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))


def test_the_recurrences_gradient_is_the_true_one() -> None:
    from zeta.engines.training._net import _Recurrence

    torch.manual_seed(0)
    a, b = (torch.rand(7, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(_Recurrence.apply, (a, b))


def test_the_exported_net_learns_and_computes_what_the_fitted_one_does(checkout: Path, tmp_path: Path) -> None:
    manifest = make(checkout, tmp_path, [SIZE], PLAN, lambda *_: None)
    row = manifest["models"]["mini"]
    assert row["held_out_bits_per_byte"]["own"] < 5.0, "untrained it needs 8"
    exported = LanguageModel("mini", tmp_path)
    corpus = gather(checkout, made_up=PLAN.made_up, seed=PLAN.seed)
    tokens = exported.tokens
    net = fit(SIZE, PLAN, tokens, tokens_of(corpus.own, tokens), tokens_of(corpus.made_up, tokens), lambda *_: None).net
    ids = [END, *tokens.encode("Q: Which day comes after Monday?\nA: Queue 3 holds")]
    with torch.no_grad():
        wanted = net(torch.tensor(ids)[:, None])[-1, 0].numpy()
    found = exported.read([ids], exported.empty_states(1))[0][0]
    # 8 bits cost some of it.
    assert np.abs(found - wanted).max() < 0.2 * wanted.std()
    assert np.corrcoef(found, wanted)[0, 1] > 0.99
