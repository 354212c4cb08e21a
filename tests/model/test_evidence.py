import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.model.evidence import EvidencePooling, FeatureStandardizer


def tokens_and_mask(num_pooled: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    scale = torch.tensor([1e-3, 1.0, 50.0])
    tokens = torch.randn(10, 4, num_pooled + 4, 3, generator=generator) * scale + 7 * scale
    tokens[:, :, :num_pooled] *= 3
    return tokens, torch.rand(10, 4, generator=generator) > 0.4


@pytest.mark.parametrize("num_pooled", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_are_those_of_numpy_for_each_kind_of_token(num_pooled: int, masked: bool) -> None:
    tokens, mask = tokens_and_mask(num_pooled)
    standardizer = FeatureStandardizer(3, evidence_grid=2)
    standardizer.fit(tokens, mask if masked else None, chunk=3)
    valid = (
        tokens.numpy().astype(np.float64)[mask.numpy()]
        if masked
        else tokens.numpy().astype(float).reshape(-1, num_pooled + 4, 3)
    )
    kinds = [(0, slice(0, 1)), (2, slice(num_pooled, None))] + ([(1, slice(1, 2))] if num_pooled == 2 else [])
    for kind, where in kinds:
        values = valid[:, where].reshape(-1, 3)
        np.testing.assert_allclose(standardizer.mean[kind], values.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(standardizer.std[kind], values.std(axis=0), rtol=1e-5)


def test_standardised_tokens_have_mean_zero_and_deviation_one() -> None:
    tokens, _ = tokens_and_mask(2)
    standardizer = FeatureStandardizer(3, evidence_grid=2)
    standardizer.fit(tokens)
    for part in (slice(0, 1), slice(1, 2), slice(2, None)):
        values = standardizer(tokens)[:, :, part].flatten(0, 2)
        torch.testing.assert_close(values.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.std(dim=0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_constant_channel_is_left_unscaled(value: float) -> None:
    tokens, _ = tokens_and_mask(1)
    tokens[..., 1] = value
    standardizer = FeatureStandardizer(3, evidence_grid=2)
    standardizer.fit(tokens)
    assert (standardizer.std[[0, 2], 1] == 1).all()
    assert standardizer(tokens)[..., 1].abs().max() < 1e-3


def test_half_precision_features_are_summed_in_full_precision() -> None:
    tokens = (torch.randn(3000, 1, 1, 2) + 100).half()
    standardizer = FeatureStandardizer(2, evidence_grid=0)
    standardizer.fit(tokens)
    np.testing.assert_allclose(standardizer.mean[0], tokens.double().mean(dim=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(standardizer.std[0], tokens.double().std(dim=(0, 1, 2), correction=0), rtol=1e-5)


def test_before_a_fit_tokens_pass_unchanged() -> None:
    tokens, _ = tokens_and_mask(2)
    assert torch.equal(FeatureStandardizer(3, evidence_grid=2)(tokens), tokens)


def test_fit_without_a_valid_view_is_refused() -> None:
    tokens, mask = tokens_and_mask(1)
    with pytest.raises(ValueError, match=r"view_features.*\(10, 4, 5, 3\).*no valid view"):
        FeatureStandardizer(3, evidence_grid=2).fit(tokens, torch.zeros_like(mask))


@pytest.mark.parametrize("num_tokens", [3, 4, 7])
def test_wrong_number_of_tokens_is_named(num_tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_tokens} tokens a view.*5 or 6"):
        FeatureStandardizer(3, evidence_grid=2)(torch.zeros(1, 1, num_tokens, 3))


def test_token_weights_are_a_distribution(tiny_model: RoadworkForImageClassification) -> None:
    tokens = 5 * torch.randn(3, 12, 6, 16)
    weights = tiny_model(view_features=tokens).token_weights
    assert weights.shape == (3, 12, 6)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 12))


def test_pooled_vector_does_not_depend_on_the_order_of_tokens(tiny_model: RoadworkForImageClassification) -> None:
    tokens, order = torch.randn(2, 3, 6, 16), torch.tensor([5, 3, 0, 1, 4, 2])
    pooled, weights, strength = tiny_model.evidence_pooling(tokens)
    pooled_again, weights_again, strength_again = tiny_model.evidence_pooling(tokens[:, :, order])
    assert pooled.shape == (2, 3, 16)
    torch.testing.assert_close(pooled_again, pooled)
    torch.testing.assert_close(weights_again, weights[:, :, order])
    torch.testing.assert_close(strength_again, strength)


def test_token_weight_times_exponential_strength_is_the_tokens_own_score(
    tiny_model: RoadworkForImageClassification,
) -> None:
    """So a softmax of the strengths over the views makes one softmax over all tokens of all views."""
    tokens = torch.randn(2, 3, 6, 16)
    _, weights, strength = tiny_model.evidence_pooling(tokens)
    _, joint, total = tiny_model.evidence_pooling(tokens.flatten(1, 2).unsqueeze(1))
    torch.testing.assert_close(weights * strength.softmax(dim=1).unsqueeze(-1), joint.unflatten(2, (3, 6))[:, 0])
    torch.testing.assert_close(strength.logsumexp(dim=1, keepdim=True), total)


def test_equal_tokens_pool_to_what_one_of_them_gives(tiny_model: RoadworkForImageClassification) -> None:
    token = torch.randn(2, 3, 1, 16)
    pooled, _, _ = tiny_model.evidence_pooling(token.expand(-1, -1, 6, -1))
    torch.testing.assert_close(pooled, tiny_model.evidence_pooling(token)[0])


def test_token_dropout_hides_its_share_of_tokens_in_training_only() -> None:
    torch.manual_seed(0)
    pooling = EvidencePooling(6, hidden_size=8, num_queries=2, token_dropout=0.3)
    tokens = torch.randn(40, 5, 17, 6)
    _, weights, _ = pooling.train()(tokens)
    hidden = (weights == 0).float().mean()
    assert 0.26 < hidden < 0.34
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(40, 5))
    vectors, weights, _ = pooling.eval()(tokens)
    assert (weights > 0).all()
    torch.testing.assert_close(vectors, pooling(tokens)[0], rtol=0, atol=0)


def test_a_view_without_any_token_left_is_their_mean() -> None:
    pooling = EvidencePooling(6, hidden_size=8, num_queries=1, token_dropout=0.999999).train()
    tokens = torch.randn(2, 3, 4, 6, requires_grad=True)
    vectors, weights, _ = pooling(tokens)
    torch.testing.assert_close(weights, torch.full((2, 3, 4), 0.25))
    vectors.sum().backward()
    assert tokens.grad.isfinite().all()
